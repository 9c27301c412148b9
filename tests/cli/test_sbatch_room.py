"""Which jobs look too large for their partition, and what coloc-sbatch asks Slurm then."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.stub_sbatch import Call, Sbatch

from coloc_cli.sbatch_options import read
from coloc_cli.sbatch_room import Asked, Kind, asked, kinds, too_large

NODES = kinds("4|16|1000|gpu:h100:8(S:0-1)\n2|64|512000|gpu:a100:4(S:0),gpu:mig:2(S:1),nvme:1\nn/a|x\n")


def request(*words: str, **environ: str) -> Asked:
    return asked(read(words), read([]), environ)


def test_what_sinfo_says() -> None:
    assert [Kind(4, 16, 1000.0, {"h100": 8}), Kind(2, 64, 512000.0, {"a100": 4, "mig": 2})] == NODES
    assert kinds("3|16+|1000+|(null)\n1|8|1|gpu:2,gpu:2\n") == [Kind(3, 16, 1000.0, {}), Kind(1, 8, 1.0, {"": 4})]
    assert kinds("") == []


@pytest.mark.parametrize(
    ("words", "large"),
    [
        ((), False),
        (("--gpus-per-node=8",), False),
        (("--gpus-per-node=9",), True),
        (("--gpus-per-node", "h100:8", "-N4"), False),
        (("--gpus-per-node=h100:8", "-N5"), True),
        (("--gpus-per-node=H100:8", "-N4-9"), False),
        (("--gres=gpu:a100:4,gpu:mig:2,nvme:9",), False),
        (("--gres=gpu:a100:5",), True),
        (("--gres=gpu:nosuch",), True),
        (("--gres=gres/gpu:9",), True),
        (("--gres=gpu", "-N6"), False),
        (("-N7",), True),
        (("-G44",), False),
        (("-G45",), True),
        (("--gpus=h100:33",), True),
        (("-c64",), False),
        (("-c65",), True),
        (("-n192",), False),
        (("-n193",), True),
        (("-n97", "-c2"), True),
        (("--mem=500G",), False),
        (("--mem=1T",), True),
        (("--mem=0",), False),
        (("--mem=lots", "-Nmany", "--gpus-per-node=all", "-c?"), False),
    ],
)
def test_too_large(words: tuple[str, ...], large: bool) -> None:
    assert too_large(request(*words), NODES) is large
    assert not too_large(request(*words), []), "nothing is known of the nodes"


def test_where_it_is_asked_for() -> None:
    """The command line, else the environment, else the script."""
    inner = read(["--gpus-per-node=9", "-N9"])
    assert asked(read(["-N2"]), inner, {"SBATCH_GPUS_PER_NODE": "3"}) == Asked(nodes=2, per_node=((None, 3),))
    assert asked(read([]), inner, {}) == Asked(nodes=9, per_node=((None, 9),))


REFUSES = """
if "--hold" not in words:
    sys.stderr.write("sbatch: error: Batch job submission failed: {said}\\n")
    sys.exit(1)
"""


@pytest.fixture
def slurm(tmp_path: Path, sbatch: Sbatch) -> Callable[..., Call]:
    """The stub, with a sinfo beside it; `said`: what sbatch refuses a question with (None: it takes it)."""
    folder = tmp_path / "bin"
    plain = (folder / "sbatch").read_text()

    def call(
        *words: str,
        nodes: str = "echo '4|16|1000|gpu:h100:8'",
        said: str | None = None,
        cancel: str = f'echo "$@" >>{tmp_path}/cancelled',
        **more: object,
    ) -> Call:
        refuses = "" if said is None else REFUSES.format(said=said)
        begin = 'sys.stderr.write("sbatch: a word'
        (folder / "sbatch").write_text(plain.replace(begin, refuses + begin))
        for name, text in (("sinfo", nodes), ("scontrol", "true"), ("scancel", cancel)):
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        found: Call = sbatch(*words, **more)
        return found

    return call


NO = "Requested node configuration is not available"


def test_one_call_where_it_fits(slurm: Callable[..., Call]) -> None:
    done = slurm("--gpus-per-node=8", "--wrap=true", said=NO)
    assert (done.code, done.calls) == (0, 1)
    assert "--hold" in done.argv


def test_refused(slurm: Callable[..., Call], tmp_path: Path) -> None:
    done = slurm("--gpus-per-node=9", "-a1-500", "--wrap=true", said=NO)
    assert (done.code, done.out, done.err) == (1, "", f"sbatch: error: Batch job submission failed: {NO}\n")
    assert done.calls == 1
    assert done.argv[-2:] == ["--parsable", "--array=0"]
    assert {"--requeue", "--partition=batch", "--begin=now+365days"} <= set(done.argv)
    assert not (tmp_path / "cancelled").exists()


def test_slurm_thinks_otherwise(slurm: Callable[..., Call], tmp_path: Path) -> None:
    """The question is cancelled, and the job submitted as usual; also where it is refused for another reason."""
    done = slurm("--gpus-per-node=9", "--wrap=true")
    assert (done.code, done.calls) == (0, 2)
    assert "Submitted batch job 17" in (tmp_path / "cancelled").read_text()
    other = slurm("--gpus-per-node=9", "--wrap=true", said="Job violates accounting/QOS policy")
    assert (other.code, other.calls, "--hold" in other.argv) == (0, 2, False)


@pytest.mark.parametrize("nodes", ["exit 1", "true", "echo nonsense", "echo '4|16|1000|gpu:h100:8'; exit 3"])
def test_nothing_is_known_of_the_nodes(slurm: Callable[..., Call], nodes: str) -> None:
    done = slurm("--gpus-per-node=9", "--wrap=true", nodes=nodes, said=NO)
    assert (done.code, done.calls) == (0, 1)


@pytest.mark.parametrize("words", [("-H",), ("-W",), ("--test-only",), ("-Mother",), ("-pelsewhere",)])
def test_no_question(slurm: Callable[..., Call], words: tuple[str, ...]) -> None:
    """sbatch itself would not look (-H), does (another partition, --test-only), or waits for the end of the question."""
    done = slurm(*words, "--gpus-per-node=9", "--wrap=true")
    assert done.calls == 1
    assert "--begin=now+365days" not in done.argv


def test_a_question_that_stays(slurm: Callable[..., Call]) -> None:
    done = slurm("--gpus-per-node=9", "--wrap=true", cancel="exit 1")
    assert (done.code, done.calls) == (0, 2)
    (remark,) = done.remarks
    assert "only asked Slurm whether a node is large enough, and could not be taken back: `scancel " in remark


def test_the_script_goes_along(slurm: Callable[..., Call], script: Callable[[str], str]) -> None:
    path = script("#SBATCH --gpus-per-node=9\ntrue\n")
    done = slurm(path, "a", said=NO)
    assert (done.code, done.calls, done.argv[-2:]) == (1, 1, [path, "a"])
    done = slurm("--coloc-preset=program", path, "a", said=NO)
    assert (done.code, done.calls, done.argv[-1]) == (1, 1, "a")
    assert "#SBATCH --gpus-per-node=9" in (done.script or "")
    done = slurm(stdin=b"#!/bin/sh\n#SBATCH --gpus-per-node=9\n", said=NO)
    assert (done.code, done.stdin) == (1, "#!/bin/sh\n#SBATCH --gpus-per-node=9\n")
