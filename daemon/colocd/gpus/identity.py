"""Whether a credential comes from the agent of the node that the batch claims: user, host, and munge's own verdict."""

import hashlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from colocd.clock import Clock
from colocd.munge import EXPIRED, REPLAYED, REWOUND, SUCCESS, Credential

LOOK_EVERY = 60.0
"""Seconds after which the hosts file is read again and old look-ups are renewed, though the nodes are the same."""
KEEP, KEEP_FAILURE = 600.0, 60.0
"""Seconds for which the addresses of a name are believed, and for which a name without any is not asked for again."""


REMEMBERED = 150.0
"""Seconds for which a credential is remembered: longer than agents' credentials are good, on clocks that differ as much."""


class Refused(Exception):
    """The batch is not believed; the message says why in one sentence, `kind` in one word."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Once:
    """Credentials that were believed lately: munged refuses replays, too, but forgets them when it is started again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[bytes, float] = {}

    def take(self, found: Credential) -> None:
        """Raises `Refused` for what was taken before. By its content: its text can be written in several ways."""
        now = self._clock.monotonic()
        for old in list(islice(self._seen, 16)):
            if now - self._seen[old] > REMEMBERED:
                del self._seen[old]
        key = hashlib.sha256(f"{found.encoded} {found.origin} ".encode() + found.payload).digest()
        if key in self._seen:
            raise Refused("replayed", "this credential was used before")
        self._seen[key] = now


def look_up(name: str) -> frozenset[str]:
    """IPv4 addresses of a name; empty: it has none, or nobody knows now."""
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(name, None, socket.AF_INET))
    except OSError:
        return frozenset()


class Identity:
    """Nodes by the addresses of their NodeAddr and name. Names are looked up aside, so that a slow DNS holds nothing up."""

    def __init__(
        self, uid: int, hosts: str | None, clock: Clock, resolve: Callable[[str], frozenset[str]] = look_up
    ) -> None:
        self._uid, self._hosts, self._clock, self._resolve = uid, hosts, clock, resolve
        self._lock = threading.Lock()
        self._names: dict[str, tuple[str, ...]] = {}
        self._fixed: dict[str, set[str]] = {}
        self._known: dict[str, tuple[float, frozenset[str]]] = {}
        self._asked: set[str] = set()
        self._told: dict[str, str] | None = None
        self._look_at = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="coloc-names")
        self.problem: str | None = None

    def expect(self, addresses: dict[str, str]) -> None:
        """The nodes of the cluster, with their NodeAddr; reads the hosts file again, too."""
        now = self._clock.monotonic()
        if addresses == self._told and now < self._look_at:
            return
        self._told, self._look_at = addresses, now + LOOK_EVERY
        fixed, problem = _read_hosts(self._hosts) if self._hosts is not None else ({}, None)
        with self._lock:
            self._names = {name: (address, name) for name, address in addresses.items()}
            self._fixed, self.problem = fixed, problem
        for name, address in addresses.items():
            if name not in fixed:
                self._addresses(address)

    def believe(self, found: Credential) -> None:
        """Whether munge vouches for it and the user is the agents'; raises `Refused`."""
        if found.error in (EXPIRED, REWOUND) and found.encoded is not None and found.decoded is not None:
            apart = found.decoded - found.encoded
            side = "behind" if apart > 0 else "ahead of"
            raise Refused(
                "clock", f"the node's clock is {abs(apart):.0f} s {side} the head node's, or the batch was held up"
            )
        if found.error == REPLAYED:
            raise Refused("replayed", "this credential was used before")
        if found.error != SUCCESS:
            raise Refused("credential", f"munge says: {found.why}")
        if found.uid != self._uid:
            raise Refused("user", f"it was sent by user {found.uid}, not by the agents' user {self._uid}")

    def match(self, node: str, origin: str | None) -> None:
        """Whether a credential that was made on the host with address `origin` may speak for `node`; raises `Refused`."""
        with self._lock:
            names, fixed = self._names.get(node), self._fixed.get(node)
        if names is None:
            raise Refused("node", f"Slurm has no node {node}")
        if fixed is not None:
            allowed: set[str] = fixed
        else:
            told = [self._addresses(name) for name in dict.fromkeys(names)]
            allowed = set().union(*(found for found in told if found is not None))
            if not allowed and None in told:
                raise Refused("waiting", f"the address of {node} is being looked up")
        if origin in allowed:
            return
        local = origin is None or origin == "0.0.0.0" or origin.startswith("127.")
        if local and not any(address.startswith("127.") for address in allowed):
            raise Refused("origin", f"munged there gives {origin} as its address: start it with --origin")
        said = ", ".join(sorted(allowed)) or "unknown"
        raise Refused("host", f"it comes from {origin}, but the address of {node} is {said}")

    def close(self) -> None:
        """End the look-ups."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _addresses(self, name: str) -> frozenset[str] | None:
        """Addresses of a name; None: not looked up yet. Old ones are used while they are looked up again."""
        try:
            return frozenset({str(ipaddress.IPv4Address(name))})
        except ValueError:
            pass
        now = self._clock.monotonic()
        with self._lock:
            at, found = self._known.get(name, (None, None))
            old = at is None or now - at > (KEEP if found else KEEP_FAILURE)
            if old and name not in self._asked:
                self._asked.add(name)
                self._pool.submit(self._ask, name)
        return found

    def _ask(self, name: str) -> None:
        found = self._resolve(name)
        with self._lock:
            kept = self._known.get(name, (0.0, frozenset()))[1]
            self._known[name] = (self._clock.monotonic(), found or kept)
            self._asked.discard(name)


def _read_hosts(path: str) -> tuple[dict[str, set[str]], str | None]:
    """Addresses by name of a file like /etc/hosts, and what is wrong with it."""
    fixed: dict[str, set[str]] = {}
    try:
        text = Path(path).read_text(errors="replace")
    except OSError as error:
        return {}, f"agents' hosts file {path}: {error.strerror or 'cannot be read'}"
    for number, line in enumerate(text.splitlines(), start=1):
        address, *names = line.partition("#")[0].split() or [""]
        if not address:
            continue
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            return {}, f"agents' hosts file {path}:{number}: {address[:40]!r} is no IPv4 address"
        for name in names:
            fixed.setdefault(name, set()).add(address)
    return fixed, None
