"""GPU indices of jobs from `scontrol -d show job`, believed only where nothing a user wrote can have made them up.

scontrol prints job names and comments as they are, so a user can write whole job records into them. A job's own text can
only make its own record ambiguous, and then its GPUs are None; a record that another job's text imitates is read again
alone. Last, the masks of a node are checked against what the node itself says.
"""

import re
from collections.abc import Iterable, Mapping

from colocd.slurm import values

Masks = dict[str, int]
_RECORD = re.compile(r"^JobId=(\d+) ", re.MULTILINE)
_DETAIL = re.compile(r"\bNodes=(\S+) CPU_IDs=\S* Mem=\S* GRES=(\S*)")


def records(text: str) -> dict[str, list[str]]:
    """The text cut at every line that looks like the start of a job record, by job id."""
    starts = [*_RECORD.finditer(text)]
    ends = [*(found.start() for found in starts[1:]), len(text)]
    result: dict[str, list[str]] = {}
    for found, end in zip(starts, ends, strict=True):
        result.setdefault(found[1], []).append(text[found.start() : end])
    return result


def masks(record: str, nodes: Iterable[str], *, leaving: bool) -> Masks | None:
    """GPUs of one job on its `nodes` (from squeue), from its record; None: missing, ambiguous or unreadable.

    `leaving`: the job is completing, and nodes that are done with it may still be in its record.
    """
    found: Masks = {}
    for hosts, gres in _DETAIL.findall(record):
        mask = values.mask(gres)
        for node in values.names(hosts):
            if mask is None or node in found:
                return None
            found[node] = mask
    here = set(nodes)
    if not here <= found.keys() or (found.keys() != here and not leaving):
        return None
    return {node: mask for node, mask in found.items() if node in here and mask}


def doubtful(jobs: Mapping[str, tuple[tuple[str, ...], Masks | None]], used: Mapping[str, int | None]) -> set[str]:
    """Jobs whose masks cannot be true. `jobs`: where each runs, and its masks; `used`: what each node says of itself.

    On each node the masks may not overlap, must lie within what is used there, and must add up to it unless a job there
    is unreadable.
    """
    wrong: set[str] = set()
    for node in {node for nodes, _ in jobs.values() for node in nodes}:
        here = {ref: found.get(node, 0) for ref, (nodes, found) in jobs.items() if node in nodes and found is not None}
        blind = any(node in nodes and found is None for nodes, found in jobs.values())
        total = both = 0
        for mask in here.values():
            both |= total & mask
            total |= mask
        limit = used.get(node)
        if limit is None or (total != limit and not blind):
            wrong |= {ref for ref, mask in here.items() if mask}
        else:
            wrong |= {ref for ref, mask in here.items() if mask & (both | ~limit)}
    return wrong
