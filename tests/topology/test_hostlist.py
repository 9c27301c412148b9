import pytest
from hypothesis import given
from hypothesis import strategies as st

from coloc_topology.cpulist import ranges
from coloc_topology.errors import TopologyError
from coloc_topology.hostlist import MAX_NAMES, expand, fold

NAMES = st.from_regex(r"[a-z]{0,3}[0-9]{0,3}[-.a-z]{0,2}[0-9]{1,3}[a-z]{0,1}|[a-z]{1,4}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ["n1"]),
        ("n[1-4,07],gpu-a[01-02]b", ["n1", "n2", "n3", "n4", "n07", "gpu-a01b", "gpu-a02b"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("/dev/nvidia[0-1],/dev/nvidia3", ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia3"]),
        ("switch.2.[1-2]", ["switch.2.1", "switch.2.2"]),
    ],
)
def test_expand(text: str, names: list[str]) -> None:
    assert list(expand(text)) == names


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "character 1: a name is missing"),
        ("n1,,n2", "character 4: a name is missing"),
        ("n[1-2", "character 2: the bracket is not closed"),
        ("n1]", "character 3: ']' is not allowed here"),
        ("n[3-1]", "character 3: the range 3-1 runs backwards"),
        ("n[1,x]", "character 5: 'x' is no number"),
        ("n[]", "'' is no number"),
        ("n 1", "' ' is not allowed here"),
        ("n[1-99999999]", "more than 65536 names"),
        ("n[0-999][0-999]", "more than 65536 names"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(TopologyError) as error:
        expand(text)
    assert reason in str(error.value)


def test_place_in_the_file() -> None:
    with pytest.raises(TopologyError) as error:
        expand("n[3-1]", 7, 10)
    assert (error.value.line, error.value.column) == (7, 12)


def test_largest() -> None:
    assert len(expand(f"n[1-{MAX_NAMES}]")) == MAX_NAMES


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["n1"], "n1"),
        (["n3", "n1", "n2", "n2"], "n[1-3]"),
        (["n9", "n10", "n07"], "n[07,9-10]"),
        (["n08", "n09", "n10", "n11"], "n[08-11]"),
        (["login", "a01b", "a02b"], "a[01-02]b,login"),
        (["r1n1", "r1n2", "r2n1"], "r1n[1-2],r2n1"),
        (["n1", "n01", "n2", "n02"], "n[1-2,01-02]"),
    ],
)
def test_fold(names: list[str], text: str) -> None:
    assert fold(names) == text


@given(st.sets(NAMES, max_size=40))
def test_there_and_back(names: set[str]) -> None:
    text = fold(names)
    assert set(expand(text) if names else ()) == names
    assert len(expand(text) if names else ()) == len(names)


@given(st.text(alphabet="n1-9[],0 ab\u0661\n", max_size=20))
def test_nothing_else_comes_out(text: str) -> None:
    try:
        expand(text)
    except TopologyError:
        return
    assert fold(expand(text))


def test_no_host_list_name() -> None:
    with pytest.raises(TopologyError, match="cannot stand"):
        fold(["n[1"])


def test_cpu_lists() -> None:
    assert ranges("4-7,0-3,16") == ((0, 7), (16, 16))
    assert ranges("7-4") is None
    assert ranges("N/A") is None
    assert ranges("") is None
