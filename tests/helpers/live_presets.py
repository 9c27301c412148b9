"""The examples as jobs on a live site: submitted as a user would, evicted by load, resumed, and their journals counted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.live import LIMIT, LiveSite

from colocd.core.view import Held, Job, JobState

EXAMPLES = Path(__file__).parents[2] / "examples"


class Example:
    """One example in a folder of its own. `venv`: the Python environment with its libraries; None: the system's Python."""

    def __init__(self, site: LiveSite, name: str, steps: int, *, venv: Path | None = None) -> None:
        self.site, self.name, self.steps = site, name, steps
        self.folder = site.jobs / name.partition(".")[0]
        shutil.copytree(EXAMPLES, self.folder)
        self.env = {**site.environment, "STEPS": str(steps), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.env |= {
            "ACCELERATOR": "cpu",
            "JAX_PLATFORMS": "cpu",
            "MASTER_ADDR": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        self.env["PATH"] = ":".join([*([str(venv / "bin")] if venv else []), str(tools(site)), self.env["PATH"]])
        self.ref = ""

    def submit(self, *words: str) -> str:
        """Submit it; returns the job."""
        argv = ["coloc-sbatch", "--parsable", *words, self.name]
        if self.name.endswith(".py"):
            argv = ["python", self.name]
        env = {**self.env, "SBATCH_OUTPUT": "job.log"}
        done = subprocess.run(
            argv, cwd=self.folder, env=env, capture_output=True, text=True, check=False, timeout=LIMIT
        )
        assert done.returncode == 0, done.stderr + done.stdout
        self.ref = done.stdout.strip()
        return self.ref

    @property
    def job(self) -> Job:
        """As Slurm shows it."""
        return self.site.job(self.ref)

    def journal(self) -> list[tuple[str, int]]:
        """Restart count and number of each step done."""
        path = self.folder / "journal"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def log(self) -> str:
        """All output."""
        files = [*self.folder.glob("*.log"), *self.folder.glob("log/*.out"), *self.folder.glob("log/*.err")]
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-4000:]}" for f in files)

    def until_steps(self, count: int, restart: str | None = None) -> None:
        """Wait until it has done this many steps (in its run `restart`)."""

        def there() -> bool:
            assert self.job.state is not JobState.FAILED, self.log()
            return sum(restart in (None, run) for run, _ in self.journal()) >= count

        self.site.until(there, f"{count} steps of {self.name}: {self.log()[-1500:]}", 120)

    def evicted(self) -> bool:
        """Whether it has given way and waits for coloc."""
        job = self.job
        return job.state is JobState.PENDING and job.held is Held.ADMIN and job.restarts >= 1

    def finish(self) -> None:
        """Wait for its end, which must be a good one."""
        self.site.until(lambda: self.job.state in (JobState.DONE, JobState.FAILED), f"the end of {self.name}", 180)
        assert self.job.state is JobState.DONE, self.log()
        assert (self.folder / "finished").read_text().strip() == str(self.steps), self.log()

    def assert_exact(self, *, redone: int = 0) -> None:
        """Every step was done; none twice, but for `redone` at most after the save that a restart went on from."""
        steps = [step for _, step in self.journal()]
        assert sorted(set(steps)) == list(range(1, self.steps + 1)), self.log()
        assert len(steps) - self.steps <= redone, (self.name, len(steps), self.log())


def tools(site: LiveSite) -> Path:
    """A folder for PATH with `coloc`, `coloc-sbatch`, and `sbatch` that is the latter, as sites install them."""
    folder = site.base / "bin"
    if not folder.exists():
        folder.mkdir()
        for name, module in (("coloc", "main"), ("coloc-sbatch", "sbatch_main")):
            (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m coloc_cli.{module} "$@"\n')
            (folder / name).chmod(0o755)
        os.symlink("coloc-sbatch", folder / "sbatch")
    return folder


def evict_and_resume(
    site: LiveSite, examples: Sequence[Example], *, valley: float, peak: float, steps: int = 8
) -> None:
    """Wait for steps of all, let the load rise until all have given way, let it fall, wait for their good end."""
    for example in examples:
        example.until_steps(steps)
    site.load(peak)
    site.until(lambda: all(e.evicted() for e in examples), f"the evictions: {[e.job for e in examples]}", 120)
    site.load(valley)
    for example in examples:
        example.finish()
