"""The cheapest way to place replicas of several services on a few nodes: all combinations per node, then over the nodes.

Exact for nodes that share no jobs. A job on several nodes is either an ordinary victim of one of them, or *shared*: then it is
known from which node it is evicted, and the others count on its GPUs.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Ints
from colocd.core.ground import Ground
from colocd.core.joint import Spot, settle
from colocd.core.mixes import Mixes, Vector, mixes
from colocd.core.openings import allowed
from colocd.core.search import NEVER, NodeSearch, Request
from colocd.core.service import ServiceSpec
from colocd.core.view import Job


class Shared(NamedTuple):
    """A job on several nodes, by ref, and the node row from which it is evicted."""

    ref: str
    payer: int


class Option(NamedTuple):
    """What a node may do: its key, and service and GPUs of the replica that starts there now (None: none does)."""

    key: int
    starts: tuple[int, int] | None


class Clash(NamedTuple):
    """A job that two nodes would evict; it has to be shared by one of them."""

    job: Job
    rows: tuple[int, int]


Profile = dict[Vector, Option]
Picked = tuple[int, Vector, Option]
"""A node row, and what it does."""


class ExactSolver:
    """Solves for fixed wants on fixed node rows; what was found out about a node is kept for the next call."""

    def __init__(self, land: Ground, wants: Sequence[tuple[ServiceSpec, int]], rows: Sequence[int]) -> None:
        self.land, self.rows = land, tuple(rows)
        self.specs = [spec for spec, _ in wants]
        self.many: Vector = tuple(many for _, many in wants)
        self._allowed = [allowed(land, spec) for spec in self.specs]
        self._by_row: dict[int, tuple[NodeSearch | None, ...]] = {}
        self._mixes: dict[int, Mixes] = {}
        self._rooms: list[dict[int, tuple[Ints, Ints]]] = []
        self._profiles: dict[tuple[int, tuple[Shared, ...]], Profile] = {}

    def _searches(self, row: int) -> tuple[NodeSearch | None, ...]:
        """The search per service on this node; None: the service may not run there."""
        found = self._by_row.get(row)
        if found is None:
            found = self._by_row[row] = tuple(
                self.land.search(row, Request.of(spec)) if members[row] else None
                for spec, members in zip(self.specs, self._allowed, strict=True)
            )
        return found

    def mixes(self, row: int) -> Mixes:
        """What fits side by side on a node, up to what is wanted; services that spread have one replica a node at most."""
        found = self._mixes.get(row)
        if found is None:
            size = self.land.index.tables[int(self.land.index.shape[row])].shape.gpus
            most = tuple(
                min(1 if spec.spread else size // spec.gpus_per_replica, n)
                for spec, n in zip(self.specs, self.many, strict=True)
            )
            found = self._mixes[row] = mixes(self._searches(row), most)
        return found

    def _profile(self, row: int, shared: Sequence[Shared]) -> Profile:
        """The cheapest option for each vector on one node. Shared jobs are evicted where they are paid only."""
        name = self.land.index.nodes[row].name
        mine = tuple(s for s in shared if name in self.land.gpus_of(s.ref))
        key = (row, mine)
        found = self._profiles.get(key)
        if found is None:
            found = self._profiles[key] = self._work_out(row, name, mine)
        return found

    def starts(self, row: int, below: int) -> Iterator[tuple[int, int, int, int]]:
        """Replicas that may start on a node for less than `below`: service, GPUs, key, GPUs free or freed; best for a rest."""
        if not self.land.open[row]:
            return
        if not self._rooms:
            for at, spec in enumerate(self.specs):
                rows = np.array([r for r in self.rows if self.land.open[r] and self._allowed[at][r]], dtype=np.int64)
                self._rooms.append(self.land.with_rooms(Request.of(spec), rows))
        for at, search in enumerate(self._searches(row)):
            if search is None:
                continue
            keys, rooms = self._rooms[at][row]
            some = np.flatnonzero(keys < below)
            best: dict[tuple[int, int], tuple[int, int]] = {}
            for key, gpus, room in zip(
                keys[some].tolist(), search.subs[some].tolist(), rooms[some].tolist(), strict=True
            ):
                known = best.get((room, room & ~gpus))
                if known is None or key < known[0]:
                    best[room, room & ~gpus] = (key, gpus)
            for (room, _), (key, gpus) in best.items():
                yield at, gpus, key, room

    def _work_out(self, row: int, name: str, mine: Sequence[Shared]) -> Profile:
        land = self.land
        free, masks, costs = land.content(row)
        later = land.room_later(row)
        musts = [land.gpus_of(s.ref)[name] & ~free for s in mine if s.payer == row]
        masks = masks.copy()
        for s in mine:
            if s.payer != row:
                later |= land.gpus_of(s.ref)[name]
                masks[land.holder_column(row, s.ref)] = 0
        profile: Profile = {}
        mix = self.mixes(row)
        if not musts:
            room = later | (free if land.open[row] else 0) if later else 0
            for number, inside in mix.options(room, None):
                _offer(profile, mix.vectors[number], Option(inside, None))
        if not land.open[row]:
            return profile
        for at, search in enumerate(self._searches(row)):
            if search is None:
                continue
            keys, rooms = (found[0] for found in search.with_rooms(np.array([free]), masks[None, :], costs[None, :]))
            best: dict[int, tuple[int, int]] = {}
            for key, gpus, room in zip(keys.tolist(), search.subs.tolist(), rooms.tolist(), strict=True):
                if key < NEVER and all(gpus & must for must in musts):
                    left = (room | later) & ~gpus
                    if left not in best or key < best[left][0]:
                        best[left] = (key, gpus)
            for left, (key, gpus) in best.items():
                for number, inside in mix.options(left, at):
                    _offer(profile, mix.vectors[number], Option(key + inside, (at, gpus)))
        return profile

    def solve(self, shared: Sequence[Shared] = ()) -> tuple[list[list[Spot]], Ground] | Clash | None:
        """Spots and what is left; a clash that must be decided first; None: a shared job cannot be evicted so."""
        shape = tuple(many + 1 for many in self.many)
        best: Ints = np.full(shape, NEVER, dtype=np.int64)
        best[(0,) * len(shape)] = 0
        steps: list[tuple[int, list[tuple[Vector, Option]], Ints]] = []
        for row in self.rows:
            profile = sorted(self._profile(row, shared).items())
            if not profile and any(s.payer == row for s in shared):
                return None
            must = any(s.payer == row for s in shared)
            grown = np.full(shape, NEVER, dtype=np.int64) if must else best.copy()
            chosen = np.full(shape, -1, dtype=np.int64)
            for number, (vector, option) in enumerate(profile):
                into = tuple(slice(v, None) for v in vector)
                out = tuple(slice(None, size - v) for v, size in zip(vector, shape, strict=True))
                sums = best[out] + option.key
                better = sums < grown[into]
                grown[into][better] = sums[better]
                chosen[into][better] = number
            best = grown
            steps.append((row, profile, chosen))
        reached = np.argwhere(best < NEVER)
        if not len(reached):
            return None
        state = max(tuple(r) for r in reached.tolist())
        picked: list[Picked] = []
        for row, profile, chosen in reversed(steps):
            number = int(chosen[state])
            if number >= 0:
                vector, option = profile[number]
                picked.append((row, vector, option))
                state = tuple(a - b for a, b in zip(state, vector, strict=True))
        return self.carry_out(picked)

    def carry_out(self, picked: list[Picked]) -> tuple[list[list[Spot]], Ground] | Clash | None:
        """Spots and what is left; a job that two nodes evict; None: shared jobs leave less room than was thought."""
        land = self.land.copy()
        spots: list[list[Spot]] = [[] for _ in self.specs]
        waiting: list[tuple[int, Vector]] = []
        by_job: dict[str, int] = {}
        for row, vector, option in sorted(picked):
            rest = vector
            if option.starts is not None:
                at, gpus = option.starts
                victims = tuple(self.land.holders(row, gpus))
                clash = next((job for job in victims if job.ref in by_job), None)
                if clash is not None:
                    return Clash(clash, (by_job[clash.ref], row))
                by_job.update({job.ref: row for job in victims})
                rest = (*vector[:at], vector[at] - 1, *vector[at + 1 :])
                spots[at].append(Spot(row, gpus, victims, option.key - sum(rest), waits=False))
                settle(land, self.specs[at], spots[at][-1])
            waiting.append((row, rest))
        for row, rest in waiting:
            room = land.room_later(row) | (int(land.free_masks[row]) if land.open[row] else 0)
            for at, gpus in self._seats(row, room, rest):
                spots[at].append(Spot(row, gpus, (), 1, waits=True))
                settle(land, self.specs[at], spots[at][-1])
        if any(s.waits for found in spots for s in found):
            for found in spots:
                found.sort(key=lambda spot: spot.waits)
        return spots, land

    def _seats(self, row: int, room: int, vector: Vector) -> Iterator[tuple[int, int]]:
        """Which service sits on which GPUs, for a vector that fits into the room."""
        mix = self.mixes(row)
        for at, search in enumerate(self._searches(row)):
            while search is not None and vector[at]:
                rest = (*vector[:at], vector[at] - 1, *vector[at + 1 :])
                gpus = next(g for g in search.good_in(room) if mix.holds(room & ~g, rest))
                yield at, gpus
                room, vector = room & ~gpus, rest


def _offer(profile: Profile, vector: Vector, option: Option) -> None:
    if vector not in profile or option.key < profile[vector].key:
        profile[vector] = option
