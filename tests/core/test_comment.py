import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.core.comment import own_key, own_token, parse_comment, parse_request, request_problem, with_checkpoint
from colocd.core.service import Closeness, Mode
from colocd.core.view import Checkpoint, Request

seconds = st.none() | st.floats(0, 4e9, allow_nan=False).map(lambda x: float(f"{x:.15g}"))


@given(
    st.text(),
    st.builds(
        Checkpoint,
        signal=st.sampled_from(["USR1", "TERM"]),
        to=st.sampled_from(["batch", "steps", "all"]),
        interval=seconds.filter(lambda told: told != 0),
        cost=seconds,
        restart=seconds,
        grace=seconds,
        saved=seconds,
        yielded=seconds,
        deadline=seconds,
        rank=st.sampled_from([None, "low", "a-1.b_2"]),
        hold=st.sampled_from([None, "user"]),
    ),
)
def test_mark_survives_any_user_comment(comment: str, facts: Checkpoint) -> None:
    marked = with_checkpoint(comment, facts)
    assert parse_comment(marked) == facts
    assert with_checkpoint(marked, facts) == marked


@pytest.mark.parametrize(
    "text", ["", "hello", "[coloc]", "[coloc v=2 signal=USR1]", "[coloc v=1 signal=USR1", "[coloc v=1  x]"]
)
def test_no_mark_is_none(text: str) -> None:
    assert parse_comment(text) is None


def test_nonsense_facts_are_none() -> None:
    facts = parse_comment(
        "[coloc v=1 signal=KILL to=world interval=-1 cost=nan restart=inf saved=x deadline=? class=$(id) hold=me]"
    )
    assert facts == Checkpoint()
    assert parse_comment("[coloc v=1 interval=0]") == Checkpoint(), "no program saves without a pause"


def test_own_jobs() -> None:
    assert own_key("x " + own_token("a1:b")) == "a1:b"
    assert own_key("[coloc-own key=]") is None


def test_requests() -> None:
    assert parse_request("x") is None
    assert parse_request("my job [coloc-place v=1]") == Request()
    assert parse_request("[coloc-place v=1 level=NODE mode=best-effort]") == Request(
        level="NODE", mode=Mode.BEST_EFFORT
    )
    assert parse_request("[coloc-place  v=1 near=leaf level=node] mine") == Request(level="NODE", near=Closeness.LEAF)
    assert request_problem("[coloc-place v=1 level=node]") is None
    assert request_problem("I like the coloc placement") is None


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        ("[coloc-place v=1 level=WARP]", "level=WARP is none of NVLINK, NVLINK_PARTIAL, PIX, PXB, PHB, NODE, SYS"),
        ("[coloc-place v=1 mode=strict]", "mode=strict is none of guaranteed, best-effort"),
        ("[coloc-place v=1 near=rack]", "near=rack is none of nvlink, leaf, block, any"),
        ("[coloc-place v=1 lvel=NODE]", "'lvel=NODE' is none of v=1, level=, mode= and near="),
        ("[coloc-place v=1 level = NODE]", "'level' is none of v=1"),
        ("[coloc-place v=1 level=NODE level=SYS]", "level stands in it twice"),
        ("[coloc-place v=2 level=NODE]", "v=1 has to stand in it"),
        ("[coloc-place level=NODE]", "v=1 has to stand in it"),
        ("[coloc-place v=1 level=NODE", "its ] is missing"),
        ("[coloc-place v=1] [coloc-place v=1]", "there are two of them"),
        ("coloc-place v=1", "it is not written like [coloc-place v=1 level=NVLINK]"),
        ("[coloc_place v=1]", "it is not written like"),
        ("[COLOC-PLACE v=1]", "it is not written like"),
        ("[coloc places v=1]", "it is not written like"),
    ],
)
def test_requests_that_cannot_be_read(comment: str, told: str) -> None:
    """Such a job is placed by Slurm alone; what is wrong is told."""
    assert parse_request(comment) is None
    assert (request_problem(comment) or "").startswith(told)


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["[coloc-place", " v=1", " level=", "NVLINK", "]", "=", " "])).map("".join)
)
def test_any_comment_is_a_request_or_a_problem_or_neither(comment: str) -> None:
    request, problem = parse_request(comment), request_problem(comment)
    assert request is None or problem is None
    if "[coloc-place " in comment:
        assert (request is None) != (problem is None)
