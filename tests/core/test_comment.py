import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.core.comment import own_key, own_token, parse_comment, parse_request, with_checkpoint
from colocd.core.service import Mode
from colocd.core.view import Checkpoint, Request

seconds = st.none() | st.floats(0, 4e9, allow_nan=False).map(lambda x: float(f"{x:.15g}"))


@given(
    st.text(),
    st.builds(
        Checkpoint,
        signal=st.sampled_from(["USR1", "TERM"]),
        to=st.sampled_from(["batch", "steps", "all"]),
        interval=seconds,
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


def test_own_jobs() -> None:
    assert own_key("x " + own_token("a1:b")) == "a1:b"
    assert own_key("[coloc-own key=]") is None


def test_requests() -> None:
    assert parse_request("x") is None
    assert parse_request("my job [coloc-place v=1]") == Request()
    assert parse_request("[coloc-place v=1 level=NODE mode=best-effort]") == Request(
        level="NODE", mode=Mode.BEST_EFFORT
    )
    assert parse_request("[coloc-place v=1 level=WARP]") is None
    assert parse_request("[coloc-place v=2 level=NODE]") is None
