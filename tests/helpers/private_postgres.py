"""A PostgreSQL server of one's own, for tests, benchmarks and the demo: a temporary folder, a Unix socket, no TCP."""

import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from colocd.clock import Clock, SystemClock
from colocd.errors import StoreUnavailable

_HINT = "install PostgreSQL's server package (initdb and postgres, in PATH or under /usr/lib/postgresql)"


def find_program(name: str) -> str:
    """The newest `name` under /usr/lib/postgresql, else the one in PATH; raises `StoreUnavailable`."""
    packaged = glob.glob(f"/usr/lib/postgresql/*/bin/{name}")
    if packaged:
        return max(packaged, key=lambda path: [int(part) for part in path.split("/")[4].split(".") if part.isdigit()])
    found = shutil.which(name)
    if found is None:
        raise StoreUnavailable(f"PostgreSQL's {name} is not on this machine", _HINT)
    return found


class PrivatePostgres:
    """A server that lives as long as the `with` block; `stop` and `start` may be called in between.

    `safe`: keep fsync on (off makes tests quicker; only a power cut can tell).
    """

    def __init__(self, *, safe: bool = False, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._safe = safe
        self._postgres, initdb = find_program("postgres"), find_program("initdb")
        # A short name: a Unix socket's path has at most 107 bytes. TMPDIR may be long, so it is not asked.
        self.folder = Path(tempfile.mkdtemp(prefix="coloc-pg-", dir="/tmp"))
        self._as: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = _unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
        self._process: subprocess.Popen[bytes] | None = None
        made = subprocess.run(
            [*self._as, initdb, "-D", str(self.folder / "data"), "-U", "coloc", "-A", "trust", "-E", "UTF8", "-N"],
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        if made.returncode != 0:
            shutil.rmtree(self.folder)
            raise StoreUnavailable(f"initdb failed: {made.stderr.decode(errors='replace').strip()}", _HINT)

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database of this server."""
        return f"postgresql+psycopg://coloc@/{database}?host={self.folder}"

    @property
    def pid(self) -> int | None:
        """Process id of the server; None: it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server and wait until it answers; raises `StoreUnavailable` with its log when it does not."""
        options = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "max_connections": "60"}
        if not self._safe:
            options["fsync"] = "off"
        flags = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        log = self.folder / "log"
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [*self._as, self._postgres, "-D", str(self.folder / "data"), *flags],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        pidfile, deadline = self.folder / "data" / "postmaster.pid", self._clock.monotonic() + 30
        while not (pidfile.exists() and "ready" in pidfile.read_text()):
            if self._process.poll() is not None or self._clock.monotonic() > deadline:
                self.stop()
                raise StoreUnavailable(f"PostgreSQL did not start: {log.read_text(errors='replace')[-1000:]}", _HINT)
            self._clock.sleep(0.02)

    def stop(self) -> None:
        """Stop the server, cutting its connections; nothing happens when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)  # "fast": roll back, disconnect, checkpoint, end
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)  # "immediate"; takes the server's children along, SIGKILL would not
            process.wait(15)

    def __enter__(self) -> "PrivatePostgres":
        try:
            self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StoreUnavailable("there is no unprivileged user to run PostgreSQL as", "add a system user `postgres`")
