"""The accounting of bench_lost: what is lost comes from journals and nothing else, what is reclaimed from Slurm's records."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bench.lost_account import Held, Peak, Work, account, late, losses, runs_of

from bench import lost_job
from colocd.clock import SystemClock

PEAKS = (Peak(start=20.0, end=30.0, more=1), Peak(start=60.0, end=70.0, more=2))
CLOCK = SystemClock()


def work(starts: str, journal: str, gpus: int = 4, name: str = "1") -> Work:
    return Work(name=name, gpus=gpus, kind="k", runs=runs_of(starts, journal))


def test_a_step_is_lost_when_the_next_run_goes_on_before_it() -> None:
    steps = "".join(f"0 {k} {100 + k}.0\n" for k in range(1, 8)) + "1 6 130.0\n1 7 131.0\n2 8 160.0\n"
    one = work("0 0 100.0\n1 5 129.0\n2 7 150.0\n", steps)
    assert losses(one) == [(107.0, 2), (131.0, 0)]
    assert losses(one, saved=3) == [(107.0, 2), (131.0, 0), (160.0, 5)]


def test_a_torn_line_is_no_step_and_a_run_without_a_step_loses_nothing() -> None:
    one = work("0 0 100.0\n1 2 110.0\n2 2 120.0\n", "0 1 101.0\n0 2 102.0\n0 3 10")
    assert losses(one) == [(102.0, 0), (110.0, 0)]


def test_the_row_of_an_arm() -> None:
    a = work("0 0 990.0\n1 50 1031.0\n", "0 10 1000.0\n0 80 1025.0\n1 51 1032.0\n1 90 1080.0\n", name="a")
    b = work("0 0 990.0\n1 0 1072.0\n", "0 30 1055.0\n1 1 1073.0\n", gpus=2, name="b")
    held = [Held(gpus=4, start=900.0, end=None), Held(gpus=4, start=1021.0, end=1031.0)]
    held += [Held(gpus=4, start=1058.0, end=1070.0), Held(gpus=4, start=1063.0, end=1071.0)]
    row = account([a, b], {}, {"a": 10, "b": 10}, held, PEAKS, begin=1000.0, end=1080.0, always=4)
    assert [one["lost"] for one in row["each"]] == [pytest.approx(30 * 0.1 * 4), pytest.approx(30 * 0.1 * 2)]
    assert [one["late"] for one in row["each"]] == [1.0, 3.0]
    assert row["reclaimed_gpu_hours"] == pytest.approx(4 * (10 + 12 + 8) / 3600, abs=1e-4)
    assert row["lost_gpu_seconds"] == 18.0
    assert row["batch_gpu_hours"] == pytest.approx((80 * 0.1 * 4 + 20 * 0.1 * 2) / 3600, abs=1e-4)
    assert (row["victims"], row["never_complete"], row["lost_outside_of_peaks"]) == (2, 0, 0)


def test_replicas_that_ran_before_the_peak_are_early_and_missing_ones_are_told() -> None:
    base, early = Held(gpus=4, start=0.0, end=None), Held(gpus=4, start=95.0 + 20, end=200.0)
    assert late([base, early], PEAKS[0], 100.0) == -5.0
    assert late([base], PEAKS[0], 100.0) is None
    assert late([base, Held(gpus=4, start=50.0, end=110.0)], PEAKS[0], 100.0) is None


def _run(folder: Path, number: int, *words: str) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, str(lost_job.__file__), str(folder), "--interval=3600", *words]
    began = subprocess.Popen(argv, env={"SLURM_RESTART_COUNT": str(number)})
    end = CLOCK.monotonic() + 60
    while f"\n{number} " not in "\n" + (text if (text := _read(folder / "journal")) else ""):
        assert CLOCK.monotonic() < end
        CLOCK.sleep(0.05)
    return began


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("wait", [0.0, 60.0], ids=["killed in the save", "saved in time"])
def test_a_save_counts_only_when_it_is_whole(tmp_path: Path, wait: float) -> None:
    """TERM, then KILL after `wait`, as Slurm does; the save takes long where it is to be cut off."""
    first = _run(tmp_path, 0, f"--save={0 if wait else 600}", "--asked=TERM")
    first.send_signal(signal.SIGTERM)
    if wait:
        assert first.wait(wait) == 143
    else:
        CLOCK.sleep(0.3)
        first.kill()
        first.wait(60)
    done = int(_read(tmp_path / "journal").splitlines()[-1].split()[1])
    second = _run(tmp_path, 1, "--save=0")
    second.kill()
    second.wait(60)
    lost = losses(work(_read(tmp_path / "starts"), _read(tmp_path / "journal")))
    assert [steps for _, steps in lost] == [0 if wait else done]
