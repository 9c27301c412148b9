"""The scene of the kill -9 tests on a live Slurm, its lanes (clusters side by side), and what must hold in the end."""

import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.live import LiveSite
from tests.helpers.live_files import STRANGER

from colocd.core.view import Held, JobState
from colocd.testcluster import PrivateCluster

DOOMED = Path(__file__).parents[1] / "e2e" / "doomed.py"
NAMES = ("left", "right")
ISLAND = 0b1111


class Point(NamedTuple):
    """Where the process dies: `kind` slurm or store, `when` before or after, the `number`-th (0: nowhere)."""

    kind: str
    when: str
    number: int


class Scene:
    """A node on which a replica of 3 GPUs needs two victims (GPUs 0-1, 2-3) and a plug (on one of theirs, and on GPU 7).

    `NODES`: on each of them the same, with victims that have GPUs on all; `SERVICES` and what their files say beside that.
    """

    NODES: tuple[str, ...] = ("n1",)
    SERVICES: tuple[str, ...] = ("chat",)
    WISHES: Mapping[str, object] = {}

    def __init__(self, cluster: PrivateCluster) -> None:
        cluster.clean()
        # A cool-down: victims stay with coloc, so that what became of them can be looked at.
        service = {"gpus_per_replica": 3, "max_replicas": 1, **self.WISHES}
        self.site = LiveSite(cluster, policy={"cooldown": 3600.0}, service=service, period=0.5)
        self.site.load(1)
        self.struck: str | None = None

    def set(self) -> None:
        """Start the batch jobs one after another (lowest free index first), and somebody else's job beside them."""
        site = self.site
        site.upgrade()
        across = len(self.NODES)
        self.refs = tuple(site.submit(name, 2, across=across) for name in NAMES)
        for ref in self.refs:
            site.cluster.run("scontrol", "release", ref)
            site.until(lambda r=ref: site.job(r).state is JobState.RUNNING, "the start of a victim")  # type: ignore[misc]
        sbatch = ["sbatch", "--parsable", "--partition=batch", "--gpus-per-node=3", "--output=/dev/null"]
        sbatch += [f"--nodes={across}", f"--ntasks={across}"]
        self.other = site.cluster.run(*sbatch, "--wrap=sleep 3600", user=STRANGER).stdout.strip()
        site.until(lambda: site.job(self.other).state is JobState.RUNNING, "the start of somebody else's job")
        held = {ref: job.gpus for ref, job in site.slurm.jobs([*self.refs, self.other]).items()}
        wanted = dict(zip((*self.refs, self.other), (0b11, 0b1100, 0b111_0000), strict=True))
        assert held == {ref: dict.fromkeys(self.NODES, mask) for ref, mask in wanted.items()}, held
        site.until(lambda: all((site.jobs / n / "journal").exists() for n in NAMES), "the first steps of the victims")
        site.strangers(3, "online", gpus=2)  # they wait for any two GPUs that come free

    def apply(self) -> None:
        """Put the services into the store, as `coloc service apply` does, without a daemon."""
        from colocd.servicefile import parse_service, spec_to_json
        from colocd.store.records import ServiceRow

        with self.site.store() as store:
            for name, text in self.files().items():
                spec = parse_service(text, f"{name}.toml")
                store.put_service(ServiceRow(name=name, spec=spec_to_json(spec), applied_at=self.site.clock.now()))

    def files(self) -> dict[str, str]:
        """The service files by name."""
        return {"chat": (self.site.base / "chat.toml").read_text()}

    def doomed(self, point: Point) -> tuple[int, list[str]]:
        """Run the daemon that dies; its exit code and the points it passed."""
        note = self.site.base / "points"
        argv = [
            sys.executable,
            str(DOOMED),
            str(self.site.config),
            point.kind,
            point.when,
            str(point.number),
            str(note),
        ]
        with self.site.log.open("ab") as log:
            done = subprocess.run(
                argv, env=self.site.environment, stdout=log, stderr=log, timeout=120, check=False, cwd="/"
            )
        return done.returncode, note.read_text().splitlines() if note.exists() else []

    def check(self) -> None:
        """Replicas on good GPUs, detached; victims requeued once and held by coloc; nothing left behind; no step lost."""
        site = self.site
        site.until(lambda: site.ready() == len(self.SERVICES), "ready replicas")
        site.until(lambda: not site.leftovers(), "the end of fence and plugs")
        with site.store() as store:
            site.until(lambda: not store.handovers(only_open=True), "the end of the handovers")
            opened = [i.key for i in store.intents(unsettled=True) if i.outcome.value == "open"]
            rows = {row.ref: row for row in store.jobs()}
            states = [h.state.value for h in store.handovers()]
        assert opened == []
        assert states == ["released"] * len(self.SERVICES)
        everything = [
            j for j in site.slurm.read().jobs if j.name.startswith(tuple(f"coloc-{s}" for s in self.SERVICES))
        ]
        replicas = [j for j in everything if j.state is JobState.RUNNING]
        assert sorted(j.name.split("-")[1] for j in replicas) == sorted(self.SERVICES)
        assert not [j for j in everything if j.state is JobState.PENDING]
        assert all(j.reservation is None for j in replicas)
        seats = sorted((name, mask) for j in replicas for name, mask in (j.gpus or {}).items())
        assert [name for name, _ in seats] == list(self.NODES)
        assert all((mask & ~ISLAND, mask.bit_count()) == (0, 3) for _, mask in seats), seats
        for ref in self.refs:
            job = site.job(ref)
            assert (job.state, job.held, job.restarts) == (JobState.PENDING, Held.ADMIN, 1), (ref, job)
            assert (rows[ref].evictions, rows[ref].ours) == (1, True)
        # No job starts again here, so a step is lost if the checkpoint is behind the journal.
        for name in NAMES:
            last = (site.jobs / name / "journal").read_text().splitlines()[-1].split()[1]
            assert (site.jobs / name / "checkpoint").read_text().strip() == last, name
        assert site.lost(*NAMES) == 0

    def live_through(self, point: Point) -> list[str]:
        """Die at the point, start the ordinary daemon, look. Returns the points passed before."""
        with self.site as site:
            self.set()
            self.apply()
            code, points = self.doomed(point)
            # How many plugs it takes depends on how fast Slurm is: a late point may not come at all. `walk` tells which did.
            passed = len(points) - (point.kind == "slurm")
            assert code == -9 or (code == 0 and (not point.number or passed < point.number)), (point, code, site.tail())
            self.struck = points[-1].split()[1] if code == -9 else None
            site.start()
            self.check()
            return points


class WideScene(Scene):
    """The same on two nodes of one leaf: one replica with 3 GPUs on each, victims on both, fence and plugs on both."""

    NODES = ("n1", "n2")
    WISHES: Mapping[str, object] = {"nodes": 2, "closeness": "leaf"}


class PairScene(Scene):
    """A prefill and a decode replica of 3 GPUs, one on each node of a leaf: two handovers in one fence, victims on both."""

    NODES = ("n1", "n2")
    SERVICES = ("chat", "decode")
    WISHES: Mapping[str, object] = {"beside": "decode"}

    def files(self) -> dict[str, str]:
        """See `Scene.files`."""
        (chat,) = super().files().values()
        decode = chat.replace('name = "chat"', 'name = "decode"').replace('beside = "decode"', 'beside = "chat"')
        decode = decode.replace(f"port_base = {self.site.port}", f"port_base = {self.site.port + 5}")
        return {"chat": chat, "decode": decode}


@contextmanager
def lanes(count: int, nodes: int = 1) -> Iterator[list[PrivateCluster]]:
    """Clusters whose GPUs Slurm gives out by index, side by side; their nodes are on one leaf."""
    tree = {"topology.conf": f"SwitchName=a Nodes=n[1-{nodes}]\n"}
    more: dict[str, Any] = {"settings": ("TopologyPlugin=topology/tree",), "files": tree} if nodes > 1 else {}
    with ExitStack() as stack:
        clusters = []
        for _ in range(count):
            folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            clusters.append(stack.enter_context(PrivateCluster(folder, nodes=nodes, cores=False, kill_wait=2, **more)))
        yield clusters


class Walked(NamedTuple):
    """Points that failed, and why; and the names of the calls at which a process died, each with before or after."""

    failed: dict[Point, str]
    struck: set[tuple[str, str]]


def walk(clusters: list[PrivateCluster], points: Iterable[Point], kind: type[Scene] = Scene) -> Walked:
    """Live through every point, as many at a time as there are clusters."""
    waiting: queue.SimpleQueue[Point] = queue.SimpleQueue()
    for point in points:
        waiting.put(point)
    walked = Walked({}, set())

    def lane(cluster: PrivateCluster) -> None:
        while True:
            try:
                point = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                scene = kind(cluster)
                scene.live_through(point)
            except BaseException:
                walked.failed[point] = traceback.format_exc()[-3000:]
            else:
                if scene.struck is not None:
                    walked.struck.add((scene.struck, point.when))

    threads = [threading.Thread(target=lane, args=(cluster,)) for cluster in clusters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return walked


def names(clusters: list[PrivateCluster], kind: str, scene: type[Scene] = Scene) -> list[str]:
    """The points of an undisturbed handover."""
    return [line.split()[1] for line in scene(clusters[0]).live_through(Point(kind, "before", 0))]


def walk_until_struck(
    clusters: list[PrivateCluster], points: list[Point], wanted: set[tuple[str, str]], scene: type[Scene] = Scene
) -> None:
    """Walk the points; then, for kinds of call that no run was killed at, those around where they came in another run.

    How many plugs a handover needs depends on Slurm's speed, so the n-th call is not the same in every run.
    """
    walked = walk(clusters, points, scene)
    assert not walked.failed, told(walked.failed)
    struck = set(walked.struck)
    for _ in range(6):
        missing = wanted - struck
        if not missing:
            break
        kind = points[0].kind
        calls = [name for name in names(clusters, kind, scene) if kind != "slurm" or not name.startswith("add_")]
        near = {
            (k + 1 + off, when) for name, when in missing for k, c in enumerate(calls) if c == name for off in (0, 1, 2)
        }
        again = walk(clusters, [Point(kind, when, k) for k, when in sorted(near)], scene)
        assert not again.failed, told(again.failed)
        struck |= again.struck
    assert wanted <= struck, f"never struck: {sorted(wanted - struck)}"


def told(failed: dict[Point, str]) -> str:
    """What failed, and how."""
    return "\n\n".join(f"{point}: {why}" for point, why in failed.items())
