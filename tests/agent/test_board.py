"""A whole daemon with readings of its GPUs: what is failed is not given out, what is old is unknown, use is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.agent.batches import batch, gpus, infos
from tests.helpers.daemon_rig import SERVICE, DaemonRig

from colocd.agent.wire import Batch, GpuInfo, GpuSample, JobUse, Sample
from colocd.app import Daemon
from colocd.config import SlurmConfig
from colocd.core.readings import FailedGpu, failure
from colocd.core.view import ReplicaState, View, decode_view
from colocd.gpus.board import _few
from colocd.gpus.intake import Intake


class FakeAgents(Intake):
    """The agents' source without a port."""

    def expect(self, addresses: dict[str, str]) -> None:
        self.keep(set(addresses))

    def counts(self) -> dict[str, int]:
        return self.count._asdict()

    def problems(self) -> tuple[str, ...]:
        return ()


class GpuRig(DaemonRig):
    """`tell` sends a reading of n1 (8 GPUs, minors in Slurm's order) or n2 as its agent would."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/nvidia[0-7]\n")
        self.config = msgspec.structs.replace(self.config, slurm=SlurmConfig(conf=str(folder / "slurm.conf")))
        self._seq = 0
        self.start()

    def start(self) -> None:
        self.agents = FakeAgents()
        self.daemon = Daemon(self.config, self.slurm, self.store, self.clock, (self.agents,))

    def tell(self, node: str = "n1", samples: tuple[GpuSample, ...] | None = None, **changes: Any) -> None:
        self._seq += 1
        told = (Sample(self._seq, 0.0, gpus() if samples is None else samples),)
        found: Batch = batch(node, samples=told, **changes)
        self.agents.take(found, self.clock.now())

    def view(self) -> View:
        return decode_view(self.daemon.answers.view())


def broken(number: int, **facts: object) -> tuple[GpuSample, ...]:
    whole = list(gpus())
    whole[number] = msgspec.structs.replace(whole[number], **facts)
    return tuple(whole)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[GpuRig]:
    made = GpuRig(tmp_path)
    yield made
    made.close()


def test_readings_are_in_the_view_while_they_are_fresh(rig: GpuRig) -> None:
    rig.tell(samples=broken(3, sm=None))
    rig.daemon.cycle()
    read = rig.view().gpus["n1"]
    assert (read.sm, read.power[0]) == ((50, 50, 50, None, 50, 50, 50, 50), 300.0)
    told = rig.daemon.answers.explain("n1")["now"]
    assert "GPU 2 50 % (1 GiB, 300 W), GPU 3 unknown (1 GiB, 300 W)," in told
    assert "coloc_gpu_nodes_read 1.0" in rig.daemon.answers.metrics().decode()
    assert 'coloc_gpus_busy_ratio{use="other"} 0.5' in rig.daemon.answers.metrics().decode()
    rig.clock.advance(rig.config.policy.stale_after + 1)
    rig.daemon.cycle()
    assert rig.view().gpus == {}
    assert any(p.startswith("GPU readings of n1 are older than") for p in rig.view().problems)


def test_a_replica_never_gets_a_failed_gpu(rig: GpuRig) -> None:
    for node in ("n1", "n2"):
        rig.tell(node, broken(1, xids=(31, 79)))
    rig.apply()
    rig.endpoint.value = 25.0  # three replicas of two GPUs
    rig.run(60)
    replicas = [r for s in rig.view().services for r in s.replicas if r.state is ReplicaState.READY]
    assert len(replicas) == 3
    assert all(not mask >> 1 & 1 for r in replicas for mask in r.places.values())
    assert all(n.unfit == (FailedGpu(1, "XID 79: fell off the bus"),) for n in rig.view().nodes)
    told = rig.daemon.answers.status()
    assert told["gpus"]["failed"] == 2
    assert "GPU 1 of n1 has failed and is not given out: XID 79: fell off the bus" in told["cycle"]["problems"]
    assert "GPU 1 has failed" in rig.daemon.answers.explain("node:n1")["now"]


def test_a_victim_on_a_failed_gpu_frees_less(rig: GpuRig) -> None:
    """All of n1 and n2 is taken by batch jobs of 8; one GPU of each has failed under them."""
    rig.run(5)
    for name in ("a", "b"):
        rig.batch(name, gpus=8)
    rig.run(40)
    assert len(rig.jobs(state=rig.jobs()[0].state)) == 2
    for node in ("n1", "n2"):
        rig.tell(node, broken(0, lost="GPU is lost"))
    rig.apply()
    rig.endpoint.value = 5.0
    rig.run(90)
    replicas = [r for s in rig.view().services for r in s.replicas]
    assert [r.state for r in replicas] == [ReplicaState.READY]
    assert not replicas[0].places["n1"] & 1
    assert any("job" in p and "holds it" in p for n in ("n1", "n2") for p in rig.view().problems if n in p)


def test_batch_jobs_keep_away_from_nodes_where_slurm_could_give_a_failed_gpu(rig: GpuRig) -> None:
    rig.tell("n1", broken(6, ecc=1))
    for i in range(4):
        rig.batch(f"train{i}", gpus=2)
    rig.run(60)
    assert {node for job in rig.jobs() for node in job.gpus or ()} == {"n2"}


def test_failures_outlive_silence_and_restarts_and_end_with_good_news(rig: GpuRig) -> None:
    rig.tell(samples=broken(2, remap=2))
    rig.daemon.cycle()
    rig.clock.advance(1000)
    rig.daemon.cycle()
    assert rig.view().nodes[0].failed == 1 << 2
    rig.start()  # colocd killed: nothing was told to it about its end
    rig.daemon.cycle()
    assert rig.view().nodes[0].failed == 1 << 2
    rig.tell()
    rig.daemon.cycle()
    assert rig.view().nodes[0].unfit == ()


def test_a_gpu_that_the_driver_lost_after_its_restart(rig: GpuRig) -> None:
    rig.tell(gpus=(*infos()[:5], *infos()[6:]), samples=gpus(7))
    rig.daemon.cycle()
    assert rig.view().nodes[0].unfit == (FailedGpu(5, "the driver does not show it any more"),)


def test_readings_that_cannot_be_placed_condemn_nothing(rig: GpuRig) -> None:
    strange = tuple(msgspec.structs.replace(info, mig=True) for info in infos())
    rig.tell(gpus=strange, samples=broken(0, xids=(79,)))
    rig.daemon.cycle()
    view = rig.view()
    assert (view.nodes[0].unfit, view.gpus) == ((), {})
    assert "GPU readings of n1 cannot be used: MIG is on, so Slurm's indices are not GPUs" in view.problems


def test_an_agent_that_reads_nothing_says_so(rig: GpuRig) -> None:
    rig.agents.take(batch(gpus=(), samples=(), problems=("Driver Not Loaded",)), rig.clock.now())
    rig.daemon.cycle()
    assert "agent of n1: Driver Not Loaded" in rig.view().problems
    assert rig.view().nodes[0].unfit == ()


def test_the_use_of_a_job_is_summed_and_told_at_its_end(rig: GpuRig) -> None:
    ref = rig.batch("train", gpus=4)
    rig.run(15)
    (job,) = rig.jobs()
    (node,) = job.gpus or {}
    mask = (job.gpus or {})[node]
    for _ in range(10):
        rig.tell(node, tuple(msgspec.structs.replace(g, sm=80 if mask >> i & 1 else 0) for i, g in enumerate(gpus())))
        rig.run(5)
    told = rig.daemon.answers.explain(ref)["now"]
    assert "its GPUs were busy 80 % of 0.05 measured GPU-hours" in told
    rig.daemon.board.end()
    rig.start()
    rig.daemon.cycle()
    assert "busy 80 %" in rig.daemon.answers.explain(ref)["now"]
    rig.slurm.cancel([ref])
    rig.run(30)
    assert [t.partition(" of ")[0] for t in rig.decisions("gpu-use")] == ["its GPUs were busy 80 %"]


def test_without_any_source_nothing_is_read(tmp_path: Path) -> None:
    plain = DaemonRig(tmp_path)
    try:
        plain.daemon.cycle()
        view = decode_view(plain.daemon.answers.view())
        assert (view.gpus, view.problems) == ({}, ())
    finally:
        plain.close()


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({}, None),
        ({"xids": (13, 31, 43, 45, 63, 94)}, None),
        ({"remap": 1}, None),
        ({"ecc": 0}, None),
        ({"ecc": 3}, "3 uncorrectable memory errors since the driver was started"),
        ({"remap": 3}, "a bad memory row could not be remapped"),
        ({"xids": (13, 48)}, "XID 48: double-bit memory error"),
        ({"lost": "GPU is lost", "ecc": 3}, "GPU is lost"),
    ],
)
def test_what_a_failure_is(facts: dict[str, object], why: str | None) -> None:
    asked: dict[str, object] = {"lost": None, "xids": (), "ecc": None, "remap": None, **facts}
    assert failure(**asked) == why  # type: ignore[arg-type]


def test_a_job_on_gpus_of_others_is_told(rig: GpuRig) -> None:
    ref = rig.batch("train", gpus=2)
    rig.run(15)
    (job,) = rig.jobs()
    ((node, mask),) = (job.gpus or {}).items()
    mine, other = mask.bit_length() - 1, next(gpu for gpu in range(8) if not mask >> gpu & 1)
    told = list(gpus())
    for gpu in (mine, other):
        told[gpu] = msgspec.structs.replace(
            told[gpu], jobs=(JobUse(ref, 1, 500), JobUse("", 1, 1), JobUse("999", 1, 1))
        )
    rig.tell(node, tuple(told))
    rig.daemon.cycle()
    strays = [problem for problem in rig.view().problems if "did not give" in problem]
    assert strays == [f"job {ref} runs on GPU {other} of {node}, which Slurm did not give to it"]


def test_a_service_without_metrics_is_read_from_its_gpus(rig: GpuRig) -> None:
    text = SERVICE.format(name="chat", port=rig.endpoint.port)
    text = text.replace(f'url = "http://127.0.0.1:{rig.endpoint.port}/metrics"', 'measure = "busy_gpus"', 1)
    rig.daemon.answers.apply_service(text, "chat.toml")
    rig.run(40)
    for sm in (75, None):
        for node in ("n1", "n2"):
            rig.tell(node, gpus(sm=sm))
        rig.daemon.cycle()
        (service,) = rig.view().services
        assert (service.load.value if service.load else None) == (1.5 if sm is not None else None)


def test_gpus_that_tell_no_number_condemn_nothing(rig: GpuRig) -> None:
    nameless = tuple(GpuInfo(index=i) for i in range(8))
    rig.tell(gpus=nameless, samples=tuple(GpuSample() for _ in nameless))
    rig.daemon.cycle()
    assert rig.view().nodes[0].unfit == ()
    assert rig.view().gpus["n1"].sm == (None,) * 8


def test_many_failures_do_not_bury_the_rest(rig: GpuRig) -> None:
    for node in ("n1", "n2"):
        rig.tell(node, gpus(lost="GPU is lost"))
    rig.daemon.cycle()
    assert sum("has failed" in problem for problem in rig.view().problems) == 16
    assert _few([str(i) for i in range(18)]) == [*(str(i) for i in range(16)), "… and 2 more like that"]
