"""Who asks: the kernel's word about the process at the other end of a Unix socket."""

import contextvars
import grp
import os
import pwd
import socket
import struct
from asyncio import BaseTransport, Transport
from typing import cast

import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

_CREDENTIALS = struct.Struct("3i")
_NOBODY = -1


class Peer(msgspec.Struct, frozen=True):
    """A caller. `uid` -1: the kernel did not say; such a caller has no rights beyond reading what everybody may."""

    uid: int

    @property
    def name(self) -> str:
        """The user's name, or the number of one that has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except (KeyError, OverflowError):
            return f"uid {self.uid}"

    def is_in(self, group: str | None) -> bool:
        """Whether the user is in the group, by the group file or as its primary group; None: no group."""
        if group is None:
            return False
        try:
            entry, who = grp.getgrnam(group), pwd.getpwuid(self.uid)
        except (KeyError, OverflowError):
            return False
        return who.pw_gid == entry.gr_gid or who.pw_name in entry.gr_mem

    def sees_all(self, group: str | None) -> bool:
        """Root, colocd's own user and operators see all jobs where a site hides them from others."""
        return self.uid in (0, os.geteuid()) or self.is_in(group)


_peer: contextvars.ContextVar[Peer | None] = contextvars.ContextVar("peer", default=None)


def peer() -> Peer | None:
    """Who the present request is from; None outside of a request (colocd itself)."""
    return _peer.get()


def enter(uid: object) -> None:
    """Note who the present request is from: `uid` as `PeerProtocol` put it into the request's scope."""
    _peer.set(Peer(int(uid)) if isinstance(uid, str) and uid.isdigit() else Peer(_NOBODY))


class PeerProtocol(H11Protocol):
    """HTTP over a Unix socket whose client is (user id, process id)."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Ask the kernel once per connection; it tells who connected, whatever that process became later."""
        super().connection_made(cast("Transport", transport))
        sock = transport.get_extra_info("socket")
        try:
            pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        except (OSError, AttributeError, struct.error):
            pid, uid = 0, _NOBODY
        self.client = (str(uid), pid)


def signed(text: str) -> str:
    """The text of a decision with who asked for it."""
    who = peer()
    return text if who is None else f"{text}, by {who.name}"
