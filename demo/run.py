"""`make demo`: one compressed day on a throw-away Slurm with coloc, shown live, with a report at the end.

Exit 0 only when every replica sat in one NVLink island, no job and no acknowledged step was lost, and GPUs were taken
back at least three times. The report goes to demo-report.json in the working directory.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from colocd.clock import Clock, SystemClock
from colocd.errors import ColocError
from colocd.store.opening import open_store
from demo import curve, files, report
from demo.daemon import Daemon
from demo.display import Display, table
from demo.site import NODES, Site
from demo.watch import Watch

DAWN = 12.0
"""Seconds between the start of colocd's files and the start of the day: colocd, the service and the backlog come up."""
LIMIT = 222.0
"""Seconds after which the demo stops waiting for batch jobs."""


@contextmanager
def base_folder(keep: bool) -> Iterator[Path]:
    """A new empty folder under the system's temporary one; removed unless it is to be kept."""
    parent = tempfile.gettempdir()
    # Unix sockets lie below it, and their paths may have 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="coloc-demo-", dir=parent if len(parent) < 60 else "/tmp"))
    try:
        yield folder
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


class Interrupt:
    """Ctrl-C and TERM set a flag, and the demo looks at it between its steps.

    An exception in the middle of anything would be lost or lose something: a child that was just started, the
    clearing up. Each step is short, and what clears up is never disturbed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, frame: object) -> None:
        self.asked = True

    def check(self) -> None:
        """Raise `KeyboardInterrupt` when somebody asked for the end."""
        if self.asked:
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def keep_logs(site: Site, target: Path | None) -> None:
    """Copy colocd's log, its database and the jobs' output to `target`, where one is asked for."""
    if target is not None:
        shutil.copytree(site.run, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "notify"))
        shutil.copytree(site.jobs, target / "jobs", dirs_exist_ok=True)
        shutil.copy(site.day / "replicas.log", target)


def live_through(stack: ExitStack, args: argparse.Namespace, clock: Clock, interrupt: Interrupt) -> report.Facts:
    """The whole demo; everything it starts is ended when the stack closes."""
    began = clock.monotonic()
    display = stack.enter_context(Display())
    site = Site(stack.enter_context(base_folder(args.keep)), clock)
    stack.callback(site.cluster.down)
    site.up()
    interrupt.check()
    display.event(f"Slurm {site.slurm()} is up: {NODES} nodes with {site.shape.gpus} GPUs each")
    if site.people.remark:
        display.event(site.people.remark)
    site.command(site.coloc("db", "upgrade"))
    interrupt.check()
    store = open_store(site.database)
    stack.callback(store.close)
    start = clock.now() + DAWN
    store.add_load(site.begin_day(start))
    stack.callback(keep_logs, site, args.logs)
    daemon = stack.enter_context(Daemon(site.config, site.log, site.environment, clock))
    interrupt.check()
    site.command(site.coloc("service", "apply", str(site.run / "chat.toml")))
    display.event("colocd is ready, the service is applied")
    watch = Watch(site, store, display, start)
    for k, job in enumerate(files.backlog(args.backlog, deaf=args.deaf)):
        interrupt.check()
        daemon.check()
        watch.jobs.append(site.submit(job, site.people.batch[k % len(site.people.batch)]))
        watch.look()
    work = sum(job.gpus * job.steps for job in watch.jobs) / files.RATE
    display.event(f"{len(watch.jobs)} batch jobs of {' and '.join(site.people.batch)}, {work:.0f} GPU-seconds")
    while clock.monotonic() - began < LIMIT:
        interrupt.check()
        daemon.check()
        watch.look()
        if clock.now() - start >= curve.DAY and watch.finished:
            break
        clock.sleep(0.5)
    watch.look()
    return report.Facts(
        slurm=site.slurm(),
        nodes=NODES,
        shape=site.shape,
        seconds=clock.monotonic() - began,
        handovers=store.handovers(),
        jobs=watch.read_jobs(),
        samples=[s for s in watch.samples if start <= s.at <= start + curve.DAY],
        seen=watch.seen,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description="one compressed day with coloc on a throw-away Slurm")
    parser.add_argument("--report", type=Path, default=Path("demo-report.json"), help="where the report goes")
    parser.add_argument("--backlog", type=float, default=1.0, help="how much batch work, as a factor")
    parser.add_argument("--deaf", action="store_true", help="one batch job ignores the checkpoint signal")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all files")
    parser.add_argument("--logs", type=Path, help="copy logs and database there")
    args = parser.parse_args(argv)
    interrupt = Interrupt()
    try:
        with ExitStack() as stack:
            facts = live_through(stack, args, SystemClock(), interrupt)
            # journals are read before their folder goes
            said = report.make(facts)
            wrong = report.failures(facts, said)
    except (KeyboardInterrupt, ColocError) as error:
        if isinstance(error, ColocError) and not interrupt.asked:
            print(f"demo: {error}\n  {error.hint}", file=sys.stderr)
            return error.exit_code
        print("demo: interrupted; everything it started is ended", file=sys.stderr)
        return 130
    finally:
        interrupt.restore()
    args.report.write_text(json.dumps(said, indent=2) + "\n")
    table(Console(highlight=False), said)
    for sentence in wrong:
        print(f"demo: {sentence}", file=sys.stderr)
    print(f"demo: {'failed' if wrong else 'passed'}; report in {args.report}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
