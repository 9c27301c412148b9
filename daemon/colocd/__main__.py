"""colocd: the daemon's entry point. Parses the command line, builds the daemon, keeps the timetable, ends cleanly."""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from colocd.clock import SystemClock
from colocd.config import Config, load_config
from colocd.errors import ColocError

if TYPE_CHECKING:
    from colocd.app import Daemon
    from colocd.gpus.agents import Agents
    from colocd.gpus.prometheus import Prometheus
    from colocd.notify import Notifier
    from colocd.timetable import Timetable

log = logging.getLogger("colocd")


def main(argv: list[str] | None = None) -> None:
    """Run colocd until SIGTERM or SIGINT; exits with the code of the error that prevented it."""
    parser = argparse.ArgumentParser(
        prog="colocd", description="Co-locate online LLM services and batch jobs on Slurm."
    )
    parser.add_argument(
        "--config", type=Path, help="configuration file (default: COLOC_CONFIG, /etc/coloc/colocd.toml)"
    )
    parser.add_argument("--verbose", action="store_true", help="log more, with tracebacks")
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("apscheduler", "httpx", "httpcore", "asyncio", "uvicorn", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        run(load_config(options.config, os.environ), options.config)
    except ColocError as error:
        sys.stderr.write(f"colocd: {error}\n  {error.hint}\n")
        raise SystemExit(error.exit_code) from error if options.verbose else None


def run(config: Config, path: Path | None) -> None:
    """Build everything, serve, and take it down again in the opposite order."""
    from colocd.api.server import ApiServer
    from colocd.app import Daemon
    from colocd.gpus.opening import open_sources
    from colocd.notify import Notifier
    from colocd.slurm import open_slurm
    from colocd.store import open_store
    from colocd.timetable import Timetable

    clock = SystemClock()
    notifier = Notifier(os.environ)
    stop, reload = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    store = open_store(config.database.url)
    try:
        sources = open_sources(config, clock)
        daemon = Daemon(config, open_slurm(config.slurm, clock), store, clock, sources)
        server = ApiServer(daemon.answers, config.api)
        server.start()
        begun: list[Agents | Prometheus] = []
        try:
            for source in sources:
                source.start()
                begun.append(source)
            timetable = Timetable(daemon, notifier)
            timetable.start()
            log.info("colocd runs in mode %s, one cycle every %g s", config.mode, config.cycle.period)
            while not clock.wait(stop, 0.5):
                if reload.is_set():
                    reload.clear()
                    _reload(timetable, daemon, path, notifier)
            notifier.tell("STOPPING=1")
            timetable.stop()
            daemon.board.end()
        finally:
            for source in begun:
                source.stop()
            server.stop()
    finally:
        store.close()
    log.info("colocd has ended cleanly")


def _reload(timetable: "Timetable", daemon: "Daemon", path: Path | None, notifier: "Notifier") -> None:
    """Take a changed configuration file over; a bad one changes nothing."""
    notifier.tell("RELOADING=1")
    try:
        config = load_config(path, os.environ)
    except ColocError as error:
        log.error("the configuration was not reloaded: %s", error)
    else:
        timetable.between_cycles(lambda: daemon.reconfigure(config))
        log.info("the configuration was reloaded: mode %s", config.mode)
    notifier.tell("READY=1")


if __name__ == "__main__":
    main()
