"""What sbatch is given: words, script and environment. Pure; nothing here talks to Slurm."""

import getpass
import os
import subprocess

import pytest

from colocd.errors import SlurmRefused
from colocd.slurm.port import Submission
from colocd.slurm.submission import arguments, environment, script

PLAIN = Submission(name="chat-0", script="#!/bin/bash\ntrue\n", partition="online")


def changed(**fields: object) -> Submission:
    return Submission(**{"name": "chat-0", "script": PLAIN.script, "partition": "online", **fields})  # type: ignore[arg-type]


def test_a_plain_job() -> None:
    assert arguments(PLAIN, 9) == [
        *(
            "sbatch",
            "--parsable",
            "--export=ALL",
            "--export-file=9",
            "--job-name=chat-0",
            "--partition=online",
            "--nodes=1",
        ),
        *("--ntasks-per-node=1", "--cpus-per-task=1", "--output=/dev/null", "--no-requeue", "--chdir=/"),
    ]


def test_everything() -> None:
    job = changed(
        gpus=2,
        gpu_type="h100_b",
        cpus=4,
        nodes=("n1",),
        reservation="coloc-1",
        comment="-x 'y'",
        time_limit=61.0,
        held=True,
        requeue=True,
        options=("--exclusive", "--constraint=a&b"),
        workdir="/tmp",
        output="/tmp/%j",
    )
    assert arguments(job, 9) == [
        *(
            "sbatch",
            "--parsable",
            "--exclusive",
            "--constraint=a&b",
            "--export=ALL",
            "--export-file=9",
            "--job-name=chat-0",
        ),
        *(
            "--partition=online",
            "--nodes=1",
            "--ntasks-per-node=1",
            "--cpus-per-task=4",
            "--output=/tmp/%j",
            "--requeue",
        ),
        *(
            "--chdir=/tmp",
            "--gres=gpu:h100_b:2",
            "--nodelist=n1",
            "--reservation=coloc-1",
            "--comment=-x 'y'",
            "--time=2",
            "--hold",
        ),
    ]


def test_own_user_needs_no_right() -> None:
    assert not [word for word in arguments(changed(user=getpass.getuser()), 9) if word.startswith("--uid")]


@pytest.mark.parametrize(
    "options",
    [
        ("x",),
        ("-p", "x"),
        ("--uid=0",),
        ("--ui=0",),
        ("--wrap=id",),
        ("--export=ALL",),
        ("--bbf=/etc/shadow",),
        ("--",),
        ("--Uid=0",),
    ],
)
def test_options_that_are_not_for_others(options: tuple[str, ...]) -> None:
    with pytest.raises(SlurmRefused):
        arguments(changed(options=options), 9)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "no-such-user"},
        {"nodes": ("n1,n2",)},
        {"gpus": 1, "gpu_type": "a:8"},
        {"partition": "a b"},
        {"reservation": "-x"},
    ],
)
def test_refused(fields: dict[str, object]) -> None:
    if fields == {"reservation": "-x"}:
        assert "--reservation=-x" in arguments(changed(**fields), 9)  # behind the `=` it is harmless
    else:
        with pytest.raises(SlurmRefused):
            arguments(changed(**fields), 9)


def test_directives_do_nothing_and_text_stays() -> None:
    text = "#!/bin/bash\n# hello\n#SBATCH --bbf=/etc/shadow\n\n#PBS -x\necho 1\n#SBATCH late\n"
    assert script(changed(script=text)).decode() == text.replace("#SBATCH --", "##SBATCH --").replace("#PBS", "##PBS")


def test_a_script_needs_an_interpreter() -> None:
    with pytest.raises(SlurmRefused, match="#!"):
        script(changed(script="true\n"))


def test_environment_is_exact() -> None:
    hostile = {"A": "1,2", "B": "x\ny 'q\" $(id)", "PATH": "/opt/bin"}
    words = dict(item.split("=", 1) for item in environment(changed(environment=hostile)).decode().split("\0") if item)
    assert {key: words[key] for key in hostile} == hostile
    assert set(words) == {*hostile, "HOME", "USER", "LOGNAME", "SHELL", "LANG"}


@pytest.mark.parametrize("bad", [{"A B": "1"}, {"": "1"}, {"A=": "1"}, {"A": "x\0B=2"}])
def test_environment_refuses(bad: dict[str, str]) -> None:
    with pytest.raises(SlurmRefused):
        environment(changed(environment=bad))


def test_only_root_submits_for_others() -> None:
    if os.getuid() != 0:
        with pytest.raises(SlurmRefused, match="only root"):
            arguments(changed(user="daemon"), 9)
        return
    gid = subprocess.run(["id", "-g", "daemon"], capture_output=True, text=True, check=True).stdout.strip()
    assert arguments(changed(user="daemon"), 9)[-1] == f"--gid={gid}"  # else the job would keep root's group
