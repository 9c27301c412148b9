from io import BytesIO
from xml.etree import ElementTree

import pytest
from PIL import Image
from tests.api.fake_backend import FORECAST

from coloc_cli.forecast_picture import HEIGHT, WIDTH, Png, Svg, columns, draw

EMPTY = {**FORECAST, "history": [], "points": [], "basis": None, "valleys": [], "carried": 0.0}


@pytest.mark.parametrize("told", [FORECAST, EMPTY])
def test_the_picture_is_well_formed(told: dict[str, object]) -> None:
    svg, png = Svg(), Png()
    draw(svg, told)
    draw(png, told)
    root = ElementTree.fromstring(svg.done())
    assert root.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
    image = Image.open(BytesIO(png.done()))
    assert image.size == (2 * WIDTH, 2 * HEIGHT)
    lines = columns(told, 80)
    assert len(lines) == 11
    assert all(len(line) <= 80 for line in lines)


def test_a_hole_is_a_gap_and_capacity_a_line() -> None:
    svg = Svg()
    draw(svg, FORECAST)
    words = svg.done().decode()
    assert words.count('stroke="#1f4e79"') == 2
    assert 'stroke="#7f7f7f"' in words
    assert "&lt;1 h ahead &amp; more" in words
    picture = "\n".join(columns(FORECAST, 80))
    assert "▒" in picture
    assert "░" in picture
    assert "-" in picture
