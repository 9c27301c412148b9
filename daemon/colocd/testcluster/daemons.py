"""The daemons of one test cluster: start, stop and freeze each of them."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from colocd.clock import Clock
from colocd.errors import ColocError, NotFound
from colocd.testcluster import processes
from colocd.testcluster.spec import Spec

COMMAND_TIMEOUT = 30.0


class Daemons:
    """munged, slurmctld and the slurmds of one cluster."""

    def __init__(self, spec: Spec, environment: Mapping[str, str], clock: Clock) -> None:
        self.spec, self.environment, self.clock = spec, environment, clock
        self.base = Path(spec.base)

    def pid(self, name: str) -> int | None:
        """The pid of `munge`, `slurmctld` or `slurmd-<node>`; None: it does not run."""
        return processes.of_pid_file(self.base / "run" / f"{name}.pid", self.spec.base)

    def start(self, name: str) -> None:
        """Start a daemon unless it runs; raises `ColocError` when it does not start."""
        if self.pid(name) is not None:
            return
        run, base = self.base / "run", self.spec.base
        (run / f"{name}.pid").unlink(missing_ok=True)
        if name == "munge":
            argv = [
                "munged",
                f"--key-file={base}/munge.key",
                f"--socket={run}/munge.sock",
                f"--pid-file={run}/munge.pid",
            ]
            argv += [
                f"--log-file={base}/log/munged.log",
                f"--seed-file={base}/run/munge.seed",
                "--num-threads=2",
                "--force",
            ]
        elif name == "slurmctld":
            argv = ["slurmctld", "-f", f"{base}/slurm.conf"]
        else:
            argv = ["slurmd", "-f", f"{base}/slurm.conf", "-N", self._node(name.removeprefix("slurmd-"))]
        note = self.base / "log" / f"{name}.start"
        try:
            # A file, not a pipe: the daemon keeps its standard error open, and nobody would see the end of a pipe.
            with note.open("wb") as out:
                done = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    check=False,
                    env=dict(self.environment),
                    cwd="/",
                    timeout=COMMAND_TIMEOUT,
                    start_new_session=True,
                )
        except FileNotFoundError:
            raise ColocError(
                f"the command {argv[0]} is missing", hint="install the packages slurm-wlm and munge"
            ) from None
        except subprocess.TimeoutExpired:
            raise ColocError(
                f"{argv[0]} did not start in {COMMAND_TIMEOUT:.0f} s", hint=f"see {self.base}/log"
            ) from None
        if done.returncode or not processes.wait_for(lambda: self.pid(name) is not None, 10.0, self.clock):
            raise ColocError(f"{name} did not start: {self.tail(name)}", hint=f"see the logs in {self.base}/log")

    def stop(self, name: str) -> None:
        """End a daemon, gently first; one that does not run is no error."""
        if (pid := self.pid(name)) is not None:
            processes.end([pid], 5.0, self.clock)

    def freeze(self, name: str) -> None:
        """Stop a daemon with SIGSTOP: it is there and does not answer. Raises `NotFound` when it does not run."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen daemon go on."""
        self._signal(name, signal.SIGCONT)

    def tail(self, name: str, lines: int = 8) -> str:
        """The last lines of a daemon's log, and of what it printed at its start."""
        texts = []
        for file in (f"{name}.start", {"munge": "munged.log"}.get(name, f"{name}.log")):
            path = self.base / "log" / file
            if path.exists():
                texts += path.read_text(errors="replace").splitlines()[-lines:]
        return " | ".join(texts) or "no log"

    def end_all(self) -> None:
        """End every process of the cluster, whatever state it is in, and make sure of it."""
        for _ in range(5):
            left = processes.of_cluster(self.spec.base)
            if not left:
                return
            # slurmd first: it would report its dead steps to slurmctld, and slurmctld would start the jobs again.
            processes.send(left, signal.SIGCONT)
            processes.end([pid for pid, process in left.items() if _is(process, "slurmctld")], 1.0, self.clock)
            processes.end(left, 0.5, self.clock)
        names = ", ".join(f"{pid} {' '.join(process.argv)[:60]}" for pid, process in left.items())
        raise ColocError(
            f"these processes of the test cluster cannot be ended: {names}", hint="end them as their owner or as root"
        )

    def end_node(self, node: str) -> None:
        """End a node's slurmd and every process of the jobs on it, at once: what a power cut does."""
        self._node(node)
        gone: Callable[[], bool] = lambda: not processes.of_cluster(self.spec.base, node)  # noqa: E731
        found = processes.of_cluster(self.spec.base, node)
        # First nothing moves any more: else a job's step daemon may still report that its processes were killed (26.05 does).
        processes.send(found, signal.SIGSTOP)
        processes.send({**found, **processes.of_cluster(self.spec.base, node)}, signal.SIGKILL)
        if not processes.wait_for(gone, 10.0, self.clock):
            raise ColocError(f"processes of {node} cannot be ended", hint="end them as their owner or as root")

    def _signal(self, name: str, number: signal.Signals) -> None:
        pid = self.pid(name)
        if pid is None:
            raise NotFound(f"{name} of the test cluster does not run", hint="start it first")
        os.kill(pid, number)

    def _node(self, name: str) -> str:
        if name not in self.spec.names:
            raise NotFound(f"the test cluster has no node {name}", hint=f"its nodes are n1 to n{self.spec.nodes}")
        return name


def _is(process: processes.Process, name: str) -> bool:
    return bool(process.argv) and os.path.basename(process.argv[0]) == name
