"""How often a batch job answered when it was told to save, how often it was silent, and how long its last answer took."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Of jobs that are known already nobody has seen an answer yet."""
    with op.batch_alter_table("batch_jobs") as table:
        table.add_column(sa.Column("answered", sa.Integer()))
        table.add_column(sa.Column("silent", sa.Integer()))
        table.add_column(sa.Column("took", sa.Float(53)))
    op.execute("UPDATE batch_jobs SET answered = 0, silent = 0")
    with op.batch_alter_table("batch_jobs") as table:
        table.alter_column("answered", existing_type=sa.Integer(), nullable=False)
        table.alter_column("silent", existing_type=sa.Integer(), nullable=False)


def downgrade() -> None:
    """Drop the columns."""
    with op.batch_alter_table("batch_jobs") as table:
        for name in ("answered", "silent", "took"):
            table.drop_column(name)
