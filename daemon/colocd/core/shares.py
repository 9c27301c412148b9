"""What jobs on several nodes cost each of them: shifted to the nodes that want them, so that the bound rises.

A job is paid once. Whatever part of its key each of its nodes is charged, no plan costs less than the bound if the parts are no
more than the key together. Where only one of the nodes wants the job at its part, that one can bear more.
"""

from collections.abc import Sequence

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.ground import Ground
from colocd.core.offers import Offers


def partners(land: Ground, offers: Sequence[Offers], prices: Ints) -> Ints:
    """The further nodes of the jobs on several nodes that best offers evict or count on."""
    known: set[int] = set()
    found: set[int] = set()
    for some in offers:
        known.update(some.rows.tolist())
        for number in some.jobs[np.logical_or(*some.touched(prices))].tolist():
            job = land.index.jobs[number]
            held = {} if job is None else job.gpus or {}
            found.update(land.index.row[name] for name in held if name in land.index.row)
    return np.array(sorted(found - known), dtype=np.int64)


def common_payers(offers: Sequence[Offers], prices: Ints) -> dict[int, int]:
    """Jobs on several nodes that one node's best offer evicts for others, too, and that node's row."""
    hit: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for some in offers:
        hits, uses = some.touched(prices)
        for node, column in zip(*(at.tolist() for at in np.nonzero(hits)), strict=True):
            hit.setdefault(int(some.jobs[node, column]), []).append(int(some.rows[node]))
        for job in some.jobs[uses].tolist():
            used[job] = used.get(job, 0) + 1
    return {job: rows[0] for job, rows in sorted(hit.items()) if len(rows) + used.get(job, 0) > 1}


def shifted(offers: Sequence[Offers], prices: Ints, part: int) -> bool:
    """Shift this part of the jobs' keys to the nodes whose best offers want them; False: all or none of each job's nodes do."""
    where = [np.nonzero(some.shared & ~some.loose[:, None]) for some in offers]
    jobs: Ints = np.concatenate([some.jobs[at] for some, at in zip(offers, where, strict=True)])
    if not len(jobs):
        return False
    share: Ints = np.concatenate([some.shares[at] for some, at in zip(offers, where, strict=True)])
    wants: Bools = np.concatenate(
        [np.logical_or(*some.touched(prices))[at] for some, at in zip(offers, where, strict=True)]
    )
    kinds, job = np.unique(jobs, return_inverse=True)
    nodes, wanted, total = (np.zeros(len(kinds), dtype=np.int64) for _ in range(3))
    np.add.at(nodes, job, 1)
    np.add.at(wanted, job, wants)
    np.add.at(total, job, share)
    uneven = (wanted > 0) & (wanted < nodes)
    if not uneven.any():
        return False
    move = total[job] * (wants * nodes[job] - wanted[job]) // (nodes[job] * part)
    share = np.maximum(0, share + np.where(uneven[job], move, 0))
    now = np.zeros(len(kinds), dtype=np.int64)
    np.add.at(now, job, share)
    # In floats, rounded down: the parts may be less than the key together, never more.
    share = np.where(now[job] > total[job], share * (total[job] / np.maximum(1, now[job])) * (1 - 1e-12), share).astype(
        np.int64
    )
    start = 0
    for some, at in zip(offers, where, strict=True):
        shares = some.shares.copy()
        shares[at] = share[start : start + len(at[0])]
        start += len(at[0])
        some.reprice(shares)
    return True
