"""Evictions on a live Slurm: many kinds of jobs, load that comes and goes, colocd killed -9, and what must hold in the end."""

import json
import random
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.helpers.live import LiveSite
from tests.helpers.live_presets import tools

from colocd.core.view import Job, JobState
from colocd.testcluster import PrivateCluster

PROGRAM = Path(__file__).parent / "ordeal_job.py"
VALLEY = 5.0
STUCK = 300.0
"""Seconds without a new eviction after which the test gives up. Slow is no failure: there is no limit for the whole."""
ENDED = (JobState.DONE, JobState.FAILED)


class Kind(NamedTuple):
    """A kind of job. `run` is the body of its script, {work} is the program; `redoes`: steps it may do again an eviction."""

    options: str
    words: str = "-N1 --gpus-per-node=2"
    run: str = "{work}"
    mode: str = "exit"
    redoes: int = 0
    parts: int = 1


KINDS: dict[str, Kind] = {
    "report": Kind("--coloc-preset=plain --coloc-grace=15", mode="report", run="trap '' USR1\nexec {work}"),
    "program": Kind("--coloc-preset=program --coloc-grace=15", "-N1 --gpus-per-node=1"),
    "code": Kind("--coloc-signal=TERM --coloc-ack=exit:85 --coloc-grace=15", "-N1 --gpus-per-node=4", mode="exit85"),
    "file": Kind("--coloc-signal=USR1 --coloc-ack=file:{folder}/checkpoint --coloc-grace=15", mode="file", redoes=200),
    "requeue": Kind("--coloc-preset=lightning --coloc-grace=15", "-N1 --gpus-per-node=1", mode="requeue"),
    "command": Kind(
        "--coloc-preset=command --coloc-grace=15 --coloc-checkpoint='kill -USR2 $COLOC_PROGRAMS; sleep 0.5'",
        mode="command",
        redoes=200,
    ),
    "array": Kind("--coloc-preset=program --coloc-grace=15", "-N1 --gpus-per-node=1 --array=1-3", parts=3),
    "two nodes": Kind(
        "--coloc-preset=megatron --coloc-grace=15", "-N2 --ntasks-per-node=1 --gpus-per-node=2", "srun {work}"
    ),
    "two steps": Kind("--coloc-preset=program --coloc-grace=15", "-N1 --gpus-per-node=4", "srun {half} && srun {work}"),
    "deaf": Kind("--coloc-preset=plain --coloc-grace=2", mode="deaf", run="trap '' USR1\nexec {work}", redoes=400),
    "dies": Kind("--coloc-preset=program --coloc-grace=5", mode="dies", redoes=10),
    "forks away": Kind("--coloc-preset=program --coloc-grace=15", "-N1 --gpus-per-node=1", mode="forks", redoes=11),
    "lies": Kind("--coloc-preset=plain --coloc-grace=5", mode="liar", run="trap '' USR1\nexec {work}", redoes=400),
    "claims": Kind(
        "--coloc-preset=program --coloc-cost=1000000d --coloc-interval=900000d --coloc-grace=999999d", mode="huge"
    ),
}
"""By what they show; `redoes` is 0 where the work has to go on exactly where it was saved."""


class Member(NamedTuple):
    """One submitted job (of an array: one task) with the folder it works in."""

    ref: str
    kind: str
    folder: Path


class Ordeal:
    """Jobs of all kinds on one site; `seed` decides about loads and kills."""

    def __init__(self, cluster: PrivateCluster, steps: int, seed: int) -> None:
        policy = {"grace": 20.0, "max_evictions_per_job": 100000, "start_timeout": 20.0, "protected_runtime": 1.0}
        self.site = LiveSite(cluster, policy=policy, service={"max_replicas": 7})
        self.random, self.steps = random.Random(seed), steps
        self.members: list[Member] = []
        self.ended: dict[str, Job] = {}  # Slurm forgets them after a while
        self.kills = 0
        self.number = 0

    def submit(self, kind: str) -> None:
        """One more job of a kind."""
        site, one = self.site, KINDS[kind]
        self.number += 1
        folder = site.jobs / f"{self.number}-{kind.replace(' ', '-')}"
        work = f"{site.python} {PROGRAM} {folder} {self.steps} {one.mode}"
        half = f"{site.python} {PROGRAM} {folder}-half {self.steps // 2} {one.mode}"
        script = site.jobs / f"{self.number}.sh"
        script.write_text(
            f"#!/bin/bash\n#COLOC {one.options.format(folder=folder)}\n{one.run.format(work=work, half=half)}\n"
        )
        words = [
            "--parsable",
            f"--job-name={kind}",
            f"--output={site.jobs}/log-%j",
            "--open-mode=append",
            *shlex.split(one.words),
        ]
        path = f"{tools(site)}:{site.environment['PATH']}"
        ref = site.run("coloc_cli.sbatch_main", *words, str(script), check=True, PATH=path).stdout.strip()
        if one.parts == 1:
            self.members.append(Member(ref, kind, folder))
        else:
            self.members += [Member(f"{ref}_{k}", kind, Path(f"{folder}-{k}")) for k in range(1, one.parts + 1)]

    def states(self) -> Counter[JobState]:
        """How many jobs are in which state."""
        left = [m.ref for m in self.members if m.ref not in self.ended]
        jobs = self.site.slurm.jobs(left)
        self.ended |= {ref: job for ref, job in jobs.items() if job.state in ENDED}
        return Counter({**jobs, **self.ended}[m.ref].state for m in self.members)

    def evictions(self) -> int:
        """As coloc counted them."""
        with self.site.store() as store:
            return sum(row.evictions for row in store.jobs(unended=False))

    def kill(self) -> None:
        """kill -9 of colocd, and a new one after a moment."""
        assert self.site.colocd is not None
        self.site.colocd.kill()
        self.site.clock.sleep(self.random.uniform(0, 1.5))
        self.site.start(ready=False)
        self.kills += 1

    def wait(self, seconds: float, kill: float) -> None:
        """Some time, in which colocd may be killed (with this probability)."""
        if self.random.random() < kill:
            first = self.random.uniform(0, seconds)
            self.site.clock.sleep(first)
            self.kill()
            seconds -= first
        self.site.clock.sleep(seconds)

    def suffer(self, evictions: int, kinds: Sequence[str], *, at_once: int, kill: float = 0.3) -> None:
        """Keep `at_once` jobs of these kinds there, and evict until there were enough evictions; then let all of them finish."""
        site, turn = self.site, 0
        site.load(VALLEY)
        site.begin()
        seen, since = 0, site.clock.monotonic()
        while True:
            states = self.states() if self.members else Counter()
            while sum(n for state, n in states.items() if state not in ENDED) < at_once:
                self.submit(kinds[turn % len(kinds)])
                turn += 1
                states[JobState.PENDING] += KINDS[self.members[-1].kind].parts
            site.load(VALLEY)
            # A third: replicas that the forecast still keeps may leave no room for half of them.
            site.until(lambda: self.states()[JobState.RUNNING] >= at_once // 3, "the start of some jobs", STUCK)
            self.wait(self.random.uniform(0.5, 2.0), kill)
            site.load(self.random.choice((35.0, 65.0)))
            before = self.evictions()
            if before >= evictions:
                break
            until = site.clock.monotonic() + self.random.uniform(3.0, 8.0)
            while self.evictions() < before + at_once // 2 and site.clock.monotonic() < until:
                self.wait(0.5, kill / 6)
            if self.evictions() > seen:
                seen, since = self.evictions(), site.clock.monotonic()
            assert site.clock.monotonic() < since + STUCK, f"no eviction after the first {seen}: {site.tail()}"
        site.load(VALLEY)
        site.until(
            lambda: set(self.states()) <= set(ENDED),
            f"the end of all jobs: {self.states()}",
            STUCK + 4.0 * len(self.members),
        )

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> dict[str, object]:
        """Every job did all of its work, none twice at a time, none more than its kind may redo. Returns what there was."""
        site = self.site
        redone: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        for member in self.members:
            kind = KINDS[member.kind]
            log = "\n".join(p.read_text(errors="replace")[-1500:] for p in sorted(site.jobs.glob(f"log-{member.ref}*")))
            assert self.ended[member.ref].state is JobState.DONE, (member, self.ended[member.ref], log)
            for folder in [member.folder, *member.folder.parent.glob(f"{member.folder.name}-[hr]*")]:
                assert not (folder / "violations").exists(), (folder / "violations").read_text()
                half = folder.name.endswith("-half")
                again = check_work(folder, self.steps // 2 if half else self.steps)
                assert max(again, default=0) <= kind.redoes, (member, again, log)
                redone[member.kind] += sum(again)
            ended[member.kind] += 1
        # By the load alone some replicas may stay: the forecast has seen it rise again and again.
        site.coloc("service", "remove", "chat")
        site.until(lambda: not site.replicas(), "the drain", STUCK)
        site.until(lambda: not site.leftovers(), "the end of fences and plugs", STUCK)
        with site.store() as store:
            handovers = [h for h in store.handovers() if h.victims]
            evicted = Counter({row.name: 0 for row in store.jobs(unended=False)})
            for row in store.jobs(unended=False):
                evicted[row.name] += row.evictions
        acked = [len(h.data.get("acked", [])) for h in handovers]
        heard = [
            h.data["t"]["checkpointed"] - h.data["told_at"] for h in handovers if "checkpointed" in h.data.get("t", {})
        ]
        return {
            "evictions": sum(evicted.values()),
            "evictions by kind": dict(sorted(evicted.items())),
            "jobs": dict(sorted(ended.items())),
            "kills of colocd": self.kills,
            "handovers with victims": dict(Counter(h.state.value for h in handovers)),
            "victims that acknowledged": sum(acked),
            "seconds from told to all acknowledged, median": round(statistics.median(heard), 2) if heard else None,
            "steps redone by kind": {k: n for k, n in sorted(redone.items()) if n},
            "steps": sum(ended.values()) * self.steps,
        }


def check_work(folder: Path, steps: int) -> list[int]:
    """Follow the journal: each run goes on from a step that was done, without a hole. Returns what was redone, by run."""
    assert (folder / "finished").read_text() == str(steps), folder
    runs: dict[str, list[int]] = {}
    for line in (folder / "journal").read_text().splitlines():
        run, step = line.split()
        runs.setdefault(run, []).append(int(step))
    again, last = [], 0
    for line in (folder / "starts").read_text().splitlines():
        run, begin = line.split()
        assert int(begin) <= last, (folder, line, last)
        again.append(last - int(begin))
        done = runs.pop(run, [])
        assert done == list(range(int(begin) + 1, int(begin) + 1 + len(done))), (folder, run, done)
        last = done[-1] if done else int(begin)
    assert (runs, last) == ({}, steps), (folder, runs, last)
    return again


def report(facts: dict[str, object], path: str | None) -> None:
    """Print what there was, and write it where asked to."""
    text = json.dumps(facts, indent=2)
    print(text)
    if path:
        Path(path).write_text(text + "\n")
