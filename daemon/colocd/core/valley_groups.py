"""Room in the valleys for replicas on several nodes and for pairs: whole places near each other, not each part by itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from colocd.core.actions import Need
from colocd.core.arrays import Bools, Ints, popcount
from colocd.core.free_spots import best_free, without
from colocd.core.ground import Ground
from colocd.core.groups import MOST_DOMAINS, Part, domains_of, parts_of, rows_by_domain
from colocd.core.service import Closeness
from colocd.core.view import ServiceView
from colocd.core.wide import Ask, seated

Spots = tuple[tuple[int, int], ...]
"""Node rows and GPU masks."""
Domains = dict[tuple[bool, Closeness], tuple[list[list[int]], Ints]]
"""By whether a node may be its own domain, and closeness: the rows of each domain, and each row's domain."""


class Group(NamedTuple):
    """A service on several nodes (`second` None), or a service and the one that it sits beside."""

    first: ServiceView
    second: ServiceView | None

    @property
    def names(self) -> tuple[str, ...]:
        """Of one or both."""
        return tuple(s.spec.name for s in self if s is not None)


def groups_of(services: Sequence[ServiceView]) -> list[Group]:
    """The groups among these services. Who has a partner is in no group without it."""
    known = {s.spec.name: s for s in services}
    pairs = [Group(s, known[s.spec.beside]) for s in services if s.spec.beside in known]
    mated = {name for pair in pairs for name in pair.names}
    return [*pairs, *(Group(s, None) for s in services if s.spec.nodes > 1 and s.spec.name not in mated)]


def rooms(
    group: Group, left: dict[str, int], land: Ground, free: Ints, domains: Domains
) -> Iterator[tuple[str, Spots]]:
    """Room for the replicas of a group: per replica its service and spots.

    The caller strikes the spots from `free` before it goes on. `left`: replicas, by service, for which room is wanted; those
    that get some are taken off. The others fit nowhere near. `domains`: empty at first; calls with one view share it.
    """
    if any(left[name] > 0 for name in group.names):
        yield from _Keeper(land, free, group, left, domains).rooms()


class _Keeper:
    """One group: pairs first beside those that lack a partner, then together, then more of one kind beside any pair."""

    def __init__(self, land: Ground, free: Ints, group: Group, left: dict[str, int], domains: Domains) -> None:
        self.land, self.free, self.group, self.left = land, free, group, left
        self.parts, self.near = parts_of(group.first.spec, None if group.second is None else group.second.spec)
        self._taken: dict[str, set[int]] = {}
        self._domains = domains

    def rooms(self) -> Iterator[tuple[str, Spots]]:
        first, second = self.group
        names = [part.spec.name for part in self.parts]
        if second is None:
            while self.left[names[0]] > 0 and (room := self._room(self.parts, None)) is not None:
                yield from self._given([names[0]], room)
            return
        blank = Need(service="", now=0, have=0, why="")
        alone, known = seated(self.land, Ask(first, blank, 0), Ask(second, blank, 0))
        for k in (0, 1):
            for nodes in alone[1 - k]:
                yield from self._beside(k, nodes)
        pairs: list[tuple[str, ...]] = []
        while min(self.left[name] for name in names) > 0 and (room := self._room(self.parts, None)) is not None:
            yield from self._given(names, room)
            pairs.append(tuple(dict.fromkeys(self.land.index.nodes[row].name for spots in room for row, _ in spots)))
        for k in (0, 1):
            for nodes in (*known[1 - k], *pairs):
                while self.left[names[k]] > 0:
                    before = self.left[names[k]]
                    yield from self._beside(k, nodes)
                    if self.left[names[k]] == before:
                        break

    def _beside(self, k: int, nodes: tuple[str, ...]) -> Iterator[tuple[str, Spots]]:
        """Room for one replica of part `k` near these nodes, if one is wanted and fits."""
        name = self.parts[k].spec.name
        if self.left[name] > 0:
            room = self._room((self.parts[k],), domains_of(self.land, nodes, self.near))
            if room is not None:
                yield from self._given([name], room)

    def _given(self, names: Sequence[str], room: Sequence[Spots]) -> Iterator[tuple[str, Spots]]:
        for name, spots in zip(names, room, strict=True):
            self.left[name] -= 1
            self._taken.setdefault(name, set()).update(row for row, _ in spots)
            yield name, spots

    def _room(self, parts: Sequence[Part], at: Mapping[Closeness, str] | None) -> list[Spots] | None:
        """Free GPUs for these parts at the first closeness at which they fit, in the fullest domain; None: nowhere."""
        for closeness in self.near:
            if at is not None and closeness not in at:
                continue
            for rows in self._ranked(parts, closeness, None if at is None else at[closeness]):
                found = self._in(parts, rows)
                if found is not None:
                    return found
        return None

    def _ranked(self, parts: Sequence[Part], closeness: Closeness, only: str | None) -> list[list[int]]:
        """Node rows of the domains that may have room for all parts, those with the fewest free GPUs first."""
        if only is not None:
            return list(rows_by_domain(self.land, parts, closeness, only, shut=True).values())
        key = (len(parts) > 1 and all(part.nodes == 1 for part in parts), closeness)
        if key not in self._domains:
            domains = sorted(rows_by_domain(self.land, parts, closeness, None, shut=True).items())
            which: Ints = np.full(len(self.free), len(domains), dtype=np.int64)
            for number, (_, rows) in enumerate(domains):
                which[rows] = number
            self._domains[key] = ([rows for _, rows in domains], which)
        members, which = self._domains[key]
        room = popcount(self.free)
        total = np.bincount(which, weights=room, minlength=len(members) + 1).astype(np.int64)
        fits = total >= sum(part.nodes * part.spec.gpus_per_replica for part in parts)
        for part in parts:
            enough = which[room >= part.spec.gpus_per_replica]
            fits &= np.bincount(enough, minlength=len(members) + 1) >= part.nodes
        found = np.flatnonzero(fits[:-1])
        return [members[k] for k in found[np.argsort(total[found], kind="stable")][:MOST_DOMAINS].tolist()]

    def _in(self, parts: Sequence[Part], rows: Sequence[int]) -> list[Spots] | None:
        """Spots of all parts on these nodes, the largest part first; None: they do not fit together."""
        free = self.free.copy()
        found: dict[int, Spots] = {}
        for k in sorted(range(len(parts)), key=lambda k: -parts[k].spec.gpus_per_replica):
            spec = parts[k].spec
            members = self.land.index.partitions.get(spec.partition)
            if members is None:
                return None
            mine: Bools = np.zeros_like(members)
            mine[list(rows)] = members[list(rows)]
            mine = without(mine, self._taken.get(spec.name, ()) if spec.spread else ())
            spots: list[tuple[int, int]] = []
            rest: dict[int, int] = {}
            for row, gpus in best_free(spec, spec.gpus_per_replica, self.land, free, mine):
                spots.append((row, gpus))
                # The nodes of one replica are different ones: what is left of this one is for other parts.
                rest[row], free[row] = int(free[row]) & ~gpus, 0
                if len(spots) == parts[k].nodes:
                    break
            if len(spots) < parts[k].nodes:
                return None
            free[list(rest)] = list(rest.values())
            found[k] = tuple(spots)
        return [found[k] for k in range(len(parts))]
