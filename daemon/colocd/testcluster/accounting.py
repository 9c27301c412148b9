"""slurmdbd with a MariaDB of its own beside a test cluster: QOS, associations, limits and operators need it."""

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from colocd.clock import Clock
from colocd.errors import ColocError
from colocd.testcluster import processes
from colocd.testcluster.spec import Spec

CLUSTER = "coloctest"
START_TIMEOUT = 30.0
_SYSTEM_TABLES = tuple(Path("/usr/share") / name / "mysql_system_tables.sql" for name in ("mysql", "mariadb"))
_HINT = "install the packages mariadb-server-core and slurmdbd"


def ports(spec: Spec) -> tuple[int, int]:
    """slurmdbd's port and MariaDB's, behind those of the nodes."""
    return spec.port + spec.nodes + 1, spec.port + spec.nodes + 2


def start(spec: Spec, environment: Mapping[str, str], clock: Clock) -> None:
    """Start both and make the cluster known; munged runs already. Raises `ColocError`."""
    base, (dbd_port, sql_port) = Path(spec.base), ports(spec)
    data = base / "mariadb"
    if not data.exists():
        data.mkdir(mode=0o700)
        _first_tables(data, spec, environment)
    conf = base / "slurmdbd.conf"
    conf.touch(mode=0o600)
    conf.write_text(
        f"AuthType=auth/munge\nAuthInfo=socket={base}/run/munge.sock\nDbdHost=localhost\nDbdAddr=127.0.0.1\n"
        f"DbdPort={dbd_port}\nSlurmUser={spec.user}\nLogFile={base}/log/slurmdbd.log\nPidFile={base}/run/slurmdbd.pid\n"
        f"StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\nStoragePort={sql_port}\nStorageUser=root\n"
        "StorageLoc=slurm\n"
    )
    # Nobody but this machine reaches it, and it lives as long as the test: so no passwords.
    server = ["mariadbd", "--no-defaults", f"--user={spec.user}", f"--datadir={data}", "--skip-grant-tables"]
    server += [f"--socket={base}/run/mariadb.sock", "--bind-address=127.0.0.1", f"--port={sql_port}"]
    server += [
        f"--pid-file={base}/run/mariadb.pid",
        "--innodb-buffer-pool-size=16M",
        "--innodb-flush-log-at-trx-commit=0",
    ]
    _spawn(server, environment, base / "log" / "mariadb.start")
    _wait(sql_port, "mariadbd", base / "log" / "mariadb.start", clock)
    _spawn(["slurmdbd", "-D"], environment, base / "log" / "slurmdbd.start")
    _wait(dbd_port, "slurmdbd", base / "log" / "slurmdbd.log", clock)
    _run(["sacctmgr", "-i", "add", "cluster", CLUSTER], environment, again="already exists")


def _first_tables(data: Path, spec: Spec, environment: Mapping[str, str]) -> None:
    """What mariadb-install-db does, which needs a program of another package."""
    found = next((path for path in _SYSTEM_TABLES if path.exists()), None)
    if found is None:
        raise ColocError("MariaDB's mysql_system_tables.sql is missing", hint=_HINT)
    text = f"create database mysql;\nuse mysql;\n{found.read_text()}"
    argv = [
        "mariadbd",
        "--no-defaults",
        "--bootstrap",
        f"--user={spec.user}",
        f"--datadir={data}",
        "--skip-grant-tables",
    ]
    _run(argv, environment, text=text)


def _run(argv: list[str], environment: Mapping[str, str], again: str | None = None, text: str = "") -> None:
    try:
        done = subprocess.run(
            argv, env=dict(environment), capture_output=True, text=True, timeout=60, check=False, cwd="/", input=text
        )
    except FileNotFoundError:
        raise ColocError(f"the command {argv[0]} is missing", hint=_HINT) from None
    said = f"{done.stdout}{done.stderr}".strip()
    if done.returncode and (again is None or again not in said):
        raise ColocError(f"{argv[0]} failed: {said[-500:]}", hint=_HINT)


def _spawn(argv: list[str], environment: Mapping[str, str], log: Path) -> None:
    program = shutil.which(argv[0], path=environment["PATH"])
    if program is None:
        raise ColocError(f"the command {argv[0]} is missing", hint=_HINT)
    # setsid ends at once and leaves the server to init: nobody here has to wait for it
    with log.open("ab") as out:
        subprocess.run(
            ["setsid", "--fork", program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(environment),
            cwd="/",
            check=True,
        )


def _wait(port: int, name: str, log: Path, clock: Clock) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    if not processes.wait_for(answers, START_TIMEOUT, clock, 0.1):
        tail = log.read_text(errors="replace")[-500:] if log.exists() else os.strerror(2)
        raise ColocError(f"{name} did not start: {tail}", hint=f"see {log}")
