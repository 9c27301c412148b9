from collections.abc import Iterator
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from tests.api.fake_backend import FORECAST, NOW

from coloc_cli.forecast_columns import columns
from coloc_cli.forecast_picture import HEIGHT, NOTHING, WIDTH, Png, Svg, draw, ticks

EMPTY = {**FORECAST, "load": None, "history": [], "points": [], "basis": None, "valleys": [], "carried": 0.0, "have": 0}
NEW = {**EMPTY, "load": 12.0, "history": [[NOW - 300, 12.0]], "carried": 20.0, "have": 1}
IDLE = {
    **FORECAST,
    "history": [[t, None if v is None else 0.0] for t, v in FORECAST["history"]],
    "carried": 0.0,
    "points": [],
}


def svg(told: dict[str, Any]) -> str:
    canvas = Svg()
    draw(canvas, told)
    return canvas.done().decode()


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("told", [FORECAST, EMPTY, NEW, IDLE])
def test_the_picture_is_well_formed(told: dict[str, Any]) -> None:
    png = Png()
    draw(png, told)
    root = ElementTree.fromstring(svg(told))
    assert root.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
    words = [(float(text.get("x", "nan")), text.text or "") for text in root if text.tag.endswith("text")]
    assert all(0 <= x <= WIDTH and "e-" not in word for x, word in words)
    image = Image.open(BytesIO(png.done()))
    assert image.size == (2 * WIDTH, 2 * HEIGHT)
    for width in (10, 30, 47, 80, 200):
        lines = columns(told, width)
        assert all(len(line) <= max(30, width) for line in lines), width
        assert lines[0].startswith("chat: load")


def test_the_terminal_shows_history_quantiles_capacity_and_valleys() -> None:
    title, *picture, foot, legend, more = columns(FORECAST, 80)
    assert title == "chat: load (concurrency), 12 now"
    text = "\n".join(picture)
    assert all(sign in text for sign in "█▒░-=")
    (spare,) = (line for line in picture if line.startswith("to spare"))
    assert 0 < spare.count("=") < 20
    assert "now" in foot
    assert legend == "█ seen  ▒ foreseen (median)  ░ to q0.9  - what its 2 replicas carry"
    assert more == "= replicas to spare at q0.9"
    assert "=" not in "\n".join(columns({**FORECAST, "valleys": []}, 80))


def test_a_hole_is_no_zero() -> None:
    picture = svg(FORECAST)
    assert picture.count('stroke="#1f4e79"') == 2, "a hole is a gap"
    assert 'stroke="#7f7f7f"' in picture, "what replicas carry is a line"
    assert "&lt;1 h ahead &amp; more" in picture
    (bottom,) = (line for line in columns(IDLE, 80) if "_" in line)
    assert " " in bottom.strip().partition("  ")[2], "what was read as 0 is there, the hole is not"
    assert 'fill="#1f4e79"' in svg(NEW), "one reading is a dot"


def test_without_any_reading_it_says_so() -> None:
    assert columns(EMPTY, 80) == ["chat: load (concurrency), unknown now", NOTHING]
    assert NOTHING in svg(EMPTY)
    assert NOTHING not in svg(NEW)


def test_times_are_round_and_local(berlin: None) -> None:
    day = 1_780_264_800.0  # midnight of 1 June 2026 in Berlin
    found = dict(ticks(day - 86_400, day + 2 * 86_400))
    assert found[day] == "Mon 01 Jun"
    assert found[day + 6 * 3600] == "06:00"
    assert len(found) <= 13
    assert dict(ticks(day + 3601, day + 3661))[day + 3605] == "01:00:05"
    assert ticks(day, day) == [(day, "Mon 01 Jun")]
    spring = 1_774_738_800.0  # midnight of 29 March 2026; at 2 the clocks are put forward
    words = [word for _, word in ticks(spring - 86_400, spring + 2 * 86_400)]
    assert words == ["Sat 28 Mar", *["06:00", "12:00", "18:00"], "Sun 29 Mar", *["06:00", "12:00", "18:00"],
                     "Mon 30 Mar", *["06:00", "12:00", "18:00"], "Tue 31 Mar"]  # fmt: skip
