"""Roll-ups of the load: packed minutes and ten minutes, how far each series is rolled up; what is learned of services.

Types are spelt out here and not taken from `colocd.store.types`: a migration must not change when the program does.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
COUNTED = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    """Add the tables. Samples that are there are rolled up by the daemon, bit by bit, before they are deleted."""
    op.create_table(
        "load_packs",
        sa.Column("series", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("series", "step", "start", name="pk_load_packs"),
        sa.ForeignKeyConstraint(["series"], ["load_series.id"], name="fk_load_packs_series"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "learned",
        sa.Column("service", WORDS, nullable=False),
        sa.Column("topic", WORDS, nullable=False),
        sa.Column("at", COUNTED, nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("service", "topic", name="pk_learned"),
    )
    op.add_column("load_series", sa.Column("minutes_to", sa.BigInteger(), nullable=True))
    op.add_column("load_series", sa.Column("tens_to", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Drop them: rolled-up history is lost, samples that are still there stay."""
    op.drop_column("load_series", "tens_to")
    op.drop_column("load_series", "minutes_to")
    op.drop_table("learned")
    op.drop_table("load_packs")
