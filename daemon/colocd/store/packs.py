"""Roll-ups: samples become buckets of a minute or ten minutes, and an hour or a day of buckets becomes one small row. Pure.

A bucket keeps the mean and the greatest of its known samples, how many were known and how many there were at all. So a hole
stays one: nobody looked (`seen` 0), or nothing could be read (`known` 0).
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np

MINUTE, TEN_MINUTES = 60, 600
SPAN = {MINUTE: 3600, TEN_MINUTES: 86400}
"""Seconds of buckets in one row, per length of a bucket."""
_FORMAT = 1
_MANTISSA = np.uint32(0xFFFFF800)
_HALF = np.uint32(0x400)
"""Of a float's 23 bits of fraction 12 are kept (rounded to 1 part in 8192): the rest is noise that does not compress."""
_MOST = 65535

Sample = tuple[float, float | None]


class LoadBucket(msgspec.Struct, frozen=True):
    """Load between `at` (Unix seconds) and `at + step`: `mean` and `peak` of the known samples, None without any.

    `known` of the `seen` samples had a value; `seen` 0 does not occur: such buckets are left out.
    """

    at: float
    mean: float | None
    peak: float | None
    known: int
    seen: int


def bucketed(samples: Iterable[Sample], step: int) -> list[LoadBucket]:
    """Buckets of samples in order of time, oldest first; buckets in which there was no sample are left out."""
    made: list[LoadBucket] = []
    start: int | None = None
    values: list[float] = []
    seen = 0
    for at, value in samples:
        mine = int(at // step) * step
        if mine != start:
            if start is not None:
                made.append(_bucket(start, values, seen))
            start, values, seen = mine, [], 0
        seen += 1
        if value is not None:
            values.append(value)
    if start is not None:
        made.append(_bucket(start, values, seen))
    return made


def _bucket(start: int, values: Sequence[float], seen: int) -> LoadBucket:
    if not values:
        return LoadBucket(float(start), None, None, 0, seen)
    return LoadBucket(float(start), sum(values) / len(values), max(values), len(values), seen)


def coarser(buckets: Iterable[LoadBucket], step: int) -> list[LoadBucket]:
    """Buckets of `step` seconds from shorter ones in order of time; a mean weighs each by its known samples."""
    made: list[LoadBucket] = []
    group: list[LoadBucket] = []
    for bucket in buckets:
        if group and group[0].at // step != bucket.at // step:
            made.append(_joined(group, step))
            group = []
        group.append(bucket)
    if group:
        made.append(_joined(group, step))
    return made


def _joined(group: Sequence[LoadBucket], step: int) -> LoadBucket:
    known = sum(b.known for b in group)
    peaks = [b.peak for b in group if b.peak is not None]
    total = sum(b.mean * b.known for b in group if b.mean is not None)
    at = float(group[0].at // step * step)
    mean = total / known if known else None
    return LoadBucket(at, mean, max(peaks, default=None), known, sum(b.seen for b in group))


def pack(buckets: Iterable[LoadBucket], start: int, step: int) -> bytes:
    """One row's bytes: the buckets from `start` (Unix seconds) over the row's span; others are not looked at."""
    size = SPAN[step] // step
    numbers = np.full((2, size), np.nan, dtype="<f4")
    counts = np.zeros((2, size), dtype="<u2")
    for bucket in buckets:
        i = int(bucket.at - start) // step
        if 0 <= i < size:
            if bucket.mean is not None and bucket.peak is not None:
                numbers[:, i] = bucket.mean, bucket.peak
            counts[:, i] = min(bucket.known, _MOST), min(bucket.seen, _MOST)
    bits = (numbers.view("<u4") + _HALF) & _MANTISSA
    # Byte planes: the first bytes of neighbours are alike, and like things beside each other compress.
    planes = bits.view("u1").reshape(-1, 4).T.tobytes() + counts.view("u1").reshape(-1, 2).T.tobytes()
    return bytes([_FORMAT]) + zlib.compress(planes, 6)


def unpack(data: bytes, start: int, step: int) -> Iterator[LoadBucket]:
    """The buckets of a row, oldest first; raises ValueError for bytes that this release does not know."""
    size = SPAN[step] // step
    if not data or data[0] != _FORMAT:
        raise ValueError(f"a packed row of load has the unknown format {data[:1].hex() or 'of nothing'}")
    try:
        planes = zlib.decompress(data[1:])
    except zlib.error as wrong:
        raise ValueError(f"a packed row of load is damaged: {wrong}") from None
    if len(planes) != size * 12:
        raise ValueError(f"a packed row of load holds {len(planes)} bytes instead of {size * 12}")
    first = np.frombuffer(planes[: size * 8], dtype="u1").reshape(4, -1).T.copy().view("<f4").reshape(2, size)
    second = np.frombuffer(planes[size * 8 :], dtype="u1").reshape(2, -1).T.copy().view("<u2").reshape(2, size)
    rows = zip(first[0].tolist(), first[1].tolist(), second[0].tolist(), second[1].tolist(), strict=True)
    for i, (mean, peak, known, seen) in enumerate(rows):
        if seen:
            at = float(start + i * step)
            yield LoadBucket(at, mean if known else None, peak if known else None, known, seen)
