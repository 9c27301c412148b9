"""Replicas on several nodes: GPUs by node, for handovers (wanted and given) and replicas.

What has one node becomes a place of one node, so handovers that were open before go on. Columns are dropped and added singly:
a table made anew would forget which handover numbers were given.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ENDED = ("released", "failed", "rolled-back")

_handovers = sa.table(
    "handovers",
    sa.column("id", NUMBER),
    sa.column("service", WORDS),
    sa.column("state", WORDS),
    sa.column("node", WORDS),
    sa.column("want", sa.BigInteger()),
    sa.column("places", sa.JSON()),
)
_old_got = sa.table("handovers", sa.column("id", NUMBER), sa.column("got", sa.BigInteger()))
_new_got = sa.table("handovers", sa.column("id", NUMBER), sa.column("got", sa.JSON(none_as_null=True)))
_replicas = sa.table(
    "replicas",
    sa.column("service", WORDS),
    sa.column("slot", sa.Integer()),
    sa.column("node", WORDS),
    sa.column("gpus", sa.BigInteger()),
    sa.column("places", sa.JSON()),
)


def _places() -> "sa.Column[Any]":
    # Nullable although it never is: SQLite adds no other column without a default, and PostgreSQL cannot compare JSON's.
    return sa.Column("places", sa.JSON(), nullable=True)


def upgrade() -> None:
    """Put GPUs by node in the place of one node and its GPUs."""
    bind = op.get_bind()
    h, r = _handovers.c, _replicas.c
    handovers = bind.execute(sa.select(h.id, h.node, h.want)).all()
    got = dict(bind.execute(sa.select(_old_got.c.id, _old_got.c.got)).all())
    replicas = bind.execute(sa.select(r.service, r.slot, r.node, r.gpus)).all()
    op.add_column("handovers", _places())
    op.drop_column("handovers", "got")
    op.add_column("handovers", sa.Column("got", sa.JSON(), nullable=True))
    op.add_column("replicas", _places())
    for number, node, want in handovers:
        given = None if got[number] is None else {node: got[number]}
        bind.execute(sa.update(_handovers).where(h.id == number).values(places={node: want}))
        bind.execute(sa.update(_new_got).where(_new_got.c.id == number).values(got=given))
    for service, slot, node, gpus in replicas:
        places = {} if node is None else {node: gpus}
        bind.execute(sa.update(_replicas).where(r.service == service, r.slot == slot).values(places=places))
    op.drop_column("handovers", "node")
    op.drop_column("handovers", "want")
    op.drop_column("replicas", "gpus")


def downgrade() -> None:
    """Back to one node. Refuses while a handover is open, or a replica placed, on several: nobody would know of the others.

    Of an ended handover on several nodes only the first one stays.
    """
    bind = op.get_bind()
    h, r = _handovers.c, _replicas.c
    handovers = bind.execute(sa.select(h.id, h.state, h.places)).all()
    got = dict(bind.execute(sa.select(_new_got.c.id, _new_got.c.got)).all())
    replicas = bind.execute(sa.select(r.service, r.slot, r.places)).all()
    wide = [f"handover {number}" for number, state, places in handovers if state not in ENDED and len(places) > 1]
    wide += [f"replica {slot} of {service}" for service, slot, places in replicas if len(places) > 1]
    if wide:
        raise CommandError(f"the older schema knows one node each, and {', '.join(wide)} use several; end them first")
    op.add_column("handovers", sa.Column("node", WORDS, nullable=False, server_default=""))
    op.add_column("handovers", sa.Column("want", sa.BigInteger(), nullable=False, server_default="0"))
    op.drop_column("handovers", "got")
    op.add_column("handovers", sa.Column("got", sa.BigInteger(), nullable=True))
    op.add_column("replicas", sa.Column("gpus", sa.BigInteger(), nullable=False, server_default="0"))
    for number, _, places in handovers:
        node = next(iter(places), "")
        change = sa.update(_handovers).where(h.id == number)
        bind.execute(change.values(node=node, want=places.get(node, 0)))
        given = None if got[number] is None else got[number].get(node)
        bind.execute(sa.update(_old_got).where(_old_got.c.id == number).values(got=given))
    for service, slot, places in replicas:
        change = sa.update(_replicas).where(r.service == service, r.slot == slot)
        bind.execute(change.values(gpus=next(iter(places.values()), 0)))
    op.drop_column("handovers", "places")
    op.drop_column("replicas", "places")
