"""Runs of batch jobs, for accounting and run times; place in the fair queue, parking and deadline of a job."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
INSTANT = sa.DateTime(timezone=True)
DOUBLE = sa.Float(53)


def upgrade() -> None:
    """Make the table of runs and the new columns; jobs that are known already have no deaths and no place yet."""
    op.create_table(
        "runs",
        sa.Column("ref", WORDS, nullable=False),
        sa.Column("started", INSTANT, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("name", WORDS, nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("saved", DOUBLE),
        sa.Column("ended", INSTANT),
        sa.Column("end", WORDS),
        sa.PrimaryKeyConstraint("ref", "started", name="pk_runs"),
    )
    op.create_index("ix_runs_ended", "runs", ["ended"])
    with op.batch_alter_table("batch_jobs") as table:
        table.add_column(sa.Column("tag", DOUBLE))
        table.add_column(sa.Column("deaths", sa.Integer()))
        table.add_column(sa.Column("parked", WORDS))
        table.add_column(sa.Column("parked_at", INSTANT))
        table.add_column(sa.Column("deadline", DOUBLE))
    op.execute("UPDATE batch_jobs SET deaths = 0")
    with op.batch_alter_table("batch_jobs") as table:
        table.alter_column("deaths", existing_type=sa.Integer(), nullable=False)


def downgrade() -> None:
    """Drop the runs and the columns."""
    with op.batch_alter_table("batch_jobs") as table:
        for name in ("tag", "deaths", "parked", "parked_at", "deadline"):
            table.drop_column(name)
    op.drop_table("runs")
