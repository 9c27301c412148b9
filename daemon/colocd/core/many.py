"""Many replicas at once, too many to combine node after node: by prices (`prices`), then balanced to what is wanted (`balance`).

Prices are found on the nodes that look cheapest for any one replica. At these every node gets a bound of what it could gain, and
the nodes that may gain are looked at closely, and priced again. The bound of the last prices counts for all nodes, so it is known
how far the plan may be from the cheapest.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.balance import chosen
from colocd.core.exact import Option, Picked
from colocd.core.ground import Ground
from colocd.core.mixes import mixes
from colocd.core.offers import Offers, Table, joined
from colocd.core.openings import allowed
from colocd.core.prices import Priced, climb, worth
from colocd.core.relevant import Relevance, unit_floors
from colocd.core.search import NEVER, Request
from colocd.core.service import ServiceSpec
from colocd.core.shares import common_payers, partners, shifted
from colocd.core.standings import decided, split

FIRST_STEPS = 30
"""Prices that are tried on the first nodes."""
SPARE = 16
"""Nodes for each kind of replica that are looked at first, beyond as many as there are replicas."""
MOST_BOUNDED = 4096
"""Nodes whose GPUs are priced one by one."""
MOST_CELLS = 1 << 15
"""Nodes times starts that are looked at closely."""
MOST_GPUS = 8
"""Larger nodes are not looked at: too many sets of GPUs may be left on them."""
ROUNDS = 2
"""How often the nodes to be looked at closely are chosen."""
APART = 100
"""They are chosen anew when the others may gain more than this part of the bound in all."""
MOST_NEAR = 400
"""Offers among which a plan was found, beyond which no more are combined."""
SHIFTS = 8
"""How often the keys of jobs on several nodes are shifted between these."""
SHIFT_STEPS = 10
"""Prices that are tried after each shift."""
REPAIRS = 3
"""Plans that are made while nodes still evict the same job."""
NEAR = (800, 50, 4)
"""Offers that cost up to this part of a known plan more than the best of their node are combined; more if need be."""


class Axis(NamedTuple):
    """Services that ask for the same, by their places among the wanted ones."""

    services: tuple[int, ...]
    spec: ServiceSpec
    many: int


class Solved(NamedTuple):
    """What no plan costs less than, and what each node does; None: no plan that costs less than the known one was found."""

    bound: int
    picked: list[Picked] | None


class ManySolver:
    """Plans for the wanted replicas. `used`, `known`: rows and key of a plan that there is."""

    def __init__(
        self,
        land: Ground,
        wants: Sequence[tuple[ServiceSpec, int]],
        relevance: Relevance,
        used: Sequence[int],
        known: int,
    ) -> None:
        self.land, self.wants, self.relevance, self.known = land, wants, relevance, known
        self._used: Ints = np.array(sorted(set(used)), dtype=np.int64)
        self._members: list[Bools] = []
        self.axes: list[Axis] = []
        self._join()
        self.many: Ints = np.array([axis.many for axis in self.axes], dtype=np.int64)
        self.gpus = [axis.spec.gpus_per_replica for axis in self.axes]
        self._size = max((table.shape.gpus for table in land.index.tables), default=0)

    def _join(self) -> None:
        """Services that ask for the same on the same nodes become one axis."""
        for at, (spec, many) in enumerate(self.wants):
            if not many:
                continue
            mine = allowed(self.land, spec)
            for nth, axis in enumerate(self.axes):
                alike = Request.of(spec) == Request.of(axis.spec) and not spec.spread and not axis.spec.spread
                if alike and np.array_equal(mine, self._members[nth]):
                    self.axes[nth] = axis._replace(services=(*axis.services, at), many=axis.many + many)
                    break
            else:
                self.axes.append(Axis((at,), spec, many))
                self._members.append(mine)

    def solve(self) -> Solved:
        """The best plan found, and the bound."""
        price = max(self.relevance.price, self.known // (4 * self.relevance.total))
        start = np.array([price * size for size in self.gpus], dtype=np.int64)
        first = self._offers(self._first())
        if not first:
            return Solved(0, None)
        found = climb(first, self.many, self.gpus, start, self.known, FIRST_STEPS)
        bound = 0
        for _ in range(ROUNDS):
            rows, floors, close = self._second(found.prices)
            offers = self._offers(rows[close])
            paying = [some.that_pay(found.prices * 9 // 8) for some in offers]
            found = climb(paying, self.many, self.gpus, found.prices, self.known)
            bound = max(bound, self._bound(found.prices, offers, rows, floors))
            if (found.bound - bound) * APART < found.bound:
                break  # No node that was not looked at gains much at these prices.
        if not offers:
            return Solved(bound, None)
        if not any(some.sharing for some in offers):
            return Solved(bound, self._balanced(offers, found, self.known)[1])
        wanting, found = self._shared(offers, found)
        bound = max(bound, self._bound(found.prices, [*offers, *wanting], rows, floors))
        payers = common_payers(wanting, found.prices)
        looked = np.unique(np.concatenate([rows[close], *(some.rows for some in wanting)]))
        best, picked = self.known, None
        for _ in range(REPAIRS):
            # Who pays in full is dearer, so more nodes may be in the plan than at these prices.
            sure = [some.that_pay(found.prices * 3 // 2) for some in self._offers(looked, payers)]
            again = climb(sure, self.many, self.gpus, found.prices, self.known, FIRST_STEPS)
            key, made = self._balanced(sure, again, NEVER)
            if made is None:
                break
            hit = self._evicted(made)
            clashes = {job: found[0] for job, found in hit.items() if len(found) > 1 and job not in payers}
            if clashes or not payers.keys() <= hit.keys():
                # Others count on a job that its payer has no use for: it is no longer shared.
                payers = {job: row for job, row in payers.items() if job in hit} | clashes
                continue
            if key < best:
                best, picked = key, made
            now = {job: found[0] for job, found in hit.items()}
            if now == payers:
                break
            payers = now
        return Solved(bound, picked)

    def _balanced(self, offers: Sequence[Offers], known: Priced, below: int) -> tuple[int, list[Picked] | None]:
        """Key of the best plan that these offers make, and what each node does; None: none costs less than `below`."""
        best, picked, least = below, None, NEVER
        for part in NEAR:
            table = joined([some.near(known.prices, max(1, self.known // part)) for some in offers])
            made = chosen(table, self.many, self.gpus)
            if made is None:
                continue
            least = min(least, int(table.key[made].sum()))
            if least < best:
                best, picked = least, self._picked(table, made)
            if (least - known.bound) * APART < known.bound or len(table.node) > MOST_NEAR:
                break
        return best, picked

    def _shared(self, offers: Sequence[Offers], found: Priced) -> tuple[list[Offers], Priced]:
        """The offers that matter, with jobs on several nodes charged to those that want them, and their prices."""
        wanting = [some.that_pay(found.prices * 5 // 4) for some in offers]
        wanting += self._offers(partners(self.land, wanting, found.prices))
        best, known = found, [some.shares for some in wanting]
        for nth in range(SHIFTS):
            if not shifted(wanting, found.prices, 2 + nth):
                break
            found = climb(wanting, self.many, self.gpus, found.prices, self.known // 16, SHIFT_STEPS)
            if found.bound > best.bound:
                best, known = found, [some.shares for some in wanting]
        for some, shares in zip(wanting, known, strict=True):
            some.reprice(shares)
        return wanting, best

    def _evicted(self, picked: Sequence[Picked]) -> dict[int, list[int]]:
        """Jobs on several nodes that are evicted, and the rows of the nodes that do so."""
        seen: dict[int, list[int]] = {}
        for row, _, option in picked:
            for job in self.land.holders(row, option.starts[1]) if option.starts is not None else ():
                if len(job.gpus or ()) > 1:
                    seen.setdefault(self.land.index.job_row[job.ref], []).append(row)
        return seen

    def _first(self) -> Ints:
        """Nodes that are cheapest for one replica or another, those of the known plan, and the most promising in all."""
        some = [self._used, self.relevance.near(NEVER)[: int(self.many.sum()) + SPARE]]
        for axis, members in zip(self.axes, self._members, strict=True):
            keys = np.where(members & self.land.open, self.land.begun(Request.of(axis.spec)).key, NEVER)
            most = axis.many + SPARE
            near = np.argpartition(keys, most)[:most] if len(keys) > most else np.arange(len(keys))
            some.append(near[keys[near] < NEVER])
        return np.unique(np.concatenate(some))

    def _second(self, prices: Ints) -> tuple[Ints, Ints, Ints]:
        """The nodes that may gain at these prices, their floors, and which of them are to be looked at closely."""
        values = worth((prices * 9 // 8).tolist(), self.gpus, self._size)
        gains = self.relevance.gains(values)
        near = np.flatnonzero(gains < 0)
        if len(near) > MOST_BOUNDED:
            near = near[np.argsort(gains[near], kind="stable")[:MOST_BOUNDED]]
        rows = np.union1d(self.relevance.rows[near], self._used)
        floors = unit_floors(self.land, rows, self._size, int(self.many.sum()))
        gains = (floors - np.array(values[1:])).min(axis=1)
        gains[np.isin(rows, self._used)] = -NEVER
        starts = 1 + sum(
            max(len(search.subs) for search in self.land.searches(Request.of(axis.spec))) for axis in self.axes
        )
        order = np.argsort(gains, kind="stable")[: max(len(self._used), MOST_CELLS // starts)]
        some = np.sort(order[gains[order] < 0])
        return rows, floors, some

    def _bound(self, prices: Ints, offers: Sequence[Offers], rows: Ints, floors: Ints) -> int:
        """What no plan costs less than: nodes not looked at, or that share jobs with others, at what they may gain at most."""
        values = worth(prices.tolist(), self.gpus, self._size)
        gains = np.zeros(len(self.land.index.nodes), dtype=np.int64)
        gains[self.relevance.rows] = self.relevance.gains(values)
        closer = np.minimum((floors - np.array(values[1:])).min(axis=1), 0)
        gains[rows] = np.maximum(gains[rows], closer)
        for some in offers:
            exact, _ = some.best(prices)
            gains[some.rows] = np.where(some.loose, gains[some.rows], exact)
        return int((prices * self.many).sum()) + int(gains.sum())

    def _offers(self, rows: Ints, payers: Mapping[int, int] | None = None) -> list[Offers]:
        """The offers of these nodes, by kind of node; `payers`: which node evicts a job for others, None: that is open."""
        kinds: dict[tuple[int, tuple[bool, ...]], list[int]] = {}
        able = np.array([members[rows] for members in self._members]).T.tolist()
        for row, shape, mine in zip(rows.tolist(), self.land.index.shape[rows].tolist(), able, strict=True):
            if shape >= 0 and any(mine) and self.land.index.tables[shape].shape.gpus <= MOST_GPUS:
                kinds.setdefault((shape, tuple(mine)), []).append(row)
        found = []
        for (shape, mine), some in sorted(kinds.items()):
            searches = tuple(
                self.land.search_on(shape, Request.of(axis.spec)) if yes else None
                for axis, yes in zip(self.axes, mine, strict=True)
            )
            size = self.land.index.tables[shape].shape.gpus
            most = tuple(
                min(1 if axis.spec.spread else axis.many, size // axis.spec.gpus_per_replica) for axis in self.axes
            )
            mine_rows = np.array(some, dtype=np.int64)
            standings = (
                split(self.land, mine_rows, int(self.many.sum()))
                if payers is None
                else decided(self.land, mine_rows, payers)
            )
            found.append(Offers(mixes(searches, most), searches, mine_rows, standings))
        return found

    def _picked(self, table: Table, rows: Ints) -> list[Picked]:
        """What each node does, given the offers that are made: which service each replica belongs to is decided here."""
        left = [many for _, many in self.wants]
        picked: list[tuple[int, list[int], int, tuple[int, int] | None]] = []
        for at in rows[np.argsort(table.node[rows], kind="stable")].tolist():
            starts, vector = int(table.starts[at]), [0] * len(left)
            begun = None
            if starts >= 0:
                service = next(s for s in self.axes[starts].services if left[s])
                left[service] -= 1
                vector[service] += 1
                begun = (service, int(table.gpus[at]))
            picked.append((at, vector, int(table.key[at]), begun))
        # Who starts now is decided first, so those of higher priority start and the others wait.
        for at, vector, _, begun in picked:
            for nth, count in enumerate(table.vectors[at].tolist()):
                waits = count - (begun is not None and begun[0] in self.axes[nth].services)
                for _ in range(waits):
                    service = next(s for s in self.axes[nth].services if left[s])
                    left[service] -= 1
                    vector[service] += 1
        return [(int(table.node[at]), tuple(vector), Option(key, begun)) for at, vector, key, begun in picked]
