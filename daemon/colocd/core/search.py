"""The exact search on one node, done for many nodes at once: the cheapest GPU subset that reaches the level.

Every subset of the right size is a candidate; the jobs that hold its GPUs are its victims. So the cheapest candidate is the
cheapest feasible victim set, judged by where the replica *will sit*. A candidate's *key* is one integer: missed levels, then
cost, then number of jobs; keys of several replicas may be added.
"""

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from coloc_topology.fit import FitTable
from coloc_topology.shape import Level
from coloc_topology.subsets import minimum_over_subsets
from colocd.core.arrays import Bools, Ints, popcount
from colocd.core.service import Mode, ServiceSpec
from colocd.core.victims import COST_SCALE

JOBS_BITS = 6
MISSED_SHIFT = 54

NEVER = 1 << 62
"""Key of what cannot be."""
_NONE: Ints = np.zeros(0, dtype=np.int64)
_FEW = 64
"""Subsets that are quicker looked through one by one than as an array."""
_CHUNK = 1 << 16
"""Candidates looked at in one go: small enough for the processor's cache."""


def job_key(milli: int) -> int:
    """What evicting one job adds to a key; `milli`: thousandths of a GPU-second."""
    return (milli << JOBS_BITS) | 1


def key_cost(key: int) -> float:
    """The cost within a key, in GPU-seconds."""
    return ((key & ((1 << MISSED_SHIFT) - 1)) >> JOBS_BITS) / COST_SCALE


class Fine(NamedTuple):
    """Per node: best subset, broken islands and strength, among the candidates with the least key."""

    gpus: Ints
    damage: Ints
    strength: Ints


class Request(NamedTuple):
    """What the search on one node must know of a service; services with equal requests share their keys."""

    gpus: int
    level: Level
    strict: bool

    @classmethod
    def of(cls, spec: ServiceSpec) -> "Request":
        """The request that a service makes for one replica."""
        return cls(spec.gpus_per_replica, spec.level, spec.mode is Mode.GUARANTEED)


class Found(NamedTuple):
    """The best candidate on each node, as far as it was worked out: the rest where `known`.

    `key` is the least key where `exact`, elsewhere a bound from below.
    """

    key: Ints
    exact: Bools
    gpus: Ints
    damage: Ints
    strength: Ints
    known: Bools


class NodeSearch:
    """All candidates for `count` GPUs at `level` on one shape; `strict`: worse levels are no candidates."""

    def __init__(self, table: FitTable, count: int, level: Level, strict: bool) -> None:
        self.table, self.count, self.level = table, count, level
        self.all = table.shape.all
        fits = table.subsets(self.all, count, level if strict else Level.SYS)
        ranked = sorted((max(0, level - f.level), -f.strength, f.gpus) for f in fits)
        self.subs: Ints = np.array([r[2] for r in ranked], dtype=np.int64)
        missed: Ints = np.array([r[0] for r in ranked], dtype=np.int64)
        self.strength: Ints = np.array([-r[1] for r in ranked], dtype=np.int64)
        self.base: Ints = missed << MISSED_SHIFT
        self._narrow = self.subs.astype(np.uint16)
        self._good = self.subs[missed == 0]
        islands = [i for i in table.islands(Level.NVLINK) if i.bit_count() > 1]
        self._islands: Ints = np.array(islands, dtype=np.int64)
        part = self.subs[:, None] & self._islands
        self._breaks: Bools = (part != 0) & (part != self._islands)
        self._packed: dict[int, int] = {}
        self.most = self.packs(self.all)

    def packs(self, room: int) -> int:
        """How many replicas fit side by side into `room`, each at the level."""
        room &= self.all
        if room.bit_count() < self.count:
            return 0
        found = self._packed.get(room)
        if found is None:
            inside = self._good[(self._good & ~room) == 0]
            limit, found = room.bit_count() // self.count, 0
            if len(inside):
                # Some GPU is in no replica or the lowest one of `room` is in one of these.
                low = room & -room
                for gpus in inside[(inside & low) != 0].tolist():
                    found = max(found, 1 + self.packs(room & ~gpus))
                    if found == limit:
                        break
                else:
                    found = max(found, self.packs(room & ~low))
            self._packed[room] = found
        return found

    def pack(self, room: int, many: int) -> list[int]:
        """Subsets for up to `many` replicas side by side in `room`, best first while the rest still fits."""
        chosen: list[int] = []
        room &= self.all
        many = min(many, self.packs(room))
        while len(chosen) < many:
            left = many - len(chosen) - 1
            gpus = next(g for g in self._good.tolist() if g & ~room == 0 and self.packs(room & ~g) >= left)
            chosen.append(gpus)
            room &= ~gpus
        return chosen

    def candidates(self, free: Ints, masks: Ints, costs: Ints) -> Ints:
        """Keys of all candidates: one row a node, one column a subset of `subs`; `NEVER` where a GPU cannot be had.

        `masks` and `costs`: GPUs and `job_key` of each evictable holder, 0 for none.
        """
        reach = free | np.bitwise_or.reduce(masks, axis=1)
        keys: Ints = np.repeat(self.base[None, :], len(free), axis=0)
        taken = (masks & ~free[:, None]).astype(np.uint16)
        for h in np.flatnonzero(taken.any(axis=0)).tolist():
            keys += np.where(taken[:, h, None] & self._narrow, costs[:, h, None], 0)
        gone = (~reach & self.all).astype(np.uint16)
        keys[(gone[:, None] & self._narrow) != 0] = NEVER
        return keys

    def floor(self, free: Ints, each: Ints, unit: Ints) -> tuple[Ints, Bools]:
        """Bounds from below of the nodes' least keys; whether they are met. `each`, `unit`: least key of a job, and a GPU."""
        alone: Ints = self._alone[free & self.all]
        short = self.count - popcount(free & self.all)
        bound = np.maximum(each, np.minimum(unit, NEVER // self.table.shape.gpus) * np.maximum(short, 0))
        return np.minimum(alone, bound), alone <= bound

    def least(self, free: Ints, masks: Ints, costs: Ints) -> Ints:
        """The least key of each node."""
        out: Ints = self._alone[free & self.all]
        if not len(self.subs):
            return out
        rest = np.flatnonzero((out > 0) & (masks != 0).any(axis=1))
        used = masks[rest] != 0
        many = masks.shape[1] - used[:, ::-1].argmax(axis=1)
        for held in np.unique(many).tolist():
            rows = rest[many == held]
            by_jobs = held < 2 or 1 << held < 4 * len(self.subs)
            step = max(1, _CHUNK // (1 << held if by_jobs else max(1, len(self.subs))))
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                part = (free[some], masks[some, :held], costs[some, :held])
                out[some] = self._by_victims(*part) if by_jobs else self.candidates(*part).min(axis=1)
        return out

    @cached_property
    def _alone(self) -> Ints:
        """For each set of free GPUs, the key of the best candidate in it."""
        table: Ints = np.full(self.all + 1, NEVER, dtype=np.int64)
        table[self.subs] = self.base
        lowest: Ints = minimum_over_subsets(table, self.table.shape.gpus)
        return lowest

    def _by_victims(self, free: Ints, masks: Ints, costs: Ints) -> Ints:
        """The least keys by looking at every set of jobs instead of every set of GPUs: often there are far fewer."""
        rooms, sums = self._victim_sets(free, masks, costs)
        keys: Ints = np.minimum((self._alone[rooms] + sums).min(axis=1), NEVER)
        return keys

    def _victim_sets(self, free: Ints, masks: Ints, costs: Ints) -> tuple[Ints, Ints]:
        """GPUs to be had and the sum of keys, for every set of a node's jobs: a row a node, a column a set."""
        rooms, sums = (free & self.all)[:, None], np.zeros((len(free), 1), dtype=np.int64)
        for h in range(masks.shape[1]):
            rooms = np.concatenate([rooms, rooms | (masks[:, h, None] & self.all)], axis=1)
            sums = np.concatenate([sums, sums + costs[:, h, None]], axis=1)
        return rooms, sums

    def fine(self, free: Ints, masks: Ints, costs: Ints) -> Fine:
        """The best subset of each node: least key, then fewest broken islands, strongest, lowest mask."""
        keys = self.candidates(free, masks, costs)
        reach = free | np.bitwise_or.reduce(masks, axis=1)
        whole = (self._islands & ~reach[:, None]) == 0
        damage = whole.astype(np.int64) @ self._breaks.T.astype(np.int64)
        size = len(self.subs)
        place = np.where(keys == keys.min(axis=1)[:, None], damage * size + np.arange(size), NEVER)
        at = place.argmin(axis=1)
        return Fine(self.subs[at], damage[np.arange(len(free)), at], self.strength[at])

    @cached_property
    def _fit_count(self) -> Ints:
        """For each set of GPUs at least as many replicas as fit side by side; exact for shapes of up to 8 GPUs."""
        everything = np.arange(self.all + 1)
        if self.table.shape.gpus <= 8:
            return np.array([self.packs(int(room)) for room in everything], dtype=np.int64)
        size = sum((everything >> i) & 1 for i in range(self.table.shape.gpus))
        return np.where(self._alone < 1 << MISSED_SHIFT, size // self.count, 0)

    def bounds(self, free: Ints, masks: Ints, costs: Ints, depth: int) -> Ints:
        """Keys that 1 … `depth` replicas on a node cost at least (see `bundles`); a row a node, a column a number."""
        out: Ints = np.full((len(free), depth), NEVER, dtype=np.int64)
        used = masks != 0
        many = np.where(used.any(axis=1), masks.shape[1] - used[:, ::-1].argmax(axis=1), 0)
        for held in np.unique(many).tolist():
            rows = np.flatnonzero(many == held)
            step = max(1, _CHUNK >> held)
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                rooms, sums = self._victim_sets(free[some], masks[some, :held], costs[some, :held])
                # Each victim gives up a GPU to the first replica, so there are at most as many as that one has GPUs.
                few = (sums & ((1 << JOBS_BITS) - 1)) <= self.count
                fit = np.where(few, self._fit_count[rooms], 0)
                for m in range(1, depth + 1):
                    # The first replica may miss the level if the request allows it; those that wait never do.
                    keys = np.where(fit >= m - 1, self._alone[rooms] + sums, NEVER)
                    out[some, m - 1] = np.minimum(keys, np.where(fit >= m, sums, NEVER)).min(axis=1) + (m - 1)
        np.minimum(out, NEVER, out=out)
        return out

    def good_with(self, low: int, room: int) -> list[int]:
        """The subsets within `room` that reach the level and hold its lowest GPU `low`."""
        if room.bit_count() < self.count:
            return []
        mine = self._good_by_low.get(low, _NONE)
        if len(mine) > _FEW:
            found: list[int] = mine[(mine & ~room) == 0].tolist()
            return found
        return [gpus for gpus in mine.tolist() if not gpus & ~room]

    @cached_property
    def _good_by_low(self) -> dict[int, Ints]:
        lows = self._good & -self._good
        return {low: self._good[lows == low] for low in np.unique(lows).tolist()}

    def good_in(self, room: int) -> list[int]:
        """The subsets within `room` that reach the level, best first."""
        found: list[int] = self._good[(self._good & ~room) == 0].tolist()
        return found

    def with_rooms(self, free: Ints, masks: Ints, costs: Ints) -> tuple[Ints, Ints]:
        """Keys of all candidates (see `candidates`), and for each the GPUs free or freed once its victims are gone."""
        keys = self.candidates(free, masks, costs)
        rooms: Ints = np.repeat(free[:, None], len(self.subs), axis=1)
        taken = masks & ~free[:, None]
        for h in np.flatnonzero(taken.any(axis=0)).tolist():
            rooms |= np.where(taken[:, h, None] & self.subs, masks[:, h, None], 0)
        return keys, rooms

    def bundles(self, free: Ints, masks: Ints, costs: Ints) -> tuple[Ints, Ints]:
        """For 1, 2, … replicas on one node: key and first subset of the cheapest first replica that leaves room for the rest.

        The rest sits on what is free and on what the first replica's victims free: no further victims. A replica that has
        to wait for the first one counts like one more job in the key. A row a node, a column a number; `NEVER`: they do not fit.
        """
        keys, rooms = self.with_rooms(free, masks, costs)
        left = rooms & ~self.subs & self.all
        if self.table.shape.gpus <= 8:
            more: Ints = self._fit_count[left]
        else:
            kinds, which = np.unique(left, return_inverse=True)
            more = np.array([self.packs(room) for room in kinds.tolist()], dtype=np.int64)[which].reshape(left.shape)
        best: Ints = np.full((len(free), self.most), NEVER, dtype=np.int64)
        subs = np.zeros_like(best)
        here = np.arange(len(free))
        for m in range(1, self.most + 1):
            able = np.where(more >= m - 1, keys, NEVER)
            at = able.argmin(axis=1)
            best[:, m - 1] = np.minimum(able[here, at] + (m - 1), NEVER)
            subs[:, m - 1] = self.subs[at]
        return best, subs

    def bundle(self, free: int, masks: Ints, costs: Ints, many: int) -> tuple[int, int] | None:
        """Key and first subset for `many` replicas on one node; None: they do not fit. See `bundles`."""
        keys, subs = self.bundles(np.array([free]), masks[None, :], costs[None, :])
        key = int(keys[0, many - 1])
        return (key, int(subs[0, many - 1])) if key < NEVER else None


@lru_cache(maxsize=256)
def node_search(table: FitTable, count: int, level: Level, strict: bool) -> NodeSearch:
    """The search for a shape's table, built once per process."""
    return NodeSearch(table, count, level, strict)
