"""The program around a batch script, with stand-ins for Slurm's commands: how it asks, hears, and ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coloc_cli import sbatch_wrap
from coloc_cli.sbatch_wishes import Wishes
from colocd.core.comment import parse_comment
from colocd.core.view import Checkpoint

SLURM = """#!/bin/sh
# squeue -h -j REF -O Comment:2000<end>   |   scontrol update jobid=REF comment=TEXT   |   scontrol requeue REF   |   scancel
echo "${0##*/} $*" >>"$FAKE/calls"
case "${0##*/} $1" in
squeue*) printf '%s   %s' "$(cat "$FAKE/comment")" "${5#Comment:2000}" ;;
"scontrol update") printf '%s' "${3#comment=}" >"$FAKE/comment" ;;
esac
"""
SAVES = """
import signal, sys, time
def stop(*_):
    open("saved", "w").write("x")
    sys.exit(int(sys.argv[1]))
signal.signal(signal.SIGTERM, stop)
open("up", "w")
while True: time.sleep(0.05)
"""


class Inside:
    """One wrapped script, run as slurmstepd would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fake = folder / "fake"
        self.fake.mkdir()
        for name in ("squeue", "scontrol", "scancel"):
            (self.fake / name).write_text(SLURM)
            (self.fake / name).chmod(0o755)
        self.comment("mine [coloc v=1 signal=USR1 to=batch interval=60]")
        (folder / "saves.py").write_text(SAVES)
        self.process: subprocess.Popen[str] | None = None

    def comment(self, text: str) -> None:
        (self.fake / "comment").write_text(text)

    @property
    def mark(self) -> Checkpoint:
        found = parse_comment((self.fake / "comment").read_text())
        assert found is not None
        return found

    def calls(self, word: str) -> list[str]:
        path = self.fake / "calls"
        return [line for line in path.read_text().splitlines() if word in line] if path.exists() else []

    def start(self, text: str, wishes: Wishes, *words: str, head: str = "#!/bin/bash\n", **env: str) -> None:
        script = self.folder / "slurm_script"
        script.write_bytes(sbatch_wrap.wrap((head + text).encode(), wishes, str(self.fake)))
        environ = {
            "PATH": f"{self.fake}:{os.environ['PATH']}",
            "FAKE": str(self.fake),
            "SLURM_JOB_ID": "17",
            "TMPDIR": str(self.folder),
        }
        self.process = subprocess.Popen(
            ["/bin/sh", str(script), *words], cwd=self.folder, env={**environ, **env}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def ask(self, number: int = signal.SIGUSR1) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def until(self, done: Callable[[], object], what: str) -> None:
        end = time.monotonic() + 30  # noqa: TID251 -- waits for another process
        while not done():
            assert time.monotonic() < end, what  # noqa: TID251 -- as above
            time.sleep(0.05)  # noqa: TID251 -- as above

    def end(self) -> tuple[int, str, str]:
        assert self.process is not None
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def requeued(self) -> tuple[int, str, str]:
        """What Slurm does: TERM to every process."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGTERM)
        return self.end()

    def up(self) -> None:
        self.until((self.folder / "up").exists, "the program's start")


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    it = Inside(tmp_path)
    yield it
    if it.process is not None and it.process.poll() is None:
        os.killpg(it.process.pid, signal.SIGKILL)
        it.process.communicate()


PROGRAM = Wishes(signal="TERM", to="program", ack="exit")


def test_nobody_asks(inside: Inside) -> None:
    inside.start('echo "$#:$1:$X"; umask; echo err >&2; exit 3', PROGRAM, "a 'b' $(id)", X="$x")
    code, out, err = inside.end()
    assert (code, out.splitlines()[0], err) == (3, "1:a 'b' $(id):$x", "err\n")
    assert int(out.splitlines()[1], 8) == os.umask(os.umask(0o022))
    assert inside.calls("") == []
    assert list(inside.folder.glob("coloc-job-*")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_script_that_dies_of_a_signal(inside: Inside, number: int) -> None:
    inside.start(f"ulimit -c 0; kill -{int(number)} $$", PROGRAM)
    assert inside.end()[0] == -number


def test_other_interpreters(inside: Inside) -> None:
    inside.start("import sys\nprint(sys.argv[1:], sys.flags.isolated)\n", PROGRAM, "x", head=f"#!{sys.executable} -E\n")
    assert inside.end()[:2] == (0, "['x'] 0\n")


@pytest.mark.parametrize("code", [0, 3])
def test_the_program_is_asked_not_the_shell_and_the_job_waits(inside: Inside, code: int) -> None:
    inside.start(f"set -o pipefail; {sys.executable} saves.py {code} | tee log", PROGRAM)
    inside.up()
    inside.ask()
    inside.until(lambda: inside.mark.yielded, "the word that it gives way")
    assert (inside.folder / "saved").exists()
    assert (inside.mark.signal, inside.mark.interval) == ("USR1", 60)
    assert (inside.fake / "comment").read_text().startswith("mine [coloc")
    assert (inside.mark.saved is None) == (code != 0)  # it gave way, but nobody knows whether it saved
    assert inside.process is not None
    assert inside.process.poll() is None  # it does not end: Slurm would call it done
    assert inside.requeued()[0] == 0


def test_an_end_with_an_error_after_a_new_checkpoint(inside: Inside) -> None:
    """As torchrun ends."""
    inside.start(f"exec {sys.executable} saves.py 1", Wishes(signal="TERM", to="program", ack="exit", files="saved"))
    inside.up()
    inside.ask()
    inside.until(lambda: inside.mark.yielded, "the word that it gives way")
    assert inside.mark.saved
    inside.requeued()


@pytest.mark.parametrize(("code", "yields"), [(85, True), (0, False), (1, False)])
def test_agreed_exit_codes(inside: Inside, code: int, yields: bool) -> None:
    inside.start(
        f"exec {sys.executable} saves.py {code}", Wishes(signal="TERM", to="program", ack="exit", exits=(85, 99))
    )
    inside.up()
    inside.ask()
    if yields:
        inside.until(lambda: inside.mark.yielded, "the word that it gives way")
        assert inside.mark.saved
        inside.requeued()
    else:
        assert inside.end()[0] == code
        assert inside.mark.yielded is None


def test_a_new_complete_checkpoint_file(inside: Inside) -> None:
    (inside.folder / "ckpt").mkdir()
    (inside.folder / "ckpt" / "1.pt").write_text("old")
    text = """trap 'asked=1' USR1; touch up
while :; do
    sleep 0.1
    if [ -n "$asked" ]; then
        for k in 1 2 3; do echo $k >>ckpt/2.pt; sleep 0.5; done
        touch whole; asked=
    fi
done
"""
    inside.start(text, Wishes(signal="USR1", to="batch", ack="file", files="ckpt/**"))
    inside.up()
    inside.ask()
    inside.until((inside.folder / "whole").exists, "the checkpoint")
    assert inside.mark.yielded is None  # it was still growing
    inside.until(lambda: inside.mark.yielded, "the word that it gives way")
    assert inside.mark.saved
    inside.requeued()


@pytest.mark.parametrize("code", [0, 1])
def test_a_checkpoint_command(inside: Inside, code: int) -> None:
    command = f'echo "$COLOC_ASKED $COLOC_PID $COLOC_PROGRAMS" >image; exit {code}'
    inside.start(f"exec {sys.executable} saves.py 0", Wishes(ack="command", checkpoint=command, to="program"))
    inside.up()
    inside.ask()
    if code == 0:
        inside.until(lambda: inside.mark.yielded, "the word that it gives way")
        asked, pid, programs = (inside.folder / "image").read_text().split()
        assert (asked, pid) == ("1", programs)
        inside.requeued()
    else:
        inside.until(lambda: (inside.folder / "image").exists(), "the command")
        assert "ended with 1" in inside.requeued()[2]
        assert inside.mark.yielded is None


def test_the_script_reports_by_itself_without_coloc_installed(inside: Inside) -> None:
    text = "trap 'PATH=$FAKE:/usr/bin:/bin:${PATH##*:} coloc checkpointed --yield; exit 0' USR1\n"
    text += "touch up\nwhile :; do sleep 0.1; done"
    inside.start(text, Wishes(signal="USR1", to="batch", ack="report", files="none"))
    inside.up()
    inside.ask()
    inside.until(lambda: inside.mark.yielded, "the word that it gives way")
    assert inside.mark.saved == inside.mark.yielded
    time.sleep(0.5)  # noqa: TID251 -- the script ends now
    assert inside.process is not None
    assert inside.process.poll() is None
    inside.requeued()


def test_steps_are_asked_through_slurm(inside: Inside) -> None:
    inside.start(
        "touch up; sleep 60",
        Wishes(signal="USR2", to="step:3", ack="exit"),
        SLURM_ARRAY_JOB_ID="16",
        SLURM_ARRAY_TASK_ID="4",
    )
    inside.up()
    inside.ask()
    inside.until(lambda: inside.calls("scancel"), "the signal")
    assert inside.calls("scancel") == ["scancel --signal=USR2 17.3"]
    inside.requeued()


@pytest.mark.parametrize("again", [False, True])
def test_resuming(inside: Inside, again: bool) -> None:
    wishes = Wishes(signal="TERM", to="program", ack="exit", resume_arg="--resume 'the latest'")
    inside.start('printf "%s;" "$@"', wishes, "a", **({"SLURM_RESTART_COUNT": "2"} if again else {}))
    assert inside.end()[1] == ("a;--resume;the latest;" if again else "a;")


@pytest.mark.parametrize("saved", [False, True])
def test_resuming_by_command(inside: Inside, saved: bool) -> None:
    if saved:
        inside.comment("[coloc v=1 signal=USR1 to=batch saved=5]")
    inside.start(
        "echo script",
        Wishes(ack="command", checkpoint="true", resume='echo "restored $1"'),
        "a",
        SLURM_RESTART_COUNT="1",
    )
    assert inside.end()[1] == ("restored a\n" if saved else "script\n")


def test_what_the_script_leaves_behind_is_ended_before_the_job_gives_way(inside: Inside) -> None:
    fork = """
import os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
while True:
    open("alive", "a").write("x")
    time.sleep(0.05)
"""
    (inside.folder / "fork.py").write_text(fork)
    inside.start(f"{sys.executable} fork.py; {sys.executable} saves.py 0", PROGRAM)
    inside.up()
    inside.until((inside.folder / "alive").exists, "the one that forked away")
    inside.ask()
    inside.until(lambda: inside.mark.yielded, "the word that it gives way")
    size = (inside.folder / "alive").stat().st_size
    time.sleep(0.3)  # noqa: TID251 -- it would write
    assert (inside.folder / "alive").stat().st_size == size
    inside.requeued()


def test_other_signals_reach_the_script(inside: Inside) -> None:
    inside.start("trap 'echo got; exit 4' HUP\ntouch up\nwhile :; do sleep 0.1; done", PROGRAM)
    inside.up()
    inside.ask(signal.SIGHUP)
    assert inside.end()[:2] == (4, "got\n")


def test_an_undone_word_is_said_again(inside: Inside) -> None:
    inside.start(f"exec {sys.executable} saves.py 0", PROGRAM)
    inside.up()
    inside.ask()
    inside.until(lambda: inside.mark.yielded, "the word that it gives way")
    inside.comment("mine [coloc v=1 signal=USR1 to=batch]")
    inside.until(lambda: inside.mark.yielded, "the word, again")
    inside.requeued()
