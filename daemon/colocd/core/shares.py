"""What jobs on several nodes cost each of them: shifted to the nodes that want them, so that the bound rises.

A job is paid once. Whatever part of its key each of its nodes is charged, no plan costs less than the bound if the parts are no
more than the key together. Where only one of the nodes wants the job at its part, that one can bear more.
"""

from collections.abc import Sequence

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.offers import Offers


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
