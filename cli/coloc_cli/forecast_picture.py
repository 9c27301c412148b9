"""The picture of a forecast: as SVG by hand, and as PNG through Pillow (extra `plot`)."""

import datetime as dt
import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Protocol

from coloc_cli.output import wrap
from colocd.errors import BadRequest

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 60, 72
LETTER = 6.4
"""Pixels that a letter takes on average."""
Point = tuple[float, float]
INK, SEEN, MIDDLE, FIRST, SECOND, CARRIED, VALLEY = (
    "#333333", "#1f4e79", "#c55a11", "#f4b183", "#fbe5d6", "#7f7f7f", "#e2f0d9",
)  # fmt: skip
TICKS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
"""Seconds between two times under the picture; the least that leaves at most `MOST_TICKS` is taken."""
MOST_TICKS = 12
NOTHING = "no load has been read yet"


class Canvas(Protocol):
    """What a picture is drawn on; colours are #rrggbb, coordinates pixels from the top left."""

    def area(self, points: Sequence[Point], colour: str) -> None:
        """A filled polygon."""
        ...

    def line(self, points: Sequence[Point], colour: str, width: float) -> None:
        """A line through the points."""
        ...

    def text(self, at: Point, words: str, anchor: str) -> None:
        """Words; anchor `start`, `middle` or `end`."""
        ...


class Svg:
    """SVG as text."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def area(self, points: Sequence[Point], colour: str) -> None:
        """A filled polygon."""
        self._parts.append(f'<polygon points="{_path(points)}" fill="{colour}"/>')

    def line(self, points: Sequence[Point], colour: str, width: float) -> None:
        """A line through the points."""
        self._parts.append(
            f'<polyline points="{_path(points)}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'
        )

    def text(self, at: Point, words: str, anchor: str) -> None:
        """Words; anchor `start`, `middle` or `end`."""
        safe = words.replace("&", "&amp;").replace("<", "&lt;")
        self._parts.append(f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}" fill="{INK}">{safe}</text>')

    def done(self) -> bytes:
        """The file."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">'
        body = "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *self._parts, "</svg>"])
        return body.encode() + b"\n"


class Png:
    """PNG through Pillow, drawn at twice the size; raises `BadRequest` where Pillow is missing."""

    def __init__(self) -> None:
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError:
            raise BadRequest("a PNG needs Pillow", 'install "coloc[plot]", or use --svg') from None
        self._image = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._font = ImageFont.load_default(size=24)

    def area(self, points: Sequence[Point], colour: str) -> None:
        """A filled polygon."""
        if len(points) > 2:
            self._draw.polygon([(2 * x, 2 * y) for x, y in points], fill=colour)

    def line(self, points: Sequence[Point], colour: str, width: float) -> None:
        """A line through the points."""
        self._draw.line([(2 * x, 2 * y) for x, y in points], fill=colour, width=round(2 * width), joint="curve")

    def text(self, at: Point, words: str, anchor: str) -> None:
        """Words; anchor `start`, `middle` or `end`."""
        where = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
        self._draw.text((2 * at[0], 2 * at[1]), words, fill=INK, font=self._font, anchor=where)

    def done(self) -> bytes:
        """The file."""
        out = BytesIO()
        self._image.save(out, "PNG")
        return out.getvalue()


def draw(canvas: Canvas, told: dict[str, Any]) -> None:
    """Draw what `GET /v1/forecast/NAME` answered: history, quantiles, capacity, and the times with replicas to spare."""
    now, points = told["at"], told["points"]
    history = [(at, value) for at, value in told["history"]]
    canvas.text((LEFT, 20), title(told), "start")
    for i, line in enumerate(
        wrap(told["basis"] or "nothing can be foreseen yet", int((WIDTH - LEFT - RIGHT) / LETTER))
    ):
        canvas.text((LEFT, HEIGHT - 30 + 16 * i), line, "start")
    if not history and not points:
        canvas.text((WIDTH / 2, HEIGHT / 2), NOTHING, "middle")
        return
    times = [at for at, _ in history] + [now] + [now + p["ahead"] for p in points]
    roof, first, last = nice(1.05 * highest(told)), min(times), max(times)

    def at(time: float, value: float) -> Point:
        x = LEFT + (time - first) / max(last - first, 1e-9) * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - min(value, roof) / roof * (HEIGHT - TOP - BOTTOM)

    for start, end in told["valleys"]:
        corners = [(now + start, 0.0), (now + start, roof), (now + end, roof), (now + end, 0.0)]
        canvas.area([at(*corner) for corner in corners], VALLEY)
    for low, high, colour in (("0.9", "0.99", SECOND), ("0.5", "0.9", FIRST)):
        band = [at(now + p["ahead"], p["values"][high]) for p in points if high in p["values"]]
        back = [at(now + p["ahead"], p["values"][low]) for p in reversed(points) if low in p["values"]]
        if band and back:
            canvas.area([*band, *back], colour)
    for i in range(5):
        value = roof * i / 4
        canvas.line([at(first, value), at(last, value)], "#dddddd", 0.5)
        canvas.text((LEFT - 8, at(first, value)[1] + 4), f"{value:.4g}", "end")
    for time, words in ticks(first, last):
        x = at(time, 0)[0]
        canvas.line([(x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 5)], INK, 0.8)
        cut = WIDTH - x < LETTER * len(words) / 2
        canvas.text((WIDTH - 4 if cut else x, HEIGHT - BOTTOM + 19), words, "end" if cut else "middle")
    for piece in _pieces(history):
        if len(piece) > 1:
            canvas.line([at(*point) for point in piece], SEEN, 1.5)
        else:
            x, y = at(*piece[0])
            canvas.area([(x - 2, y - 2), (x + 2, y - 2), (x + 2, y + 2), (x - 2, y + 2)], SEEN)
    if points:
        canvas.line([at(now + p["ahead"], p["values"]["0.5"]) for p in points], MIDDLE, 1.5)
    if told["carried"]:
        canvas.line([at(first, told["carried"]), at(last, told["carried"])], CARRIED, 1.0)
    canvas.line([at(now, 0), at(now, roof)], INK, 0.8)
    _legend(canvas, told)


def title(told: dict[str, Any]) -> str:
    """What is shown, and the load of now."""
    load = "unknown" if told["load"] is None else f"{told['load']:.4g}"
    return f"{told['service']}: load ({told['measure']}), {load} now"


def highest(told: dict[str, Any]) -> float:
    """The highest of all values shown; 1 when all are 0."""
    seen = [v for _, v in told["history"] if v is not None]
    return max([*seen, *(max(p["values"].values()) for p in told["points"]), told["carried"] or 0.0]) or 1.0


def replicas(told: dict[str, Any]) -> str:
    """Who carries, for a legend."""
    return "what its replica carries" if told["have"] == 1 else f"what its {told['have']} replicas carry"


def _legend(canvas: Canvas, told: dict[str, Any]) -> None:
    """A sign and a word for each thing that is there."""
    quantiles = {q for p in told["points"] for q in p["values"]}
    entries = [("seen", SEEN, True, bool(told["history"])), ("foreseen: median", MIDDLE, True, "0.5" in quantiles)]
    entries += [("to q0.9", FIRST, False, "0.9" in quantiles), ("to q0.99", SECOND, False, "0.99" in quantiles)]
    entries += [(replicas(told), CARRIED, True, bool(told["carried"]))]
    entries += [(f"replicas to spare at q{told['quantile']:g}", VALLEY, False, bool(told["valleys"]))]
    x, y = float(LEFT), 40.0
    for words, colour, thin, there in entries:
        if there:
            top, bottom = (y - 5, y - 3) if thin else (y - 9, y + 1)
            canvas.area([(x, top), (x + 18, top), (x + 18, bottom), (x, bottom)], colour)
            canvas.text((x + 24, y), words, "start")
            x += 24 + LETTER * len(words) + 16


def _offset(time: float) -> float:
    """Seconds by which the local clock is ahead of UTC."""
    ahead = dt.datetime.fromtimestamp(time, tz=dt.UTC).astimezone().utcoffset()
    return 0.0 if ahead is None else ahead.total_seconds()


def ticks(first: float, last: float) -> list[tuple[float, str]]:
    """Round local times between two others, and how they are written: midnights by their day."""
    step = next((s for s in TICKS if (last - first) / s <= MOST_TICKS), TICKS[-1])
    found: list[tuple[float, str]] = []
    wall = (
        math.ceil((first + _offset(first)) / step) * step
    )  # seconds on the local clock, which may be put forward or back
    while (time := wall - _offset(wall - _offset(wall))) <= last:
        when = dt.datetime.fromtimestamp(time, tz=dt.UTC).astimezone()
        form = (
            "%a %d %b" if (when.hour, when.minute, when.second) == (0, 0, 0) else "%H:%M" if step >= 60 else "%H:%M:%S"
        )
        if not found or time > found[-1][0]:
            found.append((time, when.strftime(form)))
        wall += step
    return found


def _path(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _pieces(history: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """The history without its holes, as lines between them."""
    found: list[list[tuple[float, float]]] = [[]]
    for at, value in history:
        if value is None:
            found.append([])
        else:
            found[-1].append((at, value))
    return [piece for piece in found if piece]


def nice(value: float) -> float:
    """The next of 1, 2, 3, 4, 5, 6, 8, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 3, 4, 5, 6, 8, 10) if n * power >= value - 1e-12)
