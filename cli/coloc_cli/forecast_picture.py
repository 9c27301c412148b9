"""The picture of a forecast: as SVG by hand, as PNG through Pillow (extra `plot`), and as columns in the terminal."""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Protocol

from coloc_cli.words import local
from colocd.errors import BadRequest

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 50, 60
Point = tuple[float, float]
INK, SEEN, MIDDLE, FIRST, SECOND, CARRIED, VALLEY = (
    "#333333", "#1f4e79", "#c55a11", "#f4b183", "#fbe5d6", "#7f7f7f", "#e2f0d9",
)  # fmt: skip
BLOCKS = " ▁▂▃▄▅▆▇█"


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
    times = [at for at, _ in history] + [now] + [now + p["ahead"] for p in points]
    carries = [told["carried"]] if told["carried"] else []
    highest = max(
        [v for _, v in history if v is not None] + [max(p["values"].values()) for p in points] + carries + [1e-9]
    )
    roof, first, last = _nice(highest * 1.05), min(times), max(times)

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
    for i in range(7):
        time = first + (last - first) * i / 6
        words = local(time)[5:16] if last - first > 7200 else local(time)[11:19]
        canvas.text((at(time, 0)[0], HEIGHT - BOTTOM + 18), words, "start" if i == 0 else "end" if i == 6 else "middle")
    for piece in _pieces(history):
        canvas.line([at(*point) for point in piece], SEEN, 1.5)
    if points:
        canvas.line([at(now + p["ahead"], p["values"]["0.5"]) for p in points], MIDDLE, 1.5)
    if carries:
        canvas.line([at(first, carries[0]), at(last, carries[0])], CARRIED, 1.0)
    canvas.line([at(now, 0), at(now, roof)], INK, 0.8)
    canvas.text((LEFT, 20), f"{told['service']}: load ({told['measure']})", "start")
    legend = (
        "blue: seen; orange: foreseen q0.5, to q0.9, to q0.99; grey: what the replicas carry; green: replicas to spare"
    )
    canvas.text((LEFT, 38), legend, "start")
    canvas.text((LEFT, HEIGHT - 18), told["basis"] or "nothing can be foreseen yet", "start")


def columns(told: dict[str, Any], width: int, height: int = 10) -> list[str]:
    """The picture as lines of text: blocks for what was seen, `▒` up to q0.5, `░` up to q0.9, `-` what the replicas carry."""
    now, points = told["at"], told["points"]
    history = told["history"]
    first = history[0][0] if history else now
    last = now + (points[-1]["ahead"] if points else 0.0)
    room = max(20, width - 10)
    cells: list[tuple[float | None, float | None, bool]] = []
    for i in range(room):
        a, b = (first + (last - first) * k / room for k in (i, i + 1))
        if a < now:
            seen = [v for t, v in history if a <= t < b and v is not None]
            cells.append((max(seen) if seen else None, None, True))
        else:
            near = [p["values"] for p in points if a <= now + p["ahead"] < b]
            if points and not near:
                near = [min((abs(now + p["ahead"] - a), i, p["values"]) for i, p in enumerate(points))[2]]
            cells.append(
                (max(v["0.5"] for v in near), max(v["0.9"] for v in near), False) if near else (None, None, False)
            )
    tops = [x for low, high, _ in cells for x in (low, high) if x is not None] + [told["carried"] or 0.0, 1e-9]
    roof = _nice(max(tops))
    lines = []
    for row in range(height, 0, -1):
        floor, top = roof * (row - 1) / height, roof * row / height
        line = ""
        for low, high, was in cells:
            if was:
                part = 0.0 if low is None else (low - floor) / (top - floor)
                sign = BLOCKS[max(0, min(8, round(part * 8)))]
            else:
                sign = "▒" if low is not None and low > floor else "░" if high is not None and high > floor else " "
            if sign == " " and told["carried"] and floor < told["carried"] <= top:
                sign = "-"
            line += sign
        lines.append(f"{top:>8.4g}  {line}".rstrip())
    mark = min(room - 1, max(0, int((now - first) / max(last - first, 1e-9) * room)))
    start, end = (local(t)[5:16] for t in (first, last))
    gap = max(1, mark - len(start))
    foot = f"{start}{' ' * gap}now"
    return [*lines, " " * 10 + foot + " " * max(1, room - len(foot) - len(end)) + end]


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
    return [piece for piece in found if len(piece) > 1]


def _nice(value: float) -> float:
    """The next of 1, 2, 3, 4, 5, 6, 8, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 3, 4, 5, 6, 8, 10) if n * power >= value - 1e-12)
