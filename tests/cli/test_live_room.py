"""coloc-sbatch against a real Slurm: what no node can hold is refused as sbatch refuses it, and nothing else."""

import pytest
from tests.cli.conftest import Submit, facts, job_id

from colocd.testcluster import PrivateCluster

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize(
    "words",
    [
        ("--gpus-per-node=9",),
        ("--gres=gpu:nosuch:1",),
        ("--gpus=99", "--dependency=singleton"),
        ("--mem=900T", "--begin=now+1hour"),
        ("--array=1-1000", "--gpus-per-node=9"),
    ],
)
def test_what_no_node_can_hold_is_refused(
    clean_cluster: PrivateCluster, submit: Submit, words: tuple[str, ...]
) -> None:
    """In sbatch's own words and with its exit code; and nothing of it waits afterwards."""
    script = "#!/bin/sh\ntrue\n"
    plain = clean_cluster.run("sbatch", "--requeue", "--partition=batch", *words, text=script, check=False)
    done = submit(*words, stdin=script)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout) == (1, "")
    assert done.stderr == plain.stderr
    assert "Requested node configuration is not available" in done.stderr
    assert clean_cluster.run("squeue", "-h").stdout == ""


def test_what_fits_later_is_not_refused(clean_cluster: PrivateCluster, submit: Submit) -> None:
    """Nodes that are drained, reserved or full now, and what this Slurm itself lets wait: accepted, once."""
    clean_cluster.run("scontrol", "update", "nodename=n[1-4]", "state=drain", "reason=test")
    refs = [job_id(submit(*words, "--wrap=true")) for words in ((), ("-wn1",), ("-N4", "--gpus-per-node=8"))]
    # Here sinfo knows too few nodes; releases differ in whether they let such a job wait.
    plain = clean_cluster.run("sbatch", "--partition=batch", "-N5", "--mail-type=ALL", "--wrap=true", check=False)
    done = submit("-N5", "--mail-type=ALL", "--wrap=true")
    assert done.returncode == plain.returncode
    if not plain.returncode:
        clean_cluster.run("scancel", plain.stdout.split()[-1])
        refs.append(job_id(done))
        asked = str(int(refs[-1]) - 1)
        job = facts(clean_cluster, asked)
        assert (job["JobState"], job.get("MailType", "NONE")) == ("CANCELLED", "NONE"), "the question is gone, quietly"
    waiting = clean_cluster.run("squeue", "-h", "-o", "%i %r").stdout.split()
    assert sorted(waiting[::2], key=int) == refs
    assert set(waiting[1::2]) == {"JobHeldUser"}


def test_the_question_takes_the_script_along(clean_cluster: PrivateCluster, submit: Submit) -> None:
    """A file, a file with a preset around it, stdin; with #SBATCH lines that ask too much."""
    text = "#!/bin/sh\n#SBATCH --gpus-per-node=9 -a 1-3\ntrue\n"
    script = clean_cluster.work / "large.sh"
    script.write_text(text)
    for words, given in ((str(script), "a b"), ""), (("--coloc-preset=program", str(script)), ""), ((), text):
        done = submit(*words, stdin=given)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert "Requested node configuration is not available" in done.stderr
    assert job_id(submit("--gpus-per-node=1", str(script))), "the command line asks for less"
