"""Evictions on a live Slurm, with kill -9 of colocd and jobs that misbehave: each does exactly its work, none twice at a time.

A sample here; two hundred with `make test-evictions`.
"""

import os
from collections.abc import Iterator

import pytest
from tests.helpers.ordeal import KINDS, Ordeal, report

from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm]
SAMPLE = ("program", "forks away", "requeue", "two nodes", "array", "dies", "report", "lies")


@pytest.fixture
def ordeal(clean_cluster: PrivateCluster) -> Iterator[Ordeal]:
    seed = int(os.environ.get("COLOC_EVICTIONS_SEED", "7"))
    it = Ordeal(clean_cluster, steps=100, seed=seed)
    with it.site:
        yield it


@pytest.mark.timeout(240)
def test_a_dozen(ordeal: Ordeal) -> None:
    ordeal.suffer(12, SAMPLE, at_once=8)
    facts = ordeal.check()
    report(facts, None)
    assert int(str(facts["evictions"])) >= 12


@pytest.mark.evictions
@pytest.mark.timeout(3000)
def test_two_hundred(ordeal: Ordeal) -> None:
    ordeal.steps = 240
    ordeal.suffer(200, list(KINDS), at_once=16)
    facts = ordeal.check()
    report(facts, os.environ.get("COLOC_EVICTIONS_JSON"))
    assert int(str(facts["evictions"])) >= 200
    assert ordeal.kills >= 10
