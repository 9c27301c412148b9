"""What no node can hold is refused at once, in sbatch's own words, although coloc's jobs are submitted held.

Of a held job Slurm does not say so, and `sbatch --test-only` says it also of jobs that fit when a drained or reserved node is
back. So a job that looks too large for its partition (`sinfo`) is submitted once without the hold, with a begin time in a
year: Slurm judges it as any other job. If it refuses it, that is the answer; else the question is cancelled, and the job is
submitted as usual. Whatever fails here leaves everything to the submission itself.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coloc_cli.sbatch_options import CommandLine

TIMEOUT = 10.0
"""Seconds for each command that only looks."""
REFUSAL = "Requested node configuration is not available"
_GPU = re.compile(r"(?:gres[:/])?gpu(?::([^:,(]*[^:,(0-9][^:,(]*))?(?::(\d+))?(?:\([^)]*\))?")
_COUNT = re.compile(r"(?:([^:,]*[^:,0-9][^:,]*):)?(\d+)")
_MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_MEGABYTES = {"K": 1 / 1024, "M": 1.0, "": 1.0, "G": 1024.0, "T": 1024.0**2}
Gpus = tuple[tuple[str | None, int], ...]
"""Counts of GPUs by type; None: of any type."""


class Asked(NamedTuple):
    """What a job asks of its nodes, as far as it matters here; what is not told is the least there is."""

    nodes: int = 1
    per_node: Gpus = ()
    total: Gpus = ()
    cpus: int = 1
    tasks: int = 1
    memory: float = 0.0


class Kind(NamedTuple):
    """Nodes that are alike: how many, and CPUs, MB and GPUs by type of each."""

    size: int
    cpus: int
    memory: float
    gpus: Mapping[str, int]


class Question(NamedTuple):
    """A job about which Slurm can be asked: the partitions, what it asks, and sbatch's words without the hold.

    `stream_at`: see `Submission`.
    """

    partition: str
    asked: Asked
    words: list[str]
    stream_at: int | None


def asked(line: CommandLine, inner: CommandLine, environ: Mapping[str, str]) -> Asked:
    """What the command line, else sbatch's environment, else the script asks for."""

    def told(name: str) -> str:
        variable = "SBATCH_" + name.upper().replace("-", "_")
        return line.last(name) or environ.get(variable) or inner.last(name) or ""

    return Asked(
        nodes=_number(told("nodes").partition("-")[0]) or 1,
        per_node=_counts(told("gpus-per-node")) or _gpus(told("gres")),
        total=_counts(told("gpus")),
        cpus=_number(told("cpus-per-task")) or 1,
        tasks=_number(told("ntasks")) or 1,
        memory=_memory(told("mem")),
    )


def kinds(text: str) -> list[Kind]:
    """The answer of `sinfo -h -e -o '%D|%c|%m|%G'`; lines that cannot be read are left out."""
    found = []
    for row in text.splitlines():
        count, cpus, memory, gres = (*row.strip().split("|", 3), "", "", "")[:4]
        if count.isdigit():
            gpus: dict[str, int] = {}
            for kind, number in _gpus(gres):
                gpus[kind or ""] = gpus.get(kind or "", 0) + number
            found.append(Kind(int(count), _number(cpus.rstrip("+")) or 0, _memory(memory.rstrip("+")), gpus))
    return found


def too_large(job: Asked, nodes: Sequence[Kind]) -> bool:
    """Whether the nodes seem to be too few or too small for the job, all of them empty and up. No nodes known: no."""
    if not nodes:
        return False
    able = [
        kind
        for kind in nodes
        if kind.cpus >= job.cpus
        and kind.memory >= job.memory
        and all(_have(kind, name) >= count for name, count in job.per_node)
    ]
    return (
        sum(kind.size for kind in able) < job.nodes
        or any(sum(k.size * _have(k, name) for k in nodes) < count for name, count in job.total)
        or sum(k.size * k.cpus for k in nodes) < job.tasks * job.cpus
    )


def refusal(question: Question, script: bytes | None, program: str, environ: Mapping[str, str]) -> bytes | None:
    """What sbatch says of a job that no node can hold; None: some can, or it could not be found out.

    `program`: sbatch; sinfo and scancel stand beside it. A question that cannot be taken back is said on stderr by the caller
    (`Leftover`).
    """
    folder = os.path.dirname(program)
    seen = _run([f"{folder}/sinfo", "-h", "-e", "-p", question.partition, "-o", "%D|%c|%m|%G"], environ)
    if seen is None or seen[0] or not too_large(question.asked, kinds(seen[1].decode(errors="replace"))):
        return None
    words = [program, *question.words[1:]]
    handle = None
    if script is not None and question.stream_at is not None:
        handle = os.memfd_create("script")
        os.write(handle, script)
        words[question.stream_at] = f"/proc/self/fd/{handle}"
    try:
        done = _run(words, environ, b"" if handle is not None else script, handle)
    finally:
        if handle is not None:
            os.close(handle)
    if done is None:
        return None
    code, out, said = done
    if code:
        return said if REFUSAL.encode() in said else None
    ref = out.decode(errors="replace").strip().partition(";")[0]
    # sbatch adds up mail types from the command line and the script: nobody shall get mail of the question's end.
    _run([f"{folder}/scontrol", "update", f"JobId={ref}", "MailType=NONE"], environ)
    gone = _run([f"{folder}/scancel", ref], environ)
    if gone is None or gone[0]:
        raise Leftover(ref)
    return None


class Leftover(Exception):
    """A question to Slurm that could not be cancelled: the job `ref`, which would start in a year."""

    def __init__(self, ref: str) -> None:
        super().__init__(ref)
        self.ref = ref


def question_words(words: Sequence[str], end: int, array: bool) -> list[str]:
    """Words that make a submission a question: it cannot start, and is one task. `end`: where the options end."""
    ours = ["--begin=now+365days", "--parsable", *(["--array=0"] if array else [])]
    return [*words[:end], *ours, *words[end:]]


def _run(
    words: Sequence[str], environ: Mapping[str, str], text: bytes | None = None, handle: int | None = None
) -> tuple[int, bytes, bytes] | None:
    """Exit code, output and errors of a command; None: it did not run, or not to its end in time."""
    import subprocess  # 10 ms that --help and a dry run do not need

    try:
        done = subprocess.run(
            words,
            input=text or b"",  # never the caller's own stdin
            capture_output=True,
            env=dict(environ),
            timeout=TIMEOUT,
            pass_fds=() if handle is None else (handle,),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode, done.stdout, done.stderr


def _have(kind: Kind, name: str | None) -> int:
    return sum(n for have, n in kind.gpus.items() if name is None or have.lower() == name.lower())


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _counts(text: str) -> Gpus:
    """`4`, `h100:4`, `a:1,b:1`."""
    found = [_COUNT.fullmatch(part.strip()) for part in text.split(",")]
    return tuple((match[1], int(match[2])) for match in found if match)


def _gpus(text: str) -> Gpus:
    """The GPUs in `gpu:h100:2(S:0-1),nvme:1`; `gpu` alone is one."""
    found = [_GPU.fullmatch(part) for part in re.split(r",(?![^(]*\))", text)]
    return tuple((match[1], int(match[2] or 1)) for match in found if match)


def _memory(text: str) -> float:
    match = _MEMORY.fullmatch(text.strip())
    return 0.0 if match is None else int(match[1]) * _MEGABYTES[match[2].upper()]
