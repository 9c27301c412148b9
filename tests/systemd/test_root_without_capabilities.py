"""What docs/adr/0003-root-without-capabilities.md rests on: root's number is enough for Slurm, root's powers are not needed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from colocd.testcluster import PrivateCluster

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can submit for others; run make test as root for this one"),
]
BARE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
"""What the unit leaves of root."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    folder = Path(tempfile.mkdtemp(prefix="coloc-caps-", dir="/tmp"))
    try:
        with PrivateCluster(folder, nodes=1) as found:
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_shield_is_real(cluster: PrivateCluster) -> None:
    said = cluster.run(*BARE, "grep", "-E", "^(CapEff|CapBnd|NoNewPrivs)", "/proc/self/status").stdout
    assert set(said.split()[1::2]) == {"0000000000000000", "1"}


def test_submit_and_manage_other_peoples_jobs(cluster: PrivateCluster) -> None:
    submit = ("sbatch", "--parsable", "--uid=nobody", "--gid=nogroup", "--hold", "--output=/dev/null")
    ref = cluster.run(*BARE, *submit, text="#!/bin/sh\nexec sleep 60\n").stdout.strip()
    fence = ("scontrol", "create", "reservation")
    for words in (
        ("scontrol", "update", f"jobid={ref}", "comment=seen"),
        ("scontrol", "release", ref),
        (
            *fence,
            "reservationname=coloc-t",
            "nodes=n1",
            "users=root",
            "starttime=now",
            "duration=1",
            "flags=ignore_jobs",
        ),
        ("scontrol", "delete", "reservation=coloc-t"),
        ("scontrol", "hold", ref),
    ):
        cluster.run(*BARE, *words)
    said = cluster.run("scontrol", "-o", "show", "job", ref).stdout
    assert "UserId=nobody(" in said
    assert "Comment=seen" in said
    cluster.run(*BARE, "scancel", ref)
