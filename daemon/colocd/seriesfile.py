"""Reads a load history from a CSV file (plain or gzip) onto a regular grid: the mean of each bin; empty ones are holes."""

import csv
import gzip
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from colocd.core.foresight.calendar import Floats
from colocd.errors import BadFile
from colocd.site import find_zone

MAX_BINS = 1_000_000
"""Bins of the largest grid that is made: ten minutes for 19 years."""
MAX_LOAD = 1e100
"""Larger values are taken for garbage: squares of loads must be numbers."""
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_FORMATS = ("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d.%m.%Y", "%Y/%m/%d")
"""Times that are not ISO 8601 and yet clear; 03/04/2026 is not."""
_EMPTY = {"", "nan", "na", "n/a", "null", "none", "-", "+inf", "inf", "-inf"}
_TIME_NAMES = re.compile(
    r"(?i)^(t|ts|time|timestamp|datetime|date|epoch|minutes?|(t|ts|time|timestamp|epoch)_(s|sec|ms|utc|local|unix))$"
)
_UNITS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "unix": 1.0, "minute": 60.0, "minutes": 60.0}


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A series on a grid: `values[j]` is the mean load in `[start + j * step, start + (j + 1) * step)`, nan a hole.

    `time` None: no time column was used, each row is a step. `notes` say what was odd, one sentence each.
    """

    values: Floats
    start: float
    step: float
    time: str | None
    notes: tuple[str, ...] = ()


def read_series(path: Path, column: str, time: str | None, step: float, zone: str | None = None) -> Series:
    """Read column `column`; `time` None: a column that is named like a time and is one, else each row is one step.

    Times are ISO 8601 or day.month.year (with a zone, or in `zone`; UTC if None), or numbers: Unix seconds or milliseconds by
    their size, seconds from some start, or 0, 1, 2, … for steps. Rows may come in any order; several in one bin are averaged.
    Values that are no number, infinite or negative are holes. Raises `BadFile` when the file or a column cannot be read,
    `BadRequest` when there is no such zone.
    """
    names, rows, comma = _rows(path)
    if column not in names:
        raise BadFile(f"{path} has no column {column!r}", f"name one of: {', '.join(names[:20])}")
    if time is not None and time not in names:
        raise BadFile(f"{path} has no column {time!r} for --time", f"name one of: {', '.join(names[:20])}")
    notes: list[str] = []
    if names.count(column) > 1:
        notes.append(f"{names.count(column)} columns are named {column!r}: the first is read")
    values = np.array([_load(row, names.index(column), comma) for row in rows])
    if np.isnan(values).all():
        raise BadFile(f"column {column!r} of {path} holds no numbers", "name a column of numbers with --column")
    negative = int((values < 0).sum())
    if negative:
        values = np.where(values < 0, np.nan, values)
        notes.append(f"{negative} negative values are read as holes")
    huge = int((values > MAX_LOAD).sum())
    if huge:
        values = np.where(values > MAX_LOAD, np.nan, values)
        notes.append(f"{huge} values above {MAX_LOAD:g} are read as holes")
    if np.isnan(values).all():
        raise BadFile(
            f"column {column!r} of {path} holds no loads: {'; '.join(notes)}", "name a column of loads with --column"
        )
    times, used = _times(path, names, rows, time, step, zone, column)
    if times is None:
        if used is not None:
            notes.append(f"column {used!r} holds no times that can be read: each row is one step")
        return Series(values=values, start=0.0, step=step, time=None, notes=tuple(notes))
    bad = int(np.isnan(times).sum())
    if bad:
        notes.append(f"{bad} rows without a readable time are left out")
    grid, start = _grid(path, times, values, step)
    empty = 1 - len(np.unique(np.floor(times[np.isfinite(times)] / step + 1e-9))) / len(grid)
    if empty > 0.5:
        notes.append(
            f"{empty:.0%} of the bins have no row: the rows are farther apart than --step, or many are missing"
        )
    return Series(values=grid, start=start, step=step, time=used, notes=tuple(notes))


def _rows(path: Path) -> tuple[list[str], list[list[str]], bool]:
    """Names of the columns, the rows, and whether a comma is a decimal one (fields are parted by something else)."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or "it is no gzip file"
        raise BadFile(f"{path} cannot be read: {reason}", "name a CSV file, plain or gzip") from None
    except EOFError:
        raise BadFile(f"{path} is cut off in the middle of its gzip stream", "copy the file again") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise BadFile(f"{path} is not UTF-8 text: {error}", "name a CSV file, plain or gzip") from None
    except Exception as error:  # zlib.error has no common base with the others
        raise BadFile(f"{path} cannot be unpacked: {error}", "copy the file again") from None
    lines = text.splitlines()
    while lines and not lines[0].strip():
        del lines[0]
    if not lines:
        raise BadFile(f"{path} is empty", "name a CSV file with a header")
    delimiter = max(",;\t", key=lines[0].count)
    try:
        read = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise BadFile(f"{path} is no CSV file: {error}", "name a CSV file with a header") from None
    rows = [row for row in read[1:] if any(cell.strip() for cell in row)]
    if not rows:
        raise BadFile(f"{path} has a header and no rows", "name a file with a load history")
    return [name.strip() for name in read[0]], rows, delimiter != ","


def _load(row: Sequence[str], place: int, comma: bool) -> float:
    """A load as people write it: `1234.5`, `1,234.5`, `1234,5` where a comma does not part fields, `60 %`; nan: no number."""
    text = row[place].strip().removesuffix("%").rstrip() if place < len(row) else ""
    if comma and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    elif _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    value = _number([text], 0)
    return math.nan if value is None else value


def _number(row: Sequence[str], place: int) -> float | None:
    text = row[place].strip() if place < len(row) else ""
    if text.lower() in _EMPTY:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _times(
    path: Path, names: list[str], rows: list[list[str]], asked: str | None, step: float, zone: str | None, column: str
) -> tuple[Floats | None, str | None]:
    """Unix times of the rows (nan: unreadable) and the column used; no times: each row is one step, and the column is the one
    that is named like a time and cannot be read, if any."""
    found = [asked] if asked is not None else [n for n in names if _TIME_NAMES.match(n) and n != column]
    for name in found:
        place = names.index(name)
        texts = [row[place].strip() if place < len(row) else "" for row in rows]
        numbers = np.array([math.nan if v is None else v for v in (_number(row, place) for row in rows)])
        if np.isfinite(numbers).mean() >= 0.5:
            times = _scaled(numbers, name, step)
        else:
            reader = _iso(zone)
            times = np.array([reader(text) for text in texts])
        if np.isfinite(times).mean() >= 0.5:
            return times, name
        if asked is not None:
            raise BadFile(
                f"column {asked!r} of {path} holds no times",
                "times are ISO 8601, day.month.year hour:minute, Unix seconds or milliseconds, or 0, 1, 2, …",
            )
    return None, found[0] if found else None


def _scaled(numbers: Floats, name: str, step: float) -> Floats:
    """Numbers as seconds: by the unit in the name, by their size, or as steps when they count 0, 1, 2, …"""
    size = float(np.nanmedian(np.abs(numbers)))
    for low, factor in ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3)):
        if size >= low:
            return numbers * factor
    unit = _UNITS.get(name.lower().rpartition("_")[2])
    if unit is not None:
        return numbers * unit
    ordered = np.unique(numbers[np.isfinite(numbers)])
    counts = len(ordered) > 1 and float(np.median(np.diff(ordered))) == 1.0 and size < 1e8
    return numbers * step if counts else numbers


def _iso(zone: str | None) -> Callable[[str], float]:
    local = find_zone(zone) if zone is not None else UTC

    def read(text: str) -> float:
        try:
            at = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
        except ValueError:
            known = [found for form in _FORMATS if (found := _formed(text, form)) is not None]
            if not known:
                return math.nan
            at = known[0]
        try:
            return (at if at.tzinfo is not None else at.replace(tzinfo=local)).timestamp()
        except (OverflowError, ValueError):  # the year 1 east of Greenwich
            return math.nan

    return read


def _formed(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None


def _grid(path: Path, times: Floats, values: Floats, step: float) -> tuple[Floats, float]:
    """Means per bin; bins begin at multiples of the step."""
    good = np.isfinite(times)
    times, values = times[good], values[good]
    first = math.floor(float(times.min()) / step + 1e-9)
    place = np.floor(times / step + 1e-9).astype(np.int64) - first
    size = int(place.max()) + 1
    if size > MAX_BINS:
        raise BadFile(
            f"{path} spans {size} steps, more than {MAX_BINS}",
            "choose a larger --step, or look for a wrong time in the file",
        )
    known = ~np.isnan(values)
    count = np.bincount(place[known], minlength=size)
    total = np.bincount(place[known], weights=values[known], minlength=size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), first * step
