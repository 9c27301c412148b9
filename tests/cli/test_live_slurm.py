"""The batch user's side against a real Slurm: submission, checkpoint marks, the example of docs/batch-users.md."""

import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import FixedClock, Submit, facts, job_id, python_path

from coloc_cli import jobmark, sbatch_mark
from coloc_cli.jobmark import read_comment, record_checkpoint
from coloc_cli.sbatch_options import OWN, TAKES_VALUE
from colocd.core.comment import parse_comment
from colocd.core.view import Checkpoint
from colocd.errors import BadRequest, NotAllowed, NotFound, SlurmUnreachable
from colocd.testcluster import PrivateCluster

pytestmark = pytest.mark.slurm
DOCS = Path(__file__).parents[2] / "docs" / "batch-users.md"


def comment(cluster: PrivateCluster, ref: str) -> str:
    return read_comment(ref, cluster.environment, FixedClock())


def wait_until(what: Callable[[], object], text: str) -> None:
    end = time.monotonic() + 60  # noqa: TID251 -- waits for daemons of another process
    while not what():
        assert time.monotonic() < end, text  # noqa: TID251 -- as above
        time.sleep(0.1)  # noqa: TID251 -- as above


def test_a_submitted_job(clean_cluster: PrivateCluster, submit: Submit) -> None:
    ref = job_id(submit("-n2", "--signal=B:USR1@90", "--comment=my run", "--wrap", "sleep 60"))
    job = facts(clean_cluster, ref)
    assert (job["JobState"], job["Reason"], job["Requeue"]) == ("PENDING", "JobHeldUser", "1")
    assert (job["Partition"], job["NumTasks"]) == ("batch", "2")
    assert comment(clean_cluster, ref) == "my run [coloc v=1 signal=USR1 to=batch grace=90]"


@pytest.mark.parametrize("text", ["plain", "a \"b\" 'c' $(id) `id` \\", "two\nlines", "ü=+,;|", "[coloc"])
def test_comments_survive(clean_cluster: PrivateCluster, submit: Submit, text: str) -> None:
    ref = job_id(submit("--comment", text, "--wrap=true"))
    assert comment(clean_cluster, ref) == f"{text} [coloc v=1]"
    clean_cluster.run("scontrol", "update", f"jobid={ref}", "comment=" + comment(clean_cluster, ref))
    assert comment(clean_cluster, ref) == f"{text} [coloc v=1]"


def fits(text: str) -> bool:
    try:
        sbatch_mark.comment(text, Checkpoint())
    except BadRequest:
        return False
    return True


def test_longest_comment_fits(clean_cluster: PrivateCluster, submit: Submit) -> None:
    text = next("x" * n for n in range(1024, 0, -1) if fits("x" * n))
    ref = job_id(submit("--wrap=true", "--comment", text))
    record_checkpoint({**clean_cluster.environment, "SLURM_JOB_ID": ref}, FixedClock(), give_up=True)
    mark = parse_comment(comment(clean_cluster, ref))
    assert mark is not None
    assert mark.yielded == FixedClock().now()


def test_stdin_arrays_and_parsable(clean_cluster: PrivateCluster, submit: Submit) -> None:
    text = "#!/bin/sh\n#SBATCH --signal=USR2@5 -J fromstdin\ntrue\n"
    done = submit("--parsable", "--array=1-2", stdin=text)
    assert re.fullmatch(r"\d+\n", done.stdout)
    assert comment(clean_cluster, done.stdout.strip()) == "[coloc v=1 signal=USR2 to=steps grace=5]"
    assert facts(clean_cluster, done.stdout.strip())["JobName"] == "fromstdin"


def test_sbatchs_refusal_passes_through(clean_cluster: PrivateCluster, submit: Submit) -> None:
    done = submit("--gres=nonsense:1", "--wrap=true")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("sbatch: error: ")
    plain = clean_cluster.run("sbatch", "--nonsense", check=False)
    assert submit("--nonsense").returncode == plain.returncode
    assert submit("--nonsense").stderr == plain.stderr


def test_test_only_gives_a_start_time(clean_cluster: PrivateCluster, submit: Submit) -> None:
    done = submit("--test-only", "--wrap=true")
    assert (done.returncode, "to start at 20" in done.stderr) == (0, True)
    assert clean_cluster.run("squeue", "-h").stdout == ""


def test_option_table_agrees_with_this_sbatch(clean_cluster: PrivateCluster) -> None:
    known = 0
    for name, takes in TAKES_VALUE.items():
        if name in OWN or name in ("help", "usage", "version", "autocomplete"):
            continue
        words = [f"--{name}"] if takes else [f"--{name}", "--no-such-option"]
        said = clean_cluster.run("sbatch", *words, check=False).stderr
        if f"unrecognized option '--{name}'" in said or f"'--{name}' is ambiguous" in said:
            continue  # another release's option
        if re.search(rf"option '--{name}[a-z-]+'", said):
            continue  # here only the beginning of a longer one
        known += 1
        want = f"option '--{name}' requires an argument" if takes else "unrecognized option '--no-such-option'"
        assert want in said, name
    assert known > 90


def test_the_documented_script(clean_cluster: PrivateCluster, submit: Submit) -> None:
    found = re.search(r"```sh\n(#!/bin/bash.*?)```", DOCS.read_text(), re.S)
    assert found
    path = shlex.quote(python_path()["PYTHONPATH"])
    coloc = f'coloc() {{ PYTHONPATH={path} {shlex.quote(sys.executable)} -m coloc_cli.main "$@"; }}\n'
    trainer = clean_cluster.work / "train.sh"
    trainer.write_text("trap 'echo saved >saved; exit' USR1\ntouch up\nwhile :; do sleep 0.1; done\n")
    text = found.group(1).replace("python train.py --resume latest", "sh train.sh")
    assert "sh train.sh &" in text
    script = clean_cluster.work / "job.sh"
    script.write_text(text.replace("save() {", coloc + "save() {"))
    ref = job_id(submit("--comment=mine", str(script)))
    assert comment(clean_cluster, ref) == "mine [coloc v=1 signal=USR1 to=batch grace=90]"

    clean_cluster.run("scontrol", "release", ref)
    wait_until((clean_cluster.work / "up").exists, "the job does not start")
    clean_cluster.run("scancel", "-b", "-s", "USR1", ref)
    wait_until(lambda: "yielded=" in comment(clean_cluster, ref), "the job does not yield")
    mark = parse_comment(comment(clean_cluster, ref))
    assert mark is not None
    assert mark.saved == mark.yielded
    assert mark.saved is not None
    assert mark.saved > 1_700_000_000
    assert comment(clean_cluster, ref).startswith("mine [coloc v=1 signal=USR1 to=batch grace=90 saved=")
    assert (clean_cluster.work / "saved").read_text() == "saved\n"
    assert facts(clean_cluster, ref)["JobState"] == "RUNNING"
    clean_cluster.run("scontrol", "requeuehold", ref)
    wait_until(lambda: facts(clean_cluster, ref)["JobState"] == "PENDING", "the job is not requeued")


def test_each_array_task_speaks_for_itself(clean_cluster: PrivateCluster, submit: Submit) -> None:
    ref = submit("--parsable", "--array=1-3", "--wrap", "sleep 60").stdout.strip()
    clean_cluster.run("scontrol", "release", ref)
    wait_until(lambda: clean_cluster.run("squeue", "-h", "-r", "-t", "R").stdout.count("\n") == 3, "tasks do not start")
    ids = dict(line.split() for line in clean_cluster.run("squeue", "-h", "-r", "-o", "%i %A").stdout.splitlines())
    for n, task in enumerate(sorted(ids)):  # one of them has the number of the whole array
        env = {"SLURM_JOB_ID": ids[task], "SLURM_ARRAY_JOB_ID": ref, "SLURM_ARRAY_TASK_ID": task.split("_")[1]}
        record_checkpoint({**clean_cluster.environment, **env}, FixedClock(100 + n), give_up=n == 1)
    marks = {task: parse_comment(comment(clean_cluster, task)) for task in sorted(ids)}
    assert list(marks.values()) == [
        Checkpoint(saved=100),
        Checkpoint(saved=101, yielded=101),
        Checkpoint(saved=102),
    ]


@pytest.mark.root
def test_a_job_of_somebody_else(clean_cluster: PrivateCluster, tmp_path: Path) -> None:
    assert os.geteuid() == 0, "this test changes users: run the tests marked `slurm` as root"
    ref = clean_cluster.run("sbatch", "--parsable", "-H", "--comment=[coloc v=1]", "--wrap=true").stdout.strip()
    for name in ("squeue", "scontrol"):  # the same commands, as another user
        command = shutil.which(name)
        (tmp_path / name).write_text(f'#!/bin/sh\nexec setpriv --reuid 65534 --clear-groups {command} "$@"\n')
        (tmp_path / name).chmod(0o755)
    env = {**clean_cluster.environment, "SLURM_JOB_ID": ref}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    with pytest.raises(NotAllowed, match="is not yours"):
        record_checkpoint(env, FixedClock())
    assert comment(clean_cluster, ref) == "[coloc v=1]"


def test_jobs_that_are_not_coloced(clean_cluster: PrivateCluster) -> None:
    ref = clean_cluster.run("sbatch", "--parsable", "-H", "--comment=mine", "--wrap=true").stdout.strip()
    env = {**clean_cluster.environment, "SLURM_JOB_ID": ref}
    assert record_checkpoint(env, FixedClock())["managed"] is False
    assert comment(clean_cluster, ref) == "mine"
    for gone in ("999999", "999999_7"):
        with pytest.raises(NotFound):
            read_comment(gone, clean_cluster.environment, FixedClock())
    with pytest.raises(NotFound):
        read_comment(f"{ref}_7", clean_cluster.environment, FixedClock())


class Passing(FixedClock):
    """Goes on while it sleeps."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.time += seconds


def test_slurmctld_away_for_a_moment(
    clean_cluster: PrivateCluster, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = job_id(submit("--wrap=true"))

    class Healing(Passing):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if len(self.slept) == 1:
                clean_cluster.start_controller()
                monkeypatch.undo()

    clock = Healing()
    monkeypatch.setattr(jobmark, "TIMEOUT", 0.5)
    clean_cluster.stop_controller()
    try:
        record_checkpoint({**clean_cluster.environment, "SLURM_JOB_ID": ref}, clock)
    finally:
        if not clock.slept:
            clean_cluster.start_controller()
    assert clock.slept == [jobmark.PAUSE]
    assert parse_comment(comment(clean_cluster, ref)) == Checkpoint(saved=float(int(FixedClock().now())))


def test_slurmctld_away_for_long(clean_cluster: PrivateCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Passing()
    monkeypatch.setattr(jobmark, "TIMEOUT", 0.2)
    monkeypatch.setattr(jobmark, "PATIENCE", 2.0)
    clean_cluster.stop_controller()
    try:
        with pytest.raises(SlurmUnreachable, match="does not answer"):
            record_checkpoint({**clean_cluster.environment, "SLURM_JOB_ID": "1"}, clock)
    finally:
        clean_cluster.start_controller()
    assert clock.slept == [jobmark.PAUSE] * 3


@pytest.mark.parametrize("daemon", ["controller", "munge"])
def test_slurms_own_words_for_an_absent_daemon_are_known(clean_cluster: PrivateCluster, daemon: str) -> None:
    ref = clean_cluster.run("sbatch", "--parsable", "-H", "--wrap=true").stdout.strip()
    getattr(clean_cluster, f"stop_{daemon}")()
    try:
        command = ["scontrol", "update", f"jobid={ref}", "comment=x"]
        said = [clean_cluster.run(*words, check=False) for words in (["squeue", "-h"], command)]
    finally:
        getattr(clean_cluster, f"start_{daemon}")()
    assert all(done.returncode and jobmark.ABSENT.search(done.stderr) for done in said), said


@pytest.mark.parametrize("ref", ["", "x", "1 or 2", "-1", "7\n"])
def test_outside_a_job(ref: str) -> None:
    with pytest.raises(BadRequest):
        jobmark.job_ref({"SLURM_JOB_ID": ref})
