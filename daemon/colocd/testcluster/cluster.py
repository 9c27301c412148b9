"""`PrivateCluster`: a whole Slurm of its own in one directory, up in about a second, gone without a trace."""

import atexit
import os
import pwd
import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from colocd.clock import Clock, SystemClock
from colocd.errors import ColocError
from colocd.testcluster import accounting, place, ports, processes
from colocd.testcluster.daemons import COMMAND_TIMEOUT, Daemons
from colocd.testcluster.spec import Spec, release_of

START_TIMEOUT = 60.0
Done = subprocess.CompletedProcess[str]


class PrivateCluster:
    """A throw-away Slurm: `nodes` nodes `n1`…, each with the GPUs of `shape`, partitions `batch` and `online`.

    Runs as root or as an ordinary user. Everything lies in `directory` (with a `work` folder that all users may write
    to); several clusters live side by side. `bin_dir` names another Slurm's commands, `root` a folder with a whole
    other system (for example from debootstrap), in which everything then runs; that needs root.
    """

    def __init__(self, directory: Path, *, clock: Clock | None = None, **options: Any) -> None:
        """`options`: fields of `Spec`, but for those that are found out (`base`, `user`, `port`, `release`, `loopback`)."""
        self.directory = Path(os.path.abspath(directory))
        self.clock = clock or SystemClock()
        self.spec = Spec(base=str(self.directory), user="", **options)

    @classmethod
    def attach(cls, directory: Path, clock: Clock | None = None) -> "PrivateCluster":
        """The cluster that another process started there; raises `NotFound` when there is none."""
        found = cls(directory, clock=clock)
        found.spec = place.load(found.directory)
        return found

    @property
    def conf(self) -> Path:
        """Path of slurm.conf."""
        return Path(self.spec.base) / "slurm.conf"

    @property
    def work(self) -> Path:
        """A folder that every user may write to; use it for job output and working directories."""
        return Path(self.spec.base) / "work"

    @property
    def bin_dir(self) -> str | None:
        """Where the client commands for this cluster are; None: on PATH."""
        return self.spec.bin_dir if self.spec.root is None else str(Path(self.spec.base) / "bin")

    @property
    def daemons(self) -> Daemons:
        """The cluster's daemons, one by one."""
        return Daemons(self.spec, self.environment, self.clock)

    @property
    def environment(self) -> dict[str, str]:
        """The environment for client commands; nothing of the caller's but PATH."""
        path = [os.environ.get("PATH", "/usr/bin:/bin"), "/usr/local/sbin", "/usr/sbin", "/sbin"]
        if self.bin_dir is not None:
            path[:0] = [self.bin_dir, os.path.normpath(os.path.join(self.bin_dir, "..", "sbin"))]
        return {"SLURM_CONF": str(self.conf), "TZ": "UTC", "LC_ALL": "C", "PATH": ":".join(path)}

    def run(self, *argv: str, check: bool = True, text: str = "", user: str | None = None) -> Done:
        """Run a client command and return what it said; `text` is its standard input, `user` runs it as that user.

        Raises `ColocError` when it fails and `check` is true, or when it does not end in 30 s.
        """
        who = pwd.getpwnam(user) if user is not None else None
        words = list(argv)
        if who is not None and self.spec.root is not None:  # only root may change the root
            words = [
                "chroot",
                f"--userspec={who.pw_uid}:{who.pw_gid}",
                self.spec.root,
                "/usr/bin/env",
                f"PATH={place.PATH}",
                *argv,
            ]
            who = None
        try:
            done = subprocess.run(
                words,
                input=text,
                capture_output=True,
                text=True,
                check=False,
                env=self.environment,
                cwd=self.work,
                timeout=COMMAND_TIMEOUT,
                user=who.pw_uid if who else None,
                group=who.pw_gid if who else None,
                extra_groups=[] if who else None,
            )
        except FileNotFoundError:
            raise ColocError(
                f"the command {argv[0]} is missing", hint="install the packages slurm-wlm and munge"
            ) from None
        except subprocess.TimeoutExpired:
            raise ColocError(f"{argv[0]} did not end in {COMMAND_TIMEOUT:.0f} s", hint=self._see) from None
        if check and done.returncode:
            raise ColocError(f"{' '.join(argv)} failed: {done.stderr.strip() or done.stdout.strip()}", hint=self._see)
        return done

    def up(self, *, keep: bool = False) -> Self:
        """Start everything and return when all nodes are idle; raises `ColocError` with the end of slurmctld's log.

        The cluster goes down when this process ends, unless `keep` is true.
        """
        if self.directory.exists() and any(self.directory.iterdir()):
            raise ColocError(
                f"{self.directory} is not empty", hint="name a new directory, or take that cluster down first"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        if not keep:
            atexit.register(self._at_exit, os.getpid())
        try:
            self._start()
        except BaseException:
            self.down()
            raise
        return self

    def _start(self) -> None:
        self.spec = msgspec.structs.replace(self.spec, user=_user(), base=place.short(self.directory))
        place.save(self.directory, self.spec)
        port = ports.reserve(self.directory, self.spec.nodes + 3)
        self.spec = msgspec.structs.replace(self.spec, port=port)
        place.save(self.directory, self.spec)
        place.write(self.directory, self.spec)
        self.spec = msgspec.structs.replace(
            self.spec, release=release_of(self.run("slurmctld", "-V").stdout), loopback=ports.loopback()
        )
        place.save(self.directory, self.spec)
        place.write(self.directory, self.spec)
        self.daemons.start("munge")
        if self.spec.accounting:
            accounting.start(self.spec, self.environment, self.clock)
        for name in ("slurmctld", *(f"slurmd-{node}" for node in self.spec.names)):
            self.daemons.start(name)
        self._wait_nodes(self.spec.names, r"idle")

    def down(self) -> None:
        """End every daemon and every job, wait for them, and remove the directory. Twice is no error."""
        if (self.directory / "cluster.json").exists():
            self.spec = place.load(self.directory)
            self.daemons.end_all()
            place.remove(self.directory, self.spec)
            ports.release(self.spec.port)
        elif self.directory.is_dir() and not any(self.directory.iterdir()):
            self.directory.rmdir()
        atexit.unregister(self._at_exit)

    def clean(self) -> None:
        """Cancel all jobs and wait until they are gone, delete all reservations, bring back nodes that are down."""
        ids = self._jobs()
        if ids:
            self.run("scancel", "--full", "--signal=KILL", *ids, check=False)
            self.run("scancel", *ids, check=False)
        if not processes.wait_for(lambda: not self._jobs(), START_TIMEOUT, self.clock, 0.1):
            raise ColocError(f"jobs {' '.join(self._jobs())} of the test cluster do not end", hint=self._see)
        for name in re.findall(
            r"^ReservationName=(\S+)", self.run("scontrol", "-o", "show", "reservation").stdout, re.M
        ):
            self.run("scontrol", "delete", f"reservation={name}")
        for node, state in self._states().items():
            if state != "idle":
                self.node_up(node)

    def node_down(self, name: str) -> None:
        """Cut a node's power: slurmd and all job processes there end at once, and Slurm is told that it is down."""
        self.daemons.end_node(name)
        # 26.05 handles answers once a second: one that was on its way returns the node to service, whatever state it has.
        self.clock.sleep(1.2)
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=power")

    def node_up(self, name: str) -> None:
        """Bring a node back and wait until Slurm uses it."""
        self.daemons.start(f"slurmd-{name}")
        self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        self._wait_nodes((name,), r"idle|mixed|allocated")

    def stop_controller(self) -> None:
        """End slurmctld; its state stays on disk and jobs go on."""
        self.daemons.stop("slurmctld")

    def start_controller(self) -> None:
        """Start slurmctld again and wait until it answers."""
        self.daemons.start("slurmctld")
        if not processes.wait_for(
            lambda: self.run("sinfo", "-h", check=False).returncode == 0, START_TIMEOUT, self.clock
        ):
            raise ColocError(f"slurmctld does not answer: {self.daemons.tail('slurmctld')}", hint=self._see)

    def pause_controller(self) -> None:
        """Freeze slurmctld: connections are taken, answers do not come."""
        self.daemons.freeze("slurmctld")

    def resume_controller(self) -> None:
        """Let a frozen slurmctld go on."""
        self.daemons.thaw("slurmctld")

    def stop_munge(self) -> None:
        """End munged: no client can prove who it is."""
        self.daemons.stop("munge")

    def start_munge(self) -> None:
        """Start munged again."""
        self.daemons.start("munge")

    @property
    def _see(self) -> str:
        return f"see the logs in {self.directory / 'log'}"

    def _jobs(self) -> list[str]:
        return sorted(set(self.run("squeue", "-a", "-h", "-o", "%A").stdout.split()), key=int)

    def _states(self) -> dict[str, str]:
        lines = self.run("sinfo", "-a", "-h", "-N", "-o", "%N %T", check=False).stdout.splitlines()
        return dict(line.split(None, 1) for line in lines)

    def _wait_nodes(self, names: tuple[str, ...], pattern: str) -> None:
        daemons = self.daemons
        needed = ("munge", "slurmctld", *(f"slurmd-{name}" for name in names))

        def ready() -> bool:
            dead = [name for name in needed if daemons.pid(name) is None]
            if dead:
                raise ColocError(f"{dead[0]} of the test cluster has ended: {daemons.tail(dead[0])}", hint=self._see)
            states = self._states()
            return all(re.fullmatch(pattern, states.get(name, "")) for name in names)

        if not processes.wait_for(ready, START_TIMEOUT, self.clock, 0.1):
            states = ", ".join(f"{name} {state}" for name, state in self._states().items())
            text = f"the test cluster's nodes do not come up ({states}): {self.daemons.tail('slurmctld')}"
            raise ColocError(text, hint=self._see)

    def _at_exit(self, owner: int) -> None:
        if os.getpid() == owner:  # not in a forked child
            self.down()

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


def down(directory: Path) -> None:
    """Take down the cluster in a directory, whoever started it and however that ended; raises `NotFound`: none there."""
    PrivateCluster.attach(directory).down()


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise ColocError(f"user id {os.getuid()} has no name, Slurm needs one", hint="run as a system user") from None
