"""Hourly budgets of evictions while a plan is made."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.index import PlannerIndex
from colocd.core.victims import spent_budget
from colocd.core.view import View


def spent_rows(view: View, index: PlannerIndex, hits: Ints, able: Bools, user: str) -> list[int]:
    """Rows of the evictable jobs whose hourly budget the plan's victims so far use up, the last of them this user's.

    `hits`: the plan's victims by number of user; `able`: the job rows that may be evicted. The jobs of one place are taken
    together, so a budget can be exceeded by what its last reclaim needs beyond it.
    """
    policy = view.policy
    if not (policy.user_evictions_per_hour or policy.evictions_per_hour):
        return []
    number, total = index.users[user], int(hits.sum())
    rows: list[int] = np.flatnonzero(able).tolist()
    if spent_budget(view, "", 0, total) is not None:
        return rows
    if spent_budget(view, user, int(hits[number]), total) is None:
        return []
    return [row for row in rows if index.user[row] == number]


def over_budget(view: View, users: Sequence[str]) -> bool:
    """Whether evicting one job of each of these users (with repetitions) is more than the hourly budgets have left."""
    policy = view.policy
    mine = Counter(users)
    return (policy.evictions_per_hour > 0 and sum(view.evicted.values()) + len(users) > policy.evictions_per_hour) or (
        policy.user_evictions_per_hour > 0
        and any(view.evicted.get(user, 0) + count > policy.user_evictions_per_hour for user, count in mine.items())
    )
