"""The tables. Column names are the field names of `colocd.store.records`; migrations live in `coloc_migrations`."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
)

from colocd.store.types import Instant, Number, Words

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_number = BigInteger().with_variant(Integer(), "sqlite")
"""Numbers given by the database; SQLite counts up only what it calls INTEGER."""

services = Table(
    "services",
    metadata,
    Column("name", Words, primary_key=True),
    Column("spec", Words, nullable=False),
    Column("applied_at", Instant, nullable=False),
    Column("removed", Boolean, nullable=False),
    Column("data", JSON, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("service", Words, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("state", Words, nullable=False),
    Column("job", Words),
    Column("node", Words),
    Column("places", JSON),
    Column("level", Words),
    Column("since", Instant, nullable=False),
    Column("data", JSON, nullable=False),
    PrimaryKeyConstraint("service", "slot"),
)

load_series = Table(
    "load_series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Words, nullable=False, unique=True),
    Column("minutes_to", BigInteger),
    Column("tens_to", BigInteger),
)
"""A number for each service that ever had a load sample, so that a sample is a few bytes.

`minutes_to`, `tens_to`: Unix seconds up to which its samples are rolled up to minutes, these to ten minutes; None: not begun.
"""

load_samples = Table(
    "load_samples",
    metadata,
    Column("series", Integer, ForeignKey(load_series.c.id), nullable=False),
    Column("at", Instant(compact=True), nullable=False),
    Column("value", Number),
    PrimaryKeyConstraint("series", "at"),
    sqlite_with_rowid=False,
)

load_packs = Table(
    "load_packs",
    metadata,
    Column("series", Integer, ForeignKey(load_series.c.id), nullable=False),
    Column("step", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("series", "step", "start"),
    sqlite_with_rowid=False,
)
"""Roll-ups, see `colocd.store.packs`: buckets of `step` seconds from `start` (Unix seconds) on, an hour or a day in a row."""

learned = Table(
    "learned",
    metadata,
    Column("service", Words, nullable=False),
    Column("topic", Words, nullable=False),
    Column("at", Instant(compact=True), nullable=False),
    Column("data", JSON, nullable=False),
    PrimaryKeyConstraint("service", "topic"),
)
"""What coloc has learned of a service: `capacity`, `lead`, `rises`."""

batch_jobs = Table(
    "batch_jobs",
    metadata,
    Column("ref", Words, primary_key=True),
    Column("user", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("first_seen", Instant, nullable=False),
    Column("last_seen", Instant, nullable=False),
    Column("evictions", Integer, nullable=False),
    Column("evicted_at", Instant),
    Column("released_at", Instant),
    Column("ever_released", Boolean, nullable=False),
    Column("retry_at", Instant),
    Column("ours", Boolean, nullable=False),
    Column("pinned", Boolean, nullable=False),
    # The job's own word, not our clock: it may be no date at all, and one job's nonsense must not stop the others.
    Column("saved", Number),
    Column("ended", Words, index=True),
    Column("tag", Number),
    Column("deaths", Integer, nullable=False),
    Column("parked", Words),
    Column("parked_at", Instant),
    Column("deadline", Number),
    Column("answered", Integer, nullable=False),
    Column("silent", Integer, nullable=False),
    Column("took", Number),
)

runs = Table(
    "runs",
    metadata,
    Column("ref", Words, nullable=False),
    Column("started", Instant, nullable=False),
    Column("user", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("saved", Number),
    Column("ended", Instant, index=True),
    Column("end", Words),
    PrimaryKeyConstraint("ref", "started"),
)

handovers = Table(
    "handovers",
    metadata,
    Column("id", _number, primary_key=True),
    Column("service", Words, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("places", JSON),
    Column("level", Words, nullable=False),
    Column("victims", JSON, nullable=False),
    Column("gpu_type", Words),
    Column("state", Words, nullable=False, index=True),
    Column("job", Words),
    Column("got", JSON(none_as_null=True)),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("why", Words, nullable=False),
    Column("data", JSON, nullable=False),
    sqlite_autoincrement=True,  # decisions speak of handover:N for ever; a number is never given twice
)

intents = Table(
    "intents",
    metadata,
    Column("id", _number, primary_key=True),
    Column("key", Words, nullable=False, unique=True),
    Column("kind", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("at", Instant, nullable=False, index=True),
    Column("payload", JSON, nullable=False),
    Column("handover", _number, ForeignKey(handovers.c.id), index=True),
    Column("outcome", Words, nullable=False, index=True),
    Column("settled_at", Instant),
    Column("detail", Words),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", _number, primary_key=True),
    Column("at", Instant, nullable=False, index=True),
    Column("subject", Words, nullable=False),
    Column("kind", Words, nullable=False),
    Column("text", Words, nullable=False),
    Column("data", JSON, nullable=False),
    Index(None, "subject", "at"),
)

settings = Table(
    "settings",
    metadata,
    Column("key", Words, primary_key=True),
    Column("value", Words, nullable=False),
)
