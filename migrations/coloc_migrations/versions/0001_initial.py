"""Initial schema.

Types are spelt out here and not taken from `colocd.store.types`: a migration must not change when the program does.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
INSTANT = sa.DateTime(timezone=True)
COUNTED = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _column(name: str, kind: Any, *rest: Any, null: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, kind, *rest, nullable=null)


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "services",
        _column("name", WORDS),
        _column("spec", WORDS),
        _column("applied_at", INSTANT),
        _column("removed", sa.Boolean()),
        _column("data", sa.JSON()),
        sa.PrimaryKeyConstraint("name", name="pk_services"),
    )
    op.create_table(
        "replicas",
        _column("service", WORDS),
        _column("slot", sa.Integer()),
        _column("state", WORDS),
        _column("job", WORDS, null=True),
        _column("node", WORDS, null=True),
        _column("gpus", sa.BigInteger()),
        _column("level", WORDS, null=True),
        _column("since", INSTANT),
        _column("data", sa.JSON()),
        sa.PrimaryKeyConstraint("service", "slot", name="pk_replicas"),
    )
    op.create_table(
        "load_series",
        _column("id", sa.Integer()),
        _column("name", WORDS),
        sa.PrimaryKeyConstraint("id", name="pk_load_series"),
        sa.UniqueConstraint("name", name="uq_load_series_name"),
    )
    op.create_table(
        "load_samples",
        _column("series", sa.Integer()),
        _column("at", COUNTED),
        _column("value", sa.Float(53), null=True),
        sa.PrimaryKeyConstraint("series", "at", name="pk_load_samples"),
        sa.ForeignKeyConstraint(["series"], ["load_series.id"], name="fk_load_samples_series"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "batch_jobs",
        _column("ref", WORDS),
        _column("user", WORDS),
        _column("name", WORDS),
        _column("first_seen", INSTANT),
        _column("last_seen", INSTANT),
        _column("evictions", sa.Integer()),
        _column("evicted_at", INSTANT, null=True),
        _column("released_at", INSTANT, null=True),
        _column("ever_released", sa.Boolean()),
        _column("retry_at", INSTANT, null=True),
        _column("ours", sa.Boolean()),
        _column("pinned", sa.Boolean()),
        _column("saved", sa.Float(53), null=True),
        _column("ended", WORDS, null=True),
        sa.PrimaryKeyConstraint("ref", name="pk_batch_jobs"),
    )
    op.create_index("ix_batch_jobs_ended", "batch_jobs", ["ended"])
    op.create_table(
        "handovers",
        _column("id", NUMBER),
        _column("service", WORDS),
        _column("slot", sa.Integer()),
        _column("node", WORDS),
        _column("want", sa.BigInteger()),
        _column("level", WORDS),
        _column("victims", sa.JSON()),
        _column("gpu_type", WORDS, null=True),
        _column("state", WORDS),
        _column("job", WORDS, null=True),
        _column("got", sa.BigInteger(), null=True),
        _column("created_at", INSTANT),
        _column("updated_at", INSTANT),
        _column("why", WORDS),
        _column("data", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_handovers"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_handovers_state", "handovers", ["state"])
    op.create_table(
        "intents",
        _column("id", NUMBER),
        _column("key", WORDS),
        _column("kind", WORDS),
        _column("subject", WORDS),
        _column("at", INSTANT),
        _column("payload", sa.JSON()),
        _column("handover", NUMBER, null=True),
        _column("outcome", WORDS),
        _column("settled_at", INSTANT, null=True),
        _column("detail", WORDS, null=True),
        sa.PrimaryKeyConstraint("id", name="pk_intents"),
        sa.UniqueConstraint("key", name="uq_intents_key"),
        sa.ForeignKeyConstraint(["handover"], ["handovers.id"], name="fk_intents_handover"),
    )
    for name in ("at", "handover", "outcome"):
        op.create_index(f"ix_intents_{name}", "intents", [name])
    op.create_table(
        "decisions",
        _column("id", NUMBER),
        _column("at", INSTANT),
        _column("subject", WORDS),
        _column("kind", WORDS),
        _column("text", WORDS),
        _column("data", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
    )
    op.create_index("ix_decisions_at", "decisions", ["at"])
    op.create_index("ix_decisions_subject_at", "decisions", ["subject", "at"])
    op.create_table(
        "settings",
        _column("key", WORDS),
        _column("value", WORDS),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )


def downgrade() -> None:
    """Drop all tables; an index goes with its table."""
    for table in (
        "settings",
        "decisions",
        "intents",
        "handovers",
        "batch_jobs",
        "load_samples",
        "load_series",
        "replicas",
        "services",
    ):
        op.drop_table(table)
