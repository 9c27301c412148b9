"""What differs between two cycles: nothing that came or went is missed, wherever it stands and however much has moved."""

import random

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.views import batch, view

from colocd.core.actions import encode_plan
from colocd.core.arrays import differences, popcount
from colocd.core.index import PlannerIndex
from colocd.core.plan import plan


@given(
    st.lists(st.integers(0, 400), unique=True, max_size=120),
    st.lists(st.integers(0, 400), max_size=8),
    st.lists(st.integers(500, 600), unique=True, max_size=8),
    st.randoms(use_true_random=False),
)
def test_whatever_came_or_went_is_told(old: list[int], gone: list[int], fresh: list[int], rng: random.Random) -> None:
    new = [number for number in old if number not in gone]
    for number in fresh:
        new.insert(rng.randint(0, len(new)), number)
    if rng.random() < 0.2:
        rng.shuffle(new)
    came, went = differences(np.array(new, dtype=np.int64), np.array(old, dtype=np.int64))
    told, left = {new[i] for i in came}, {old[i] for i in went}
    assert told >= set(new) - set(old)
    assert left >= set(old) - set(new)
    # What is told of one side only has come or gone indeed.
    assert told - left == set(new) - set(old)
    assert left - told == set(old) - set(new)


def test_few_changes_are_told_alone() -> None:
    old = np.arange(10_000)
    new = np.delete(old, [5, 17, 4000])
    came, went = differences(new, old)
    assert (list(came), list(went)) == ([], [5, 17, 4000])


def test_jobs_in_another_order_are_still_known() -> None:
    jobs = [batch(n, {f"n{n % 3 + 1}": 0b1 << n // 3}) for n in range(12)]
    first = view(*jobs, nodes=3)
    index = PlannerIndex()
    index.update(first)
    for seed in range(20):
        mixed = random.Random(seed).sample(jobs, len(jobs) - seed % 3)
        now = msgspec.structs.replace(first, jobs=tuple(mixed))
        assert encode_plan(plan(now, index)) == encode_plan(plan(now))
        assert index.rebuilds == 1
        assert set(index.known) == {job.ref for job in mixed}


@given(st.lists(st.integers(0, (1 << 16) - 1), min_size=1))
def test_popcount_counts_bits(masks: list[int]) -> None:
    assert popcount(np.array(masks, dtype=np.int64)).tolist() == [mask.bit_count() for mask in masks]
