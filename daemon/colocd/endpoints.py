"""Which replicas take requests: as an answer of the API, and as files that routers read. Draining ones are on no list.

Files are replaced as a whole, and only when they change, so a router that watches them reloads only then.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from colocd.core.service import ServiceSpec
from colocd.core.view import ReplicaState
from colocd.store.records import ReplicaRow

DEAD = "127.0.0.1:9"
"""An address at which nothing answers: nginx takes no upstream without a server."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that takes requests. `address` is Slurm's NodeAddr of its node."""

    slot: int
    address: str
    port: int
    node: str
    job: str | None

    @property
    def target(self) -> str:
        """`address:port`, an IPv6 address in brackets."""
        host = f"[{self.address}]" if ":" in self.address and not self.address.startswith("[") else self.address
        return f"{host}:{self.port}"


def endpoints_of(spec: ServiceSpec, rows: Iterable[ReplicaRow], addresses: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """The ready replicas of a service by slot. `addresses`: NodeAddr by node name; a replica without one is left out."""
    found = []
    for row in sorted(rows, key=lambda r: r.slot):
        address = addresses.get(row.node or "")
        if row.service == spec.name and row.state == ReplicaState.READY.value and row.node and address:
            port = spec.port_base + row.slot
            found.append(Endpoint(slot=row.slot, address=address, port=port, node=row.node, job=row.job))
    return tuple(found)


def file_sd(service: str, endpoints: Sequence[Endpoint]) -> str:
    """Prometheus' file_sd: one group a replica, so that each has its slot as a label."""
    groups = [
        {"targets": [e.target], "labels": {"service": service, "slot": str(e.slot), "node": e.node}} for e in endpoints
    ]
    return json.dumps(groups, indent=1) + "\n"


def haproxy(service: str, endpoints: Sequence[Endpoint]) -> str:
    """A backend section for `haproxy -f FOLDER`; without a replica it answers 503."""
    lines = [f"    server slot{e.slot} {e.target} check" for e in endpoints]
    return "\n".join([f"backend coloc-{service}", "    balance leastconn", *lines]) + "\n"


def nginx(service: str, endpoints: Sequence[Endpoint]) -> str:
    """An upstream block to include; without a replica it holds one that is down."""
    lines = [f"    server {e.target};" for e in endpoints] or [f"    server {DEAD} down;"]
    return "\n".join([f"upstream coloc-{service} {{", "    least_conn;", *lines, "}"]) + "\n"


KINDS = {".file_sd.json": file_sd, ".haproxy.cfg": haproxy, ".nginx.conf": nginx}


class EndpointFiles:
    """Keeps `NAME.file_sd.json`, `NAME.haproxy.cfg` and `NAME.nginx.conf` of all services in a folder that is coloc's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, services: Mapping[str, Sequence[Endpoint]]) -> str | None:
        """Bring the files up to date; why that is not possible now, or None."""
        try:
            wanted = {f"{name}{end}": make(name, e) for name, e in services.items() for end, make in KINDS.items()}
            for name, text in wanted.items():
                self._replace(self._folder / name, text)
            for found in self._folder.iterdir():
                if found.name.endswith(tuple(KINDS)) and found.name not in wanted and not found.name.startswith("."):
                    found.unlink()
        except OSError as error:
            return f"endpoint files in {self._folder} cannot be written: {error.strerror or error}"
        return None

    def _replace(self, path: Path, text: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            if path.read_text(encoding="utf-8") == text:
                return
        new = path.with_name(f".{path.name}.new")
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        new.replace(path)
