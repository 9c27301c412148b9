"""Tasks of an array that wait, in one row, as squeue shows them."""

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def condensed(rows: Iterable[Row]) -> list[Row]:
    """The rows of `coloc queue`, with one for all tasks of an array that wait and never ran: `17_[3-9]`.

    It stands where the first of them stood and has that one's reason; its window is from the first start of any to the last.
    """
    found: list[Row] = []
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        array, task, _ = str(row.get("ref")).partition("_")
        waits = task and row.get("state") == "pending" and not row.get("evictions") and row.get("saved") is None
        key = (array, row.get("user"), row.get("name"), row.get("gpus"))
        if not waits:
            found.append(row)
        elif key in groups:
            groups[key].append(row)
        else:
            groups[key] = [row]
            found.append(row)
    first = {id(rows[0]): rows for rows in groups.values() if len(rows) > 1}
    return [_together(first[id(row)]) if id(row) in first else row for row in found]


def _together(rows: Sequence[Row]) -> Row:
    """One row for several tasks of one array."""
    array = str(rows[0]["ref"]).partition("_")[0]
    reasons = {row.get("reason") for row in rows}
    windows = [row["expected"] for row in rows if row.get("expected")]
    starts = [first for first, _ in windows if first is not None]
    ends = [last for _, last in windows]
    expected = None
    if windows:
        known = [last for last in ends if last is not None]
        expected = [min(starts, default=None), max(known) if starts and len(known) == len(rows) else None]
    until = next((row["foreseen_until"] for row in rows if row.get("foreseen_until") is not None), None)
    reason = rows[0].get("reason")
    return {
        **rows[0],
        "ref": f"{array}_[{ranges(int(str(row['ref']).partition('_')[2]) for row in rows)}]",
        "expected": expected,
        "foreseen_until": until,
        "reason": reason if len(reasons) == 1 else f"the first: {reason}",
    }


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as `1-3,7`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
