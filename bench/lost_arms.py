"""The arms of bench_lost: GPUs go to replicas at each peak by Slurm's preemption, by coloc at once, by coloc foreseen."""

from bench.lost_arm import CLOCK, REPLICA_GPUS, Arm
from tests.helpers.live import LiveSite
from tests.helpers.live_files import CAPACITY

from coloc_cli.sbatch_submit import prepare
from colocd.store.records import LoadSample

EARLY = 6
"""Seasons of load besides those that are measured: the cluster starts in them."""


class SlurmArm(Arm):
    """Slurm alone: `preempt/partition_prio` with REQUEUE; replicas are submitted when the load rises. Jobs save at TERM."""

    name = "slurm"
    preempt = True

    def prepare(self) -> None:
        """See `Arm.prepare`."""
        self.replicas: list[str] = []
        self.back = 0.0
        self.replica()
        self.until(lambda: self.jobs()[self.replicas[0]]["JobState"] == "RUNNING", "the start of the first replica")
        script = self.script()
        for number, (gpus, kind) in enumerate(self.plan.jobs):
            folder = self.cluster.work / f"train-{number}"
            job = [script, str(folder), f"--interval={kind.interval:g}", f"--save={kind.save:g}"]
            job += ["--asked=TERM"] if kind.asked else []
            words = ["--partition=batch", "--requeue", *self.words(number, gpus)]
            self.folders[self.cluster.run("sbatch", *words, *job).stdout.strip()] = (folder, gpus, kind)

    def replica(self) -> None:
        """One more."""
        words = ["--parsable", "--partition=online", "--job-name=replica", "--nodes=1", "--output=/dev/null"]
        words += [f"--gpus-per-node={REPLICA_GPUS}"]
        self.replicas.append(self.cluster.run("sbatch", *words, text="#!/bin/sh\nexec sleep 36000\n").stdout.strip())

    def tick(self, at: float) -> None:
        """As many replicas as the load needs; victims may start at once, which Slurm would not let them."""
        wanted = 1 + sum(p.more for p in self.plan.peaks if p.start <= at < p.end)
        while len(self.replicas) < wanted:
            self.replica()
        if len(self.replicas) > wanted:
            self.cluster.run("scancel", *self.replicas[wanted:])
            del self.replicas[wanted:]
        if at >= self.back:
            self.back = at + 1.0
            jobs = self.jobs()
            waiting = [ref for ref in self.folders if jobs[ref]["JobState"] == "PENDING"]
            if waiting:
                self.cluster.run("scontrol", "update", f"jobid={','.join(waiting)}", "StartTime=now", check=False)


class ColocArm(Arm):
    """coloc, with the load read as it comes and no past to foresee it by: each reclaim is an emergency."""

    name = "coloc, emergency"
    foresees = False

    def prepare(self) -> None:
        """See `Arm.prepare`."""
        season = self.plan.season if self.foresees else 86400.0
        policy = {
            "plan_ahead": 15.0 if self.foresees else 0.0, "emergency_grace": 10.0, "grace": 10.0, "useful_intervals": 0.2,
            "max_evictions_per_job": 100_000, "eviction_target": 1.0,
        }  # fmt: skip
        service = {"season": season, "lead_time": 4.0, "max_replicas": 1 + max(p.more for p in self.plan.peaks)}
        self.site = LiveSite(self.cluster, policy=policy, service=service)
        self.site.load(CAPACITY / 2)
        self.site.upgrade()
        self.site.start()
        script = self.script()
        for number, (gpus, kind) in enumerate(self.plan.jobs):
            folder = self.cluster.work / f"train-{number}"
            job = [script, str(folder), f"--interval={kind.interval:g}", f"--save={kind.save:g}", "--care"]
            job += ["--asked=USR1"] if kind.asked else []
            words = [f"--coloc-interval={kind.interval:g}", f"--coloc-cost={max(1, round(kind.save))}"]
            words += ["--signal=B:USR1", "--coloc-grace=10"] if kind.asked else []
            ready = prepare([*words, *self.words(number, gpus), *job], {}, ("batch",), "/", lambda: b"")
            self.folders[self.cluster.run(*ready.words).stdout.strip()] = (folder, gpus, kind)
        self.until(self.all_run, "the start of all batch jobs")
        self.curve()
        self.site.coloc("service", "apply", str(self.site.base / "chat.toml"))
        self.site.until(lambda: self.site.ready() >= 1, "the first replica")

    def curve(self) -> None:
        """The load from the first season on, and the past before it for those who are to foresee."""
        season, quiet = self.plan.season, CAPACITY / 2
        points = [(0.0, quiet)]
        for k in range(self.plan.seasons + EARLY):
            for p in self.plan.pattern:
                first, last, high = p.start + k * season, p.end + k * season, quiet + p.more * CAPACITY
                points += [(first, quiet), (first + 0.1, high), (last, high), (last + 0.1, quiet)]
        self.site.curve(self.plan.origin, points)
        if self.foresees:
            begin = CLOCK.now()
            past = [begin - k * 0.5 for k in range(int(8 * season / 0.5), 0, -1)]
            phases = [(at - self.plan.origin) % season for at in past]
            loads = [quiet + sum(p.more * CAPACITY for p in self.plan.pattern if p.start <= t < p.end) for t in phases]
            with self.site.store() as store:
                samples = zip(past, loads, strict=True)
                store.add_load([LoadSample(service="chat", at=at, value=value) for at, value in samples])

    def tick(self, at: float) -> None:
        """See that colocd lives."""
        assert self.site.colocd is not None
        self.site.colocd.check()

    def also(self) -> None:
        """How many of the handovers were emergencies: coloc's own word, to see that the arm is what it is called."""
        with self.site.store() as store:
            told = [bool(h.data.get("emergency")) for h in store.handovers() if h.victims and h.state == "released"]
        self.row["handovers"] = {"emergency": sum(told), "foreseen": len(told) - sum(told)}

    def end(self) -> None:
        """See `Arm.end`."""
        if hasattr(self, "site"):
            self.site.__exit__(RuntimeError, None, None)


class PlannedArm(ColocArm):
    """coloc, with a past by which it foresees the peaks."""

    name = "coloc, planned"
    foresees = True
