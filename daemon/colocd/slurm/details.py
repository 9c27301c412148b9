"""GPU indices of jobs from `scontrol -d show job`, believed only where nothing a user wrote can have made them up.

scontrol prints job names and comments as they are, so a user can write whole job records into them. A job's own text can
only make its own record ambiguous, and then its GPUs are None; a record that another job's text imitates is read again
alone. Last, the masks of a node are checked against what the node itself says.
"""

import re
from collections.abc import Iterable, Mapping, Set

from colocd.slurm import values

Masks = dict[str, int]
_RECORD = re.compile(r"^JobId=(\d+) ", re.MULTILINE)
_DETAIL = re.compile(r"\bNodes=(\S+) CPU_IDs=\S* Mem=\S* GRES=(\S*)")


def records(text: str, wanted: Set[str]) -> dict[str, list[str]]:
    """The text cut at every line that looks like the start of a job record, by job id; the `wanted` ones only."""
    result: dict[str, list[str]] = {}
    begun, name = 0, ""
    for found in _RECORD.finditer(text):
        if name in wanted:
            result.setdefault(name, []).append(text[begun : found.start()])
        begun, name = found.start(), found[1]
    if name in wanted:
        result.setdefault(name, []).append(text[begun:])
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
    here_by_node: dict[str, dict[str, int]] = {}
    blind: set[str] = set()
    for ref, (nodes, found) in jobs.items():
        for node in nodes:
            here_by_node.setdefault(node, {})
            if found is None:
                blind.add(node)
            else:
                here_by_node[node][ref] = found.get(node, 0)
    for node, here in here_by_node.items():
        total = both = 0
        for mask in here.values():
            both |= total & mask
            total |= mask
        limit = used.get(node)
        if limit is None or (total != limit and node not in blind):
            wrong |= {ref for ref, mask in here.items() if mask}
        else:
            wrong |= {ref for ref, mask in here.items() if mask & (both | ~limit)}
    return wrong
