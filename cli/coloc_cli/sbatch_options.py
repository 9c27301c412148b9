"""sbatch's options, enough to read a command line as getopt_long does: which options take the next word.

The table is the union of 22.05, 24.11 and 26.05, read from the option tables inside the three releases' libraries. An option
that is not in it (a SPANK plugin's) is passed on unchanged and taken for one without a separate value.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

_VALUE = """account acctg-freq array autocomplete batch bb bbf begin chdir cluster cluster-constraint clusters comment constraint
container container-id container-type context core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline
delay-boot dependency distribution error exclude export export-file extra extra-node-info gid gpu-bind gpu-freq gpus
gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep licenses mail-type
mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mem-update mincpus network nodefile nodelist nodes ntasks
ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket ntasks-per-tres open-mode output partition power prefer
priority profile qos reservation resources segment signal sockets-per-node switches tasks-per-node thread-spec
threads-per-core time time-min tmp tres-bind tres-per-task uid wait-all-nodes wckey wrap"""
_NO_VALUE = """consolidate-segments contiguous exclusive external get-user-env help hold ignore-pbs nice no-kill no-requeue
oom-kill-step overcommit oversubscribe parsable propagate quiet reboot requeue resv-ports spread-job spread-segments stepmgr
test-only usage use-min-nodes verbose version wait"""
"""Some of these take a value after `=` (--exclusive=user); none takes the next word."""
OWN = tuple(
    f"coloc-{name}"
    for name in (
        *(
            "ack",
            "checkpoint",
            "class",
            "cost",
            "deadline",
            "dry-run",
            "files",
            "grace",
            "interval",
            "preset",
            "restart",
        ),
        *("resume", "resume-arg", "signal", "to"),
    )
)

TAKES_VALUE: dict[str, bool] = dict.fromkeys(_VALUE.split(), True) | dict.fromkeys(_NO_VALUE.split(), False)
TAKES_VALUE |= {name: name != "coloc-dry-run" for name in OWN}
_SHORT = """A:account a:array b:begin B:extra-node-info C:constraint c:cpus-per-task D:chdir d:dependency e:error F:nodefile
G:gpus h:help H:hold i:input J:job-name k:no-kill L:licenses M:clusters m:distribution N:nodes n:ntasks O:overcommit
o:output p:partition Q:quiet q:qos S:core-spec s:oversubscribe t:time V:version v:verbose w:nodelist W:wait x:exclude"""
SHORT = {pair[0]: pair[2:] for pair in _SHORT.split()}


class Option(NamedTuple):
    """One option as given. `name` None: unknown or ambiguous. `value` None: none given. It is the
    `width` words from `first` on."""

    name: str | None
    value: str | None
    first: int
    width: int


class CommandLine(NamedTuple):
    """A command line, read. `end` is the first word that is no option (`--` counts); `rest` where script and arguments are."""

    options: tuple[Option, ...]
    end: int
    rest: int

    def last(self, *names: str) -> str | None:
        """Value of the option among `names` that was given last, as sbatch takes it; None: not given."""
        return next((o.value for o in reversed(self.options) if o.name in names and o.value is not None), None)

    def has(self, *names: str) -> bool:
        """Whether one of these options was given."""
        return any(o.name in names for o in self.options)


def read(words: Sequence[str]) -> CommandLine:
    """Read words (without the program's name) up to the first that is no option, as sbatch does."""
    found: list[Option] = []
    i = 0
    while i < len(words):
        word = words[i]
        if word == "--":
            return CommandLine(tuple(found), i, i + 1)
        if word == "-" or not word.startswith("-"):
            break
        options = [_long(words, i)] if word.startswith("--") else list(_cluster(words, i))
        found += options
        i += max(option.width for option in options)
    return CommandLine(tuple(found), i, i)


def resolve(given: str) -> tuple[str | None, bool]:
    """The option that `--given` means, and whether it takes the next word; prefixes as getopt_long takes them."""
    if given in TAKES_VALUE:
        return given, TAKES_VALUE[given]
    hits = [name for name in TAKES_VALUE if name.startswith(given)] if given else []
    if len(hits) == 1:
        return hits[0], TAKES_VALUE[hits[0]]
    # Ambiguous: sbatch refuses it, or knows only one of them; where all agree, the script is found in any case.
    return None, bool(hits) and all(TAKES_VALUE[name] for name in hits)


def _long(words: Sequence[str], i: int) -> Option:
    given, equals, value = words[i][2:].partition("=")
    name, takes = resolve(given)
    if equals:
        return Option(name, value, i, 1)
    if takes and i + 1 < len(words):
        return Option(name, words[i + 1], i, 2)
    return Option(name, None, i, 1)


def _cluster(words: Sequence[str], i: int) -> Iterator[Option]:
    letters = words[i][1:]
    for n, letter in enumerate(letters, 1):
        name = SHORT.get(letter)
        if name == "no-kill":  # -koff: an optional value, only in the same word
            yield Option(name, letters[n:] or None, i, 1)
            return
        if name is not None and TAKES_VALUE[name]:
            if letters[n:]:
                yield Option(name, letters[n:], i, 1)
            else:
                yield Option(name, words[i + 1] if i + 1 < len(words) else None, i, min(2, len(words) - i))
            return
        yield Option(name, None, i, 1)
