"""Which sbatch options a service may bring along, on the command line or in `#SBATCH` lines of its script. Pure."""

import shlex

OWN = frozenset(
    [
        "array",
        "begin",
        "clusters",
        "comment",
        "cpus-per-gpu",
        "cpus-per-task",
        "deadline",
        "dependency",
        "exclude",
        "exclusive",
        "export",
        "export-file",
        "gid",
        "gpus",
        "gpus-per-node",
        "gpus-per-socket",
        "gpus-per-task",
        "gres",
        "gres-flags",
        "help",
        "hold",
        "immediate",
        "job-name",
        "no-requeue",
        "nodefile",
        "nodelist",
        "nodes",
        "ntasks-per-gpu",
        "oversubscribe",
        "parsable",
        "partition",
        "requeue",
        "reservation",
        "sockets-per-node",
        "test-only",
        "tres-per-job",
        "tres-per-node",
        "tres-per-socket",
        "tres-per-task",
        "uid",
        "usage",
        "version",
        "wait",
        "wrap",
    ]
)
"""Long names that coloc sets itself, or that would change what it asks for (where, when, how many, as whom)."""

_SHORT = {
    "J": "job-name",
    "p": "partition",
    "G": "gpus",
    "N": "nodes",
    "w": "nodelist",
    "x": "exclude",
    "F": "nodefile",
    "a": "array",
    "c": "cpus-per-task",
    "d": "dependency",
    "b": "begin",
    "M": "clusters",
    "H": "hold",
    "I": "immediate",
    "W": "wait",
    "V": "version",
    "h": "help",
    "s": "oversubscribe",
}
_SHORT_FLAGS = "HIKOQRVWehkstuv"
"""Short options that can stand before others in one word (`-QH`); wider than sbatch's own list, to be on the safe side."""
_FLAGS = frozenset(
    [
        "contiguous",
        "disable-stdout-job-summary",
        "get-user-env",
        "ignore-pbs",
        "nice",
        "no-kill",
        "oom-kill-step",
        "overcommit",
        "propagate",
        "quiet",
        "reboot",
        "spread-job",
        "stepmgr",
        "use-min-nodes",
        "verbose",
    ]
)
"""Long options that need no `=value`."""


def option_reason(word: str) -> str | None:
    """Say why one word of `sbatch_options` is refused; None: it is fine.

    Only long options in one word are taken: then no word can be read as another option's value or as the script.
    """
    if not word.startswith("--") or word == "--" or any(ord(char) < 32 for char in word):
        return f"must be a long option in one word, like --account=lab, not {word!r:.60}"
    name, equals, _ = word[2:].partition("=")
    own = _own(name)
    if own is not None:
        return f"{word!r:.60} is not allowed: coloc sets --{own} itself"
    if not equals and name not in _FLAGS:
        return f"{word!r:.60} needs its value in the same word: --{name}=value"
    return None


def script_reason(script: str) -> tuple[int, str] | None:
    """Find the first `#SBATCH` line that fights with coloc: its line in the script (from 1) and the reason."""
    for number, line in enumerate(script.split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            return None  # sbatch reads no further than the first command
        if not line.startswith("#SBATCH"):
            continue
        try:
            words = shlex.split(line[len("#SBATCH") :], comments=True)
        except ValueError:
            return number, "has an #SBATCH line with an unclosed quote"
        for word in words:
            if word in ("hetjob", "packjob"):
                return number, "makes a heterogeneous job; a replica is one job on one node"
            own = _own(word[2:].partition("=")[0]) if word.startswith("--") else _own_short(word)
            if own is not None:
                return number, f"has the option {word!r:.60}, but coloc sets --{own} itself"
    return None


def _own(name: str) -> str | None:
    """The option of coloc's own that `name` is or abbreviates (getopt takes any unambiguous beginning)."""
    if name in OWN:
        return name
    return min((own for own in OWN if name and own.startswith(name)), default=None)


def _own_short(word: str) -> str | None:
    if not word.startswith("-"):
        return None
    for letter in word[1:]:
        if letter in _SHORT:
            return _SHORT[letter]
        if letter not in _SHORT_FLAGS:
            return None  # the rest of the word is this option's value
    return None
