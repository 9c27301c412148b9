"""What the view tells of an open handover."""

import msgspec


class HandoverBrief(msgspec.Struct, frozen=True, kw_only=True):
    """An open handover: what it leases. The planner leaves its nodes, the GPUs wanted there and its victims alone."""

    id: int
    service: str
    slot: int
    places: dict[str, int]
    victims: tuple[str, ...]
    state: str
    waits_until: float | None = None
    """Unix seconds until which it waits at most for victims that go at a moment of their own; null: it does not wait."""
