import gzip
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from coloc_cli.main import run
from colocd.core.foresight.calendar import DAY, Bins
from colocd.errors import BadFile, BadRequest, ColocError
from colocd.seriesfile import read_series
from colocd.site import site_calendar


def file(folder: Path, text: str) -> Path:
    path = folder / "load.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        (("2026-03-01 00:00:00", "2026-03-01 00:05:00", "2026-03-01 00:20:00"), "when"),
        (("2026-03-01T01:00:00+01:00", "2026-03-01T01:05:00+01:00", "2026-03-01T00:20:00Z"), "when"),
        (("1772323200", "1772323500", "1772324400"), "x"),
        (("1772323200000", "1772323500000", "1772324400000"), "x"),
    ],
)
def test_times_of_all_kinds(tmp_path: Path, cells: tuple[str, ...], name: str) -> None:
    rows = "\n".join(f"{cell},{value}" for cell, value in zip(cells, (1, 3, 5), strict=True))
    series = read_series(file(tmp_path, f"{name},load\n{rows}\n"), "load", name, 600)
    assert series.start == 1772323200
    assert np.array_equal(series.values, [2.0, np.nan, 5.0], equal_nan=True)


def test_a_bare_index_counts_steps_and_rows_come_in_any_order(tmp_path: Path) -> None:
    series = read_series(file(tmp_path, "i,load\n2,9\n0,1\n0,3\n3,nan\n1,-4\nx,7\n4,8\n"), "load", "i", 3600)
    assert np.array_equal(series.values, [2.0, np.nan, 9.0, np.nan, 8.0], equal_nan=True)
    assert any("1 negative" in note for note in series.notes)
    assert any("1 rows without" in note for note in series.notes)


def test_a_time_column_is_found_by_its_name(tmp_path: Path) -> None:
    assert read_series(file(tmp_path, "t_ms,load\n0,1\n600000,2\n"), "load", None, 600).time == "t_ms"
    assert read_series(file(tmp_path, "day,hour,load\n0,0,1\n0,1,2\n"), "load", None, 600).time is None


@pytest.mark.parametrize(
    ("text", "values", "note"),
    [
        ("time;load\n01.03.2026 00:10;1,5\n01.03.2026 00:20;2,5\n", [1.5, 2.5], None),
        ("time\tload\n2026/03/01 00:10\t1.5\n2026/03/01 00:20\t1,25\n", [1.5, 1.25], None),
        ('time,load\n2026-03-01 00:10,"1,234.5"\n2026-03-01T00:20:00.1234567Z,60 %\n', [1234.5, 60.0], None),
        ("time,load\n03/04/2026 00:10,1\n03/04/2026 00:20,2\n", [1.0, 2.0], "no times that can be read"),
        ("t_s,load\n600,1\n1200,1e200\n1800,3\n", [1.0, np.nan, 3.0], "values above"),
        ("t_s,load,load\n600,1,9\n1200,2,9\n", [1.0, 2.0], "the first is read"),
    ],
)
def test_loads_and_times_as_people_write_them(tmp_path: Path, text: str, values: list[float], note: str | None) -> None:
    series = read_series(file(tmp_path, text), "load", None, 600)
    assert np.array_equal(series.values, values, equal_nan=True)
    assert [note in said for said in series.notes] == [True] if note is not None else series.notes == ()


@pytest.mark.parametrize(
    "text", ["", "a,load\n", "a,b\n1,2\n", "time,load\n1,x\n2,y\n", "t,load\n0,1\n1e15,2\n9e15,3\n", "\x00\x01"]
)
def test_bad_files_are_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadFile):
        read_series(file(tmp_path, text), "load", "t" if text.startswith("t,") else None, 1.0)


def test_a_broken_gzip_is_a_sentence(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(["load", *(str(i**3 % 99991) for i in range(1000))]).encode())
    for data in (whole[: len(whole) // 2], whole[:12] + b"x" * 20 + whole[32:], b"\x1f\x8b"):
        (tmp_path / "x.csv.gz").write_bytes(data)
        with pytest.raises(BadFile):
            read_series(tmp_path / "x.csv.gz", "load", None, 600)


def test_the_command_prints_the_keys_and_fails_with_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    rows = "".join(f"{i * 3600},{10 + i % 24}\n" for i in range(24 * 6))
    path = file(tmp_path, "t_s,load\n" + rows)
    argv = ["forecast", "backtest", str(path), "--column", "load", "--step", "1h", "--train", "3d", "--json"]
    assert run(argv) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"wape", "pinball95_pct", "coverage95", "n", "seconds", "baselines"} <= set(told)
    assert set(told["baselines"]) == {"naive", "seasonal_naive", "seasonal_ewma"}
    assert told["n"] == 72
    assert run(argv[:-1]) == 0
    assert "seasonal ewma" in capsys.readouterr().out
    for wrong, code in (
        (["--train", "30d"], BadRequest.exit_code),
        (["--step", "soon"], BadRequest.exit_code),
        (["--timezone", "Mars/Base"], BadRequest.exit_code),
        (["--column", "nope"], BadFile.exit_code),
    ):
        assert run([*argv, *wrong]) == code
        assert "Traceback" not in capsys.readouterr().err


def test_local_time_over_the_change_of_the_clock() -> None:
    """In Berlin clocks went forward on 2026-03-29 at 01:00 UTC: eight o'clock is seven hours after midnight UTC, then six."""
    start = 1_774_483_200.0  # 2026-03-26 00:00 UTC
    calendar = site_calendar("Europe/Berlin", [date(2026, 3, 27)], start, start + 10 * DAY)
    assert calendar.since == (1_774_746_000.0,)
    bins = Bins(start=start, step=3600.0, calendar=calendar)
    eight = np.array([24 * day + (7 if day < 3 else 6) for day in range(8)])
    assert set(bins.place(eight)[1].tolist()) == {8}
    back = bins.back(eight[1:], 1)
    for target, found in zip(eight[1:], back, strict=True):
        assert found in (eight[list(eight).index(target) - 1], eight[list(eight).index(target) - 1] - 24)
        assert target - found >= 23
    assert calendar.holidays == (20539,)
    assert bins.free_day(bins.place(eight)[0]).tolist() == [False, True, True, True, False, False, False, False]
    with pytest.raises(ColocError):
        site_calendar("Nowhere", (), 0, 1)


def test_an_unknown_zone_is_a_bad_request(tmp_path: Path) -> None:
    path = file(tmp_path, "time,load\n2026-03-01T00:00:00,1\n2026-03-01T00:10:00,2\n")
    with pytest.raises(BadRequest, match="no time zone 'Mars/Base'"):
        read_series(path, "load", None, 600, "Mars/Base")


@pytest.mark.parametrize(("value", "why"), [("-3", "2 negative"), ("1e300", "2 values above")])
def test_a_column_without_a_load_is_refused_with_the_reason(tmp_path: Path, value: str, why: str) -> None:
    path = file(tmp_path, f"t_s,load\n0,{value}\n600,{value}\n")
    with pytest.raises(BadFile, match=why):
        read_series(path, "load", None, 600)


def test_rows_without_a_value_are_not_said_to_be_far_apart(tmp_path: Path) -> None:
    rows = "\n".join(f"{600 * i},{'' if i % 4 else 1}" for i in range(40))
    assert not read_series(file(tmp_path, f"t_s,load\n{rows}\n"), "load", None, 600).notes
    assert "no row" in read_series(file(tmp_path, f"t_s,load\n{rows}\n"), "load", None, 60).notes[0]


def test_empty_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    assert len(read_series(file(tmp_path, "\n \nt_s,load\n0,1\n600,2\n"), "load", None, 600).values) == 2
