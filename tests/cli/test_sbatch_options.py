import getopt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coloc_cli.sbatch_options import OWN, SHORT, TAKES_VALUE, read, resolve
from coloc_cli.sbatch_script import directives, is_het, split


@pytest.mark.parametrize(
    ("words", "end", "options"),
    [
        (["s.sh", "-J", "x"], 0, []),
        (["-J", "name", "s.sh"], 2, [("job-name", "name")]),
        (["-Jname", "s.sh"], 1, [("job-name", "name")]),
        (["-J=name", "s.sh"], 1, [("job-name", "=name")]),
        (["-HQJ", "name", "s.sh"], 2, [("hold", None), ("quiet", None), ("job-name", "name")]),
        (["-HJname", "s.sh"], 1, [("hold", None), ("job-name", "name")]),
        (["-koff", "s.sh"], 1, [("no-kill", "off")]),
        (["-k", "off"], 1, [("no-kill", None)]),
        (["--job-name", "name", "s.sh"], 2, [("job-name", "name")]),
        (["--job-name=", "s.sh"], 1, [("job-name", "")]),
        (["--job", "-x", "s.sh"], 2, [("job-name", "-x")]),
        (["--exclusive", "s.sh"], 1, [("exclusive", None)]),
        (["--exclusive=user", "s.sh"], 1, [("exclusive", "user")]),
        (["--nice", "100"], 1, [("nice", None)]),
        (["--wait", "s.sh"], 1, [("wait", None)]),
        (["--spank-thing", "s.sh"], 1, [(None, None)]),
        (["--spank=x", "s.sh"], 1, [(None, "x")]),
        (["-Z", "s.sh"], 1, [(None, None)]),
        (["--", "-J", "x"], 0, []),
        (["-"], 0, []),
        (["--wrap"], 1, [("wrap", None)]),
        (["-J"], 1, [("job-name", None)]),
        (["--tasks", "3", "s.sh"], 2, [("tasks-per-node", "3")]),
        (["--gpus-per", "3", "s.sh"], 2, [(None, "3")]),
        (["--no", "s.sh"], 1, [(None, None)]),
        (["--coloc-int", "5m", "--coloc-dry", "s.sh"], 3, [("coloc-interval", "5m"), ("coloc-dry-run", None)]),
        ([], 0, []),
    ],
)
def test_reading(words: list[str], end: int, options: list[tuple[str | None, str | None]]) -> None:
    line = read(words)
    assert (line.end, [(o.name, o.value) for o in line.options]) == (end, options)
    assert line.rest == end + (words[end : end + 1] == ["--"])


def test_table_is_sound() -> None:
    assert set(SHORT.values()) <= set(TAKES_VALUE)
    assert not set(SHORT.values()) & set(OWN)
    assert len(SHORT) == 34
    assert resolve("") == (None, False)


# What getopt and our reader must agree on: options that take a value or not, no optional values (getopt has none).
_OPTIONAL = {"exclusive", "get-user-env", "nice", "no-kill", "oom-kill-step", "propagate", "requeue", "resv-ports"}
_LONG = sorted(set(TAKES_VALUE) - _OPTIONAL)
_LETTERS = sorted(set(SHORT) - {"k"})
_word = st.one_of(
    st.sampled_from(_LONG).flatmap(lambda name: st.integers(1, len(name)).map(lambda n: "--" + name[:n])),
    st.sampled_from(_LONG).map(lambda name: f"--{name}=v"),
    st.text(st.sampled_from(_LETTERS), min_size=1, max_size=4).map(lambda letters: "-" + letters),
    st.sampled_from(["-", "--", "x", "", "a b", "$(id)"]),
)


@given(st.lists(_word, max_size=8))
def test_reads_as_getopt_does(words: list[str]) -> None:
    # getopt is not told of these, so it would not see that an abbreviation is ambiguous.
    assume(not any(len(w) > 2 and any(o.startswith(w[2:]) for o in _OPTIONAL) for w in words if w.startswith("--")))
    short = "".join(letter + ":" * TAKES_VALUE[SHORT[letter]] for letter in _LETTERS)
    long = [name + "=" * TAKES_VALUE[name] for name in _LONG]
    try:
        options, rest = getopt.getopt(words, short, long)
    except getopt.GetoptError:
        return  # sbatch refuses the line, too
    line = read(words)
    assert words[line.rest :] == rest
    names = [SHORT[name[1:]] if len(name) == 2 else name[2:] for name, _ in options]
    ours = [(o.name, o.value or "") for o in line.options]
    unique = [(name, value) for name, (_, value) in zip(names, options, strict=True)]
    assert [o for o, u in zip(ours, unique, strict=True) if o[0] is not None and o != u] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" -J name --time=5", ["-J", "name", "--time=5"]),
        (' --comment="a b" # rest', ["--comment=a b"]),
        (" --comment='a \" b'x", ['--comment=a " bx']),
        (r" -J a\ b\"c", ["-J", "a", 'b"c']),
        (" a#b c", ["a"]),
        (' "" -J x', []),
        ("\t-J\tx\r", ["-J", "x"]),
        ("", []),
        (r" 'a\'b'", ["a'b"]),
    ],
)
def test_directive_words(text: str, words: list[str]) -> None:
    assert split(text) == words


def test_directives_end_at_the_first_command() -> None:
    script = b"#!/bin/sh\n\n# note\n#SBATCH -J x\n  # more\n#SBATCH -n 2 -N1\n  echo \n#SBATCH -J late\n"
    assert directives(script) == [["-J", "x"], ["-n", "2", "-N1"]]
    assert directives(b"\xff\xfe#!\n#SBATCH -J x\n") == []
    assert directives(b"#SBATCH -J \xff") == [["-J", "\udcff"]]


@pytest.mark.parametrize("line", [b"#SBATCH hetjob", b"#SBATCH packjob -n1", b"#SBATCH  hetjob "])
def test_het_scripts(line: bytes) -> None:
    assert is_het(directives(b"#!/bin/sh\n#SBATCH -n1\n" + line + b"\n#SBATCH -n1\n"))
    assert not is_het(directives(b"#!/bin/sh\n#SBATCH -J hetjob\n"))
