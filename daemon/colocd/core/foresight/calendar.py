"""Local time for the core: days, times of day and kinds of day, from numbers that the shell looked up. Pure."""

import msgspec
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DAY = 86400.0
WEEK = 7


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """A site's local time. `since`/`east`: from that Unix second on, local time is so many seconds east of UTC (ascending).

    `holidays`: local days (days since 1970-01-01) that go like a Sunday.
    """

    since: tuple[float, ...] = ()
    east: tuple[float, ...] = ()
    first_east: float = 0.0
    """Offset before the first of `since`."""
    holidays: tuple[int, ...] = ()

    def offset(self, at: Floats) -> Floats:
        """Seconds east of UTC at Unix times."""
        if not self.since:
            return np.full(at.shape, self.first_east)
        known: Floats = np.array((self.first_east, *self.east), dtype=np.float64)
        found: Floats = known[np.searchsorted(np.array(self.since), at, side="right")]
        return found


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """A regular grid: bin j covers `[start + j * step, start + (j + 1) * step)`.

    `season` is the length of a season in seconds. Days have weeks, holidays and changes of the clock; other lengths have not.
    """

    start: float
    step: float
    season: float = DAY
    calendar: Calendar = Calendar()

    @property
    def per_season(self) -> int:
        """Bins of one season, at least 1."""
        return max(1, round(self.season / self.step))

    def times(self, bins: Ints) -> Floats:
        """Unix times at which bins begin."""
        found: Floats = self.start + bins.astype(np.float64) * self.step
        return found

    def place(self, bins: Ints) -> tuple[Ints, Ints, Floats]:
        """Local season number and slot within it of each bin, and the local offset in seconds."""
        at = self.times(bins)
        east = self.calendar.offset(at) if self.season == DAY else np.zeros(at.shape)
        local = at + east
        number: Ints = np.floor(local / self.season + 1e-9).astype(np.int64)
        slot: Ints = np.floor((local - number * self.season) / self.step + 1e-6).astype(np.int64)
        return number, slot, east

    def back(self, bins: Ints, seasons: Ints | int) -> Ints:
        """The bin at the same local time so many seasons earlier; never later than exactly that many seasons ago.

        On the day after the clock went forward the same local time is 23 hours ago: there the day before is taken.
        """
        number, slot, east = self.place(bins)
        wanted = (number - seasons) * self.season + slot * self.step
        found: Ints = np.ceil((wanted - east - self.start) / self.step - 1e-6).astype(np.int64)
        if self.season == DAY and self.calendar.since:
            # The offset that held then; one step of correction is enough, as changes are months apart.
            then = self.calendar.offset(self.times(found))
            found = np.ceil((wanted - then - self.start) / self.step - 1e-6).astype(np.int64)
            late = found > bins - np.asarray(seasons) * self.per_season
            if late.any():
                again = np.ceil((wanted - self.season - then - self.start) / self.step - 1e-6).astype(np.int64)
                found = np.where(late, again, found)
        limit: Ints = bins - np.asarray(seasons) * int(np.floor(self.season / self.step))
        result: Ints = np.minimum(found, np.where(limit < bins, limit, bins - 1))
        return result

    def free_day(self, number: Ints) -> Bools:
        """Whether local days are Saturdays, Sundays or holidays."""
        weekday = (number + 3) % WEEK  # 1970-01-01 was a Thursday
        found: Bools = weekday >= 5
        if self.calendar.holidays:
            found = found | np.isin(number, np.array(self.calendar.holidays))
        return found

    def gap_same_kind(self, number: Ints) -> Ints:
        """Days back to the last day of the same kind (working or free); 1 where yesterday is one, at most 7 (14 at holidays)."""
        gap: Ints = np.ones(number.shape, dtype=np.int64)
        kind = self.free_day(number)
        for _ in range(2 * WEEK):
            other = self.free_day(number - gap) != kind
            if not other.any():
                break
            gap = np.where(other, gap + 1, gap)
        return gap
