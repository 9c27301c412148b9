"""How the jobs of a user and kind of name answered when they were told to save: what stands in for a job never told itself."""

from collections.abc import Iterable
from typing import NamedTuple

from colocd.core.runtimes import KEPT, kind_of
from colocd.store.records import BatchJob


class Habit(NamedTuple):
    """See the fields of `JobFacts`."""

    answered: int = 0
    silent: int = 0
    took: float | None = None


class Habits:
    """The newest `KEPT` jobs of each kind that were ever told. The same rows make the same habits in any order."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, tuple[float, Habit]]] = {}
        self._sums: dict[str, Habit] = {}

    def note(self, rows: Iterable[BatchJob]) -> None:
        """Take in rows of jobs; only those that were told count."""
        for row in rows:
            if not row.answered and not row.silent:
                continue
            kind = kind_of(row.user, row.name)
            entry = (row.evicted_at or 0.0, Habit(row.answered, row.silent, row.took))
            members = self._rows.setdefault(kind, {})
            if members.get(row.ref) == entry:
                continue
            members[row.ref] = entry
            newest = sorted(members.items(), key=lambda item: (item[1][0], item[0]))[-KEPT:]
            self._rows[kind] = dict(newest)
            habits = [habit for _, (_, habit) in newest]
            self._sums[kind] = Habit(sum(h.answered for h in habits), sum(h.silent for h in habits), habits[-1].took)

    def of(self, user: str, name: str) -> Habit | None:
        """What is known of a kind of jobs; None: none of them was ever told."""
        return self._sums.get(kind_of(user, name)) if self._sums else None
