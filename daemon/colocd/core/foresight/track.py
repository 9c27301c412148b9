"""Series that grow at one end and are forgotten at the other, indexed by absolute bin."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from colocd.core.foresight.calendar import Floats, Ints


class Track:
    """Rows of shape `shape`, one a bin. Reading a bin that is not there (too old, or not written) gives `empty`."""

    def __init__(self, shape: tuple[int, ...] = (), empty: float = np.nan, dtype: Any = np.float64) -> None:
        self._empty = empty
        self._data: NDArray[Any] = np.full((64, *shape), empty, dtype=dtype)
        self.base = 0
        self.end = 0

    def write(self, start: int, rows: NDArray[Any]) -> None:
        """Put rows at `start` (at most at the end: no gap is left)."""
        if self.end == self.base:
            self.base = self.end = start
        last = start + len(rows)
        if last - self.base > len(self._data):
            size = max(2 * len(self._data), last - self.base)
            more = np.full((size - len(self._data), *self._data.shape[1:]), self._empty, dtype=self._data.dtype)
            self._data = np.concatenate([self._data, more])
        self._data[start - self.base : last - self.base] = rows
        self.end = max(self.end, last)

    def at(self, bins: Ints, *rest: NDArray[Any]) -> Floats:
        """Rows of bins (any shape of indices); `rest` indexes the further axes."""
        where = bins - self.base
        inside = (where >= 0) & (bins < self.end)
        found = self._data[(np.where(inside, where, 0), *rest)]
        if not inside.all():
            found = np.where(inside.reshape(inside.shape + (1,) * (found.ndim - inside.ndim)), found, self._empty)
        result: Floats = found
        return result

    def span(self, start: int, end: int) -> NDArray[Any]:
        """A view of the rows from `start` to `end`, as far as they are there."""
        return self._data[max(start - self.base, 0) : max(min(end, self.end) - self.base, 0)]

    def forget(self, before: int) -> None:
        """Drop bins before `before`, once they are half of what is kept."""
        gone = before - self.base
        if gone > len(self._data) // 2 and before <= self.end:
            kept = self._data[gone:].copy()
            self._data = np.concatenate(
                [kept, np.full((64, *self._data.shape[1:]), self._empty, dtype=self._data.dtype)]
            )
            self.base = before
