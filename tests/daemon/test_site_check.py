"""What of a site's Slurm stands in coloc's way: each finding, and that a plain Slurm has none."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from tests.helpers.daemon_rig import DaemonRig

from coloc_topology.shape import quads
from colocd.config import Config
from colocd.core.policy import Policy, Share
from colocd.core.view import Job, JobState, Node
from colocd.errors import SlurmUnreachable
from colocd.sim.clock import VirtualClock
from colocd.sim.slurm import VirtualSlurm
from colocd.site_check import KEPT, SiteWatch, Weight, blocking, examine
from colocd.slurm.port import Cluster, Partition, Site

NODE = Node(
    name="n1", address="n1", up=True, gpus=2, used=0, types=("h100", "h100"), partitions=("batch", "online")
)  # fmt: skip
BATCH = Partition(name="batch", up=True, tier=1, nodes=("n1",))
ONLINE = Partition(name="online", up=True, tier=10, nodes=("n1",))
PLAIN = {
    "SLURM_VERSION": "22.05.8",
    "SelectType": "select/cons_tres",
    "GresTypes": "gpu",
    "PreemptType": "preempt/none",
}


@dataclass
class Case:
    settings: dict[str, str] = field(default_factory=dict)
    site: dict[str, Any] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)
    online: dict[str, Any] = field(default_factory=dict)
    node: dict[str, Any] = field(default_factory=dict)
    weights: Literal["equal", "slurm"] = "equal"

    def findings(self) -> list[tuple[str, str]]:
        site = Site(settings={**PLAIN, **self.settings}, **{"user": "root", **self.site})
        parts = (msgspec.structs.replace(BATCH, **self.batch), msgspec.structs.replace(ONLINE, **self.online))
        nodes = (msgspec.structs.replace(NODE, **self.node),)
        cluster = Cluster(version="22.05.8", nodes=nodes, jobs=(), partitions=parts, reservations=())
        return [(f.weight.value, f.text) for f in examine(site, cluster, Config(policy=Policy(weights=self.weights)))]


@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(settings={"PrivateData": "jobs,nodes"}),  # root sees all the same
        Case(weights="slurm", site={"shares": {"ann": 2.0}}),
        Case(settings={"PreemptType": "preempt/partition_prio"}),  # the batch partition has it off
        Case(settings={"PreemptType": "preempt/partition_prio"}, batch={"preempt": "REQUEUE"}, online={"tier": 1}),
        Case(settings={"KillWait": "30 sec", "GresTypes": "gpu,nic", "MaxJobCount": "10000"}),
    ],
)
def test_nothing_is_found_where_nothing_is_wrong(case: Case) -> None:
    assert case.findings() == []


@pytest.mark.parametrize(
    ("weight", "part", "case"),
    [
        ("error", "may not hold", Case(site={"user": "eve", "privileged": False})),
        (
            "error",
            "PrivateData=jobs hides",
            Case(site={"user": "eve", "privileged": False}, settings={"PrivateData": "jobs,usage"}),
        ),
        ("warning", "could not be read from slurmdbd", Case(site={"user": "eve", "privileged": None})),
        ("warning", "services of that user only", Case(site={"user": "coloc", "privileged": True})),
        ("error", "federation far", Case(site={"federation": "far"})),
        ("error", "21.08.8 is too old", Case(settings={"SLURM_VERSION": "21.08.8"})),
        ("error", "SelectType=select/linear", Case(settings={"SelectType": "select/linear"})),
        ("error", "GresTypes does not name gpu", Case(settings={"GresTypes": ""})),
        ("warning", "GresTypes names shard", Case(settings={"GresTypes": "gpu,shard"})),
        ("warning", "KillWait is 600 s", Case(settings={"KillWait": "600 sec"})),
        ("warning", "never wakes", Case(settings={"SuspendProgram": "/bin/off"})),
        ("error", "policy.batch_partitions names batch", Case(batch={"name": "other"})),
        ("error", "policy.online_partitions names online", Case(online={"name": "other"})),
        ("warning", "partition batch is not up", Case(batch={"up": False})),
        ("error", "partition online gives whole nodes", Case(online={"exclusive": True})),
        ("warning", "partition batch gives whole nodes", Case(batch={"exclusive": True})),
        ("error", "no node in common", Case(batch={"nodes": ("n2",)})),
        ("warning", "online has PriorityTier=1", Case(online={"tier": 1})),
        (
            "warning",
            "blind to NVLink",
            Case(settings={"PreemptType": "preempt/partition_prio"}, batch={"preempt": "REQUEUE"}),
        ),
        ("warning", "preempt/qos", Case(settings={"PreemptType": "preempt/qos"})),
        ("warning", "DisableRootJobs=Yes", Case(settings={"DisableRootJobs": "Yes"})),
        ("warning", "of partition online", Case(online={"root_jobs": False})),
        ("warning", "JobSubmitPlugins=lua", Case(settings={"JobSubmitPlugins": "lua"})),
        ("warning", "JobRequeue=0", Case(settings={"JobRequeue": "0"})),
        ("error", "has GPUs", Case(node={"gpus": 0, "types": ()})),
        ("warning", "MIG instances", Case(node={"types": ("a100_1g.5gb", "a100_1g.5gb")})),
        ("warning", "AccountingStorageType is not slurmdbd", Case(weights="slurm")),
        (
            "warning",
            "`sshare -a` told none",
            Case(weights="slurm", settings={"AccountingStorageType": "accounting_storage/slurmdbd"}),
        ),
        ("warning", "cannot be read (1 nodes)", Case(node={"used": None})),
    ],
)
def test_what_is_wrong_is_found(weight: str, part: str, case: Case) -> None:
    found = case.findings()
    assert [w for w, text in found if part in text] == [weight], found
    assert found == sorted(found, key=lambda f: f[0] != "error")


def test_a_nearly_full_slurm_is_told() -> None:
    jobs = tuple(Job(ref=str(k), user="u", name="j", partition="batch", state=JobState.PENDING) for k in range(1, 11))
    cluster = Cluster(version="22.05.8", nodes=(NODE,), jobs=jobs, partitions=(BATCH, ONLINE), reservations=())

    def told(most: str) -> list[str]:
        site = Site(settings={**PLAIN, "MaxJobCount": most}, user="root")
        return [f.text for f in examine(site, cluster, Config()) if "MaxJobCount" in f.text]

    assert told("12") == []
    assert told("11") != []


def test_only_errors_block() -> None:
    site = Site(settings={**PLAIN, "JobRequeue": "0"}, user="root")
    cluster = Cluster(version="22.05.8", nodes=(NODE,), jobs=(), partitions=(BATCH, ONLINE), reservations=())
    found = examine(site, cluster, Config())
    assert [f.weight for f in found] == [Weight.WARNING]
    assert blocking(found) is None
    told = blocking(examine(msgspec.structs.replace(site, federation="far"), cluster, Config()))
    assert told is not None
    assert "federation far" in told
    assert "take the cluster out of it" in told


def test_the_set_up_is_read_now_and_then_and_an_old_reading_is_kept(tmp_path: Path) -> None:
    clock = VirtualClock(0.0)
    slurm = VirtualSlurm(clock, {"n1": quads()})
    watch, cluster = SiteWatch(slurm, clock), slurm.read()
    slurm.down = True
    with pytest.raises(SlurmUnreachable):
        watch.look(cluster, Config())
    slurm.down = False
    assert watch.look(cluster, Config()) == ()
    slurm.setup = msgspec.structs.replace(slurm.setup, federation="far")
    assert watch.look(cluster, Config()) == ()
    clock.advance(KEPT + 1)
    slurm.down = True
    assert watch.look(cluster, Config()) == ()
    slurm.down = False
    assert blocking(watch.look(cluster, Config())) is not None


def test_a_federation_pauses_colocd_and_a_warning_is_written_once(tmp_path: Path) -> None:
    rig = DaemonRig(tmp_path)
    try:
        rig.slurm.setup = msgspec.structs.replace(
            rig.slurm.setup, federation="far", settings={**rig.slurm.setup.settings, "JobSubmitPlugins": "lua"}
        )
        rig.endpoint.value = 5.0
        rig.apply()
        rig.run(30)
        assert rig.jobs("coloc-chat") == []
        status = rig.daemon.answers.status()
        assert any("federation far" in problem for problem in status["cycle"]["problems"])
        assert "federation far" in status["paused"]
        kinds = [d.kind for d in rig.store.decisions(limit=100)]
        assert kinds.count("setup") == 1
        rig.slurm.setup = msgspec.structs.replace(rig.slurm.setup, federation=None)
        rig.run(KEPT + 30)
        assert len(rig.jobs("coloc-chat")) == 1
    finally:
        rig.close()


def test_weights_come_from_slurm_where_that_is_asked_for_and_known() -> None:
    clock = VirtualClock(0.0)
    slurm = VirtualSlurm(clock, {"n1": quads()})
    watch, asked = (
        SiteWatch(slurm, clock),
        Config(policy=Policy(weights="slurm", shares=(Share(user="bob", weight=3.0),))),
    )
    assert watch.weigh(asked) is asked
    slurm.setup = msgspec.structs.replace(slurm.setup, shares={"ann": 0.5, "bob": 9.0, "cid": 1.5})
    watch.look(slurm.read(), asked)
    given = {share.user: share.weight for share in watch.weigh(asked).policy.shares}
    assert given == {"bob": 3.0, "ann": 0.5, "cid": 1.5}
    assert watch.weigh(Config()).policy.shares == ()
    slurm.setup = msgspec.structs.replace(slurm.setup, shares=None)
    clock.sleep(KEPT + 1)
    watch.look(slurm.read(), asked)
    assert watch.weigh(asked) is asked
