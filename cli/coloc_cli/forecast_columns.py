"""The picture of a forecast as lines of text, for the terminal."""

from itertools import pairwise
from typing import Any

from coloc_cli.forecast_picture import NOTHING, nice, replicas, title
from coloc_cli.output import wrap
from coloc_cli.words import local

BLOCKS = " ▁▂▃▄▅▆▇█"
LABEL = 10
"""Columns left of the picture."""


def columns(told: dict[str, Any], width: int, height: int = 10) -> list[str]:
    """What `GET /v1/forecast/NAME` answered, at most `width` columns wide (at least 30): title, picture, times, legend."""
    width = max(30, width)
    now, points, history = told["at"], told["points"], told["history"]
    head = wrap(title(told), width)
    if not history and not points:
        return [*head, NOTHING]
    first = history[0][0] if history else now
    last = now + (points[-1]["ahead"] if points else 0.0)
    room = width - LABEL
    edges = [first + (last - first) * i / room for i in range(room + 1)]
    cells = [_cell(told, a, b) for a, b in pairwise(edges)]
    carried = told["carried"] or 0.0
    roof = nice(max([x for low, high, _ in cells for x in (low, high) if x is not None] + [carried]) or 1.0)
    lines = [_row(cells, carried, roof * i / height, roof * (i + 1) / height) for i in reversed(range(height))]
    spare = ["=" if any(now + s < b and a < now + e for s, e in told["valleys"]) else " " for a, b in pairwise(edges)]
    if "=" in spare:
        lines.append(f"{'to spare':>8}  {''.join(spare)}".rstrip())
    signs = [("█ seen", True), ("▒ foreseen (median)", bool(points)), ("░ to q0.9", bool(points))]
    signs += [(f"- {replicas(told)}", carried > 0), (f"= replicas to spare at q{told['quantile']:g}", "=" in spare)]
    return [*head, *lines, _foot(first, now, last, room), *_joined([sign for sign, there in signs if there], width)]


def _cell(told: dict[str, Any], start: float, end: float) -> tuple[float | None, float | None, bool]:
    """The highest that was seen, or the median and the 0.9 quantile foreseen; and whether it is past."""
    now, points = told["at"], told["points"]
    seen = [value for at, value in told["history"] if start <= at < end and value is not None]
    if start < now and (seen or end <= now or not points):
        return max(seen, default=None), None, True
    near = [p["values"] for p in points if start <= now + p["ahead"] < end]
    if points and not near:
        near = [min(points, key=lambda p: abs(now + p["ahead"] - start))["values"]]
    return (max(v["0.5"] for v in near), max(v["0.9"] for v in near), False) if near else (None, None, False)


def _row(cells: list[tuple[float | None, float | None, bool]], carried: float, floor: float, top: float) -> str:
    line = ""
    for low, high, past in cells:
        if past:
            part = 0.0 if low is None else (low - floor) / (top - floor)
            sign = BLOCKS[max(0, min(8, round(part * 8)))]
        else:
            sign = "▒" if low is not None and low > floor else "░" if high is not None and high > floor else " "
        if sign == " " and low is not None and floor == 0:
            sign = "_"  # known to be nearly 0: a hole is blank
        line += "-" if sign == " " and floor < carried <= top else sign
    return f"{top:>8.4g}  {line}".rstrip()


def _foot(first: float, now: float, last: float, room: int) -> str:
    """The times below the picture, as far as there is room for them."""
    start, end = (local(at)[5:16] for at in (first, last))
    line = [" "] * room
    mark = min(room - 3, max(0, int((now - first) / max(last - first, 1e-9) * room)))
    for at, words in ((mark, "now"), (0, start), (room - len(end), end)):
        if all(c == " " for c in line[max(0, at - 1) : at + len(words) + 1]):
            line[at : at + len(words)] = words
    return " " * LABEL + "".join(line).rstrip()


def _joined(signs: list[str], width: int) -> list[str]:
    """Signs with two spaces between them, in as many lines as it takes."""
    lines = [signs[0]]
    for sign in signs[1:]:
        longer = f"{lines[-1]}  {sign}"
        lines[-1:] = [longer] if len(longer) <= width else [lines[-1], sign]
    return lines
