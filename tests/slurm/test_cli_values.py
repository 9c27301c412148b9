"""Slurm's notations, the cross-check of GPU masks, node states and error classes: pure parts of the adapter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coloc_topology.shape import idx
from colocd.errors import ColocError, SlurmRefused, SlurmUnknown, SlurmUnreachable
from colocd.slurm import details, nodes, values
from colocd.slurm.shell import failure


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10:00", 600.0),
        ("1:00:00", 3600.0),
        ("2-01:00:00", 176400.0),
        ("0:30", 30.0),
        ("365-00:00:00", None),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
    ],
)
def test_limits(text: str, seconds: float | None) -> None:
    assert values.limit(text) == seconds


def test_times_are_utc() -> None:
    assert values.moment("1970-01-02T00:00:01") == 86401.0
    assert values.moment("N/A") is None
    assert values.moment("Unknown") is None


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gres:gpu:2", 2),
        ("gres/gpu:h100:3", 3),
        ("gres/gpu=4", 4),
        ("gres:gpu", 1),
        ("gres:gpu:h100", 1),
        ("gres:gpu:1080:2", 2),
        ("cpu=1,gres/gpu:a=2,gres/gpu:b=1", 3),
        ("gres:gpu:a:2,gres:gpu:b:2,gres:nvme:7", 4),
        ("gres:gpu_mem:80", 0),
        ("N/A", 0),
        ("", 0),
    ],
)
def test_requests(text: str, gpus: int) -> None:
    assert values.gpus_in(text) == gpus


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("gpu:h100:7(IDX:0-5,7)", 0b10111111),
        ("gpu:a:2(IDX:0-1),gpu:b:0(IDX:)", 0b11),
        ("gpu:a:1(IDX:3),gpu:b:2(IDX:6-7)", 0b11001000),
        ("gpu:0(IDX:N/A)", 0),
        ("gpu:h100:0(IDX:N/A),mps:0,nvme:2", 0),
        ("nvme:2(IDX:0-1),gpu:1(IDX:2)", 0b100),
        ("gpu:h100:2(IDX:2-3),shard:h100:4(IDX:0-1,5)", 0b101111),
        ("shard:3(IDX:1)", 0b10),
        ("shard:h100:0(IDX:N/A)", 0),
        ("", 0),
        ("gpu:h100:2", None),
        ("gpu:h100:2(IDX:N/A)", None),
        ("gpu:h100:2(IDX:1)", None),
        ("gpu:h100:2(IDX:3-1)", None),
        ("gpu:a:1(IDX:1),gpu:b:1(IDX:1)", None),
        ("gpu:h100:2(IDX:0-99999)", None),
    ],
)
def test_masks(text: str, mask: int | None) -> None:
    assert values.mask(text) == mask


@given(st.integers(0, (1 << 16) - 1))
def test_every_mask_is_read_back(mask: int) -> None:
    text = f"gpu:h100:{mask.bit_count()}(IDX:{idx(mask) if mask else 'N/A'})"
    assert values.mask(text) == mask


def test_types_follow_the_node() -> None:
    assert values.types_of("gpu:b:2(S:0),gpu:a:1(S:1),nvme:4") == ("b", "b", "a")
    assert values.types_of("gpu:2") == ("", "")
    assert values.types_of("(null)") == ()


@pytest.mark.parametrize(
    "state", ["IDLE", "MIXED", "ALLOCATED", "MIXED+COMPLETING", "IDLE+PLANNED", "IDLE+CLOUD", "IDLE+RESERVED"]
)
def test_up(state: str) -> None:
    assert nodes.is_up(state)


@pytest.mark.parametrize(
    "state",
    [
        *(
            "DOWN",
            "DOWN*",
            "IDLE*",
            "IDLE+DRAIN",
            "MIXED+DRAIN+RESERVED",
            "IDLE+FAIL",
            "ALLOCATED+MAINTENANCE",
            "IDLE+POWERED_DOWN",
        ),
        *(
            "IDLE+CLOUD+POWERING_UP",
            "IDLE+NOT_RESPONDING",
            "DOWN+DYNAMIC_NORM",
            "UNKNOWN",
            "FUTURE",
            "IDLE+REBOOT_REQUESTED",
            "IDLE~",
            "",
        ),
    ],
)
def test_not_up(state: str) -> None:
    assert not nodes.is_up(state)


ONE = "JobId=7 JobName=x NodeList=n[1-2]   Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:h100:2(IDX:0-1)   Nodes=n2 CPU_IDs=0 Mem=0 GRES= \n"


def test_masks_of_a_record() -> None:
    assert details.masks(ONE, ("n1", "n2"), leaving=False) == {"n1": 3}
    assert details.masks(ONE, ("n2",), leaving=True) == {}


@pytest.mark.parametrize(
    "record",
    [
        ONE.replace("JobName=x", "JobName=x Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:h100:2(IDX:4-5) "),
        ONE.replace("JobName=x", "JobName=x Nodes=n3 CPU_IDs=0 Mem=0 GRES= "),
        ONE.replace("(IDX:0-1)", ""),
        ONE.partition("Nodes=n2")[0],
        "",
    ],
)
def test_a_doubtful_record_tells_nothing(record: str) -> None:
    assert details.masks(record, ("n1", "n2"), leaving=False) is None


def test_records_are_cut_at_every_look_alike() -> None:
    text = "JobId=1 JobName=a\nJobId=2 JobName=evil \nJobId=2 JobName=b \n"
    assert {job: len(found) for job, found in details.records(text, {"1", "2"}).items()} == {"1": 1, "2": 2}


def on_n1(*masks: int | None) -> dict[str, tuple[tuple[str, ...], details.Masks | None]]:
    return {
        str(k): (("n1",), None if mask is None else {"n1": mask} if mask else {}) for k, mask in enumerate(masks, 1)
    }


@pytest.mark.parametrize(
    ("masks", "used", "wrong"),
    [
        ((3, 12), 15, set()),
        ((3, 12, 0), 15, set()),
        ((3, 6), 7, {"1", "2"}),
        ((3, 6, 16), 23, {"1", "2"}),
        ((3,), 7, {"1"}),
        ((3, None), 7, set()),
        ((3, None), 4, {"1"}),
        ((3, 4), None, {"1", "2"}),
        ((0,), None, set()),
    ],
)
def test_cross_check(masks: tuple[int | None, ...], used: int | None, wrong: set[str]) -> None:
    assert details.doubtful(on_n1(*masks), {"n1": used}) == wrong


@given(st.lists(st.one_of(st.none(), st.integers(0, 255)), max_size=6), st.integers(0, 255))
def test_what_is_believed_is_consistent(masks: list[int | None], used: int) -> None:
    wrong = details.doubtful(on_n1(*masks), {"n1": used})
    believed = [mask for k, mask in enumerate(masks, 1) if mask and str(k) not in wrong]
    total = 0
    for mask in believed:
        assert not total & mask
        total |= mask
    assert not total & ~used
    assert total == used or wrong or None in masks or not believed


@pytest.mark.parametrize(
    ("said", "reading", "changing"),
    [
        (
            "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
            SlurmUnreachable,
            SlurmUnreachable,
        ),
        (
            "scontrol: error: Munge encode failed: No such file\nUnexpected message received for job 1",
            SlurmUnreachable,
            SlurmUnreachable,
        ),
        ("Unexpected message received for job 1", SlurmUnreachable, SlurmUnknown),
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            SlurmUnreachable,
            SlurmUnknown,
        ),
        ("Unable to contact slurm controller (receive failure)", SlurmUnreachable, SlurmUnknown),
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", SlurmRefused, SlurmRefused),
        ("Job can not be altered now, try again later", SlurmRefused, SlurmRefused),
        ("", SlurmRefused, SlurmRefused),
    ],
)
def test_failures(said: str, reading: type[ColocError], changing: type[ColocError]) -> None:
    assert type(failure("x", 1, said, changing=False)) is reading
    assert type(failure("x", 1, said, changing=True)) is changing


def test_a_killed_command_may_have_done_it() -> None:
    assert isinstance(failure("sbatch", -9, "", changing=True), SlurmUnknown)
    assert isinstance(failure("squeue", -9, "", changing=False), SlurmUnreachable)
