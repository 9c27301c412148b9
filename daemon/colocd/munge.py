"""munge credentials through libmunge: who sent some bytes, from which host, and that nobody saw or changed them.

libmunge by ctypes and not the commands `munge` and `unmunge`: a decode costs a tenth of a millisecond, a fork several
(docs/benchmarks-agent.md). Importing this module costs next to no memory; the agent does so.
"""

import ctypes
import socket
from typing import Any, NamedTuple

from colocd.errors import NotFound

_TTL, _ADDR4, _ENCODED, _DECODED, _SOCKET, _UID_ONLY = 4, 5, 6, 7, 8, 9
SOCKET_ERRORS = (6, 7)
EXPIRED, REWOUND, REPLAYED, UNAUTHORIZED = 15, 16, 17, 18
SUCCESS = 0


class MungeUnreachable(Exception):
    """munged of this host does not answer, or refuses; nothing was sent or read. A passing trouble: it ends no program."""


class Credential(NamedTuple):
    """What a credential says. `error`: munge's code, 0 when it is good; anything else is not to be believed.

    `origin`: IPv4 address of the host it was made on, as that host's munged says; None: not told. `encoded` and `decoded`:
    Unix seconds of the two hosts, None: not told.
    """

    error: int
    why: str
    payload: bytes
    uid: int
    origin: str | None
    encoded: float | None
    decoded: float | None


class Munge:
    """libmunge with its settings; not to be used by two threads at once. `path`: munged's socket, None: munge's default."""

    def __init__(self, path: str | None = None, *, ttl: int | None = None, only_uid: int | None = None) -> None:
        """`ttl`: seconds for which credentials made here are good. `only_uid`: nobody else can read them."""
        try:
            lib = self._lib = ctypes.CDLL("libmunge.so.2")
        except OSError:
            raise NotFound("libmunge.so.2 is not installed here", "install munge (package libmunge2)") from None
        lib.munge_ctx_create.restype = ctypes.c_void_p
        lib.munge_strerror.restype = ctypes.c_char_p
        lib.munge_strerror.argtypes = [ctypes.c_int]
        self._free = ctypes.CDLL(None).free
        self._free.argtypes = [ctypes.c_void_p]
        # Decoding writes the credential's options into its context, so encoding has one of its own.
        self._encoding, self._decoding = (ctypes.c_void_p(lib.munge_ctx_create()) for _ in range(2))
        if not self._encoding or not self._decoding:
            raise MungeUnreachable("libmunge has no memory")
        if path is not None:
            self._set(self._encoding, _SOCKET, ctypes.c_char_p(path.encode()))
            self._set(self._decoding, _SOCKET, ctypes.c_char_p(path.encode()))
        if ttl is not None:
            self._set(self._encoding, _TTL, ctypes.c_int(ttl))
        if only_uid is not None:
            self._set(self._encoding, _UID_ONLY, ctypes.c_uint(only_uid))

    def encode(self, payload: bytes) -> bytes:
        """A credential with this payload; raises `MungeUnreachable`."""
        text = ctypes.c_void_p()
        code = self._lib.munge_encode(ctypes.byref(text), self._encoding, payload, ctypes.c_int(len(payload)))
        try:
            if code != SUCCESS or not text.value:
                raise MungeUnreachable(f"munge gives no credential: {self._words(code)}")
            return ctypes.string_at(text.value)
        finally:
            self._free(text)

    def decode(self, credential: bytes) -> Credential:
        """What a credential says; the credential cannot be decoded twice on this host. Raises `MungeUnreachable`."""
        data, size, uid, gid = ctypes.c_void_p(), ctypes.c_int(0), ctypes.c_uint(0), ctypes.c_uint(0)
        code = self._lib.munge_decode(
            ctypes.c_char_p(credential.partition(b"\0")[0]),
            self._decoding,
            ctypes.byref(data),
            ctypes.byref(size),
            ctypes.byref(uid),
            ctypes.byref(gid),
        )
        try:
            if code in SOCKET_ERRORS:
                raise MungeUnreachable(f"munge does not answer: {self._words(code)}")
            known = code == SUCCESS or code in (EXPIRED, REWOUND, REPLAYED)
            payload = ctypes.string_at(data.value, size.value) if known and data.value and size.value > 0 else b""
        finally:
            self._free(data)
        if not known:
            return Credential(code, self._words(code), b"", -1, None, None, None)
        return Credential(
            code, self._words(code), payload, uid.value, self._origin(), self._time(_ENCODED), self._time(_DECODED)
        )

    def close(self) -> None:
        """Free the contexts."""
        self._lib.munge_ctx_destroy(self._encoding)
        self._lib.munge_ctx_destroy(self._decoding)

    def _origin(self) -> str | None:
        address = (ctypes.c_ubyte * 4)()
        if self._lib.munge_ctx_get(self._decoding, ctypes.c_int(_ADDR4), ctypes.byref(address)) != SUCCESS:
            return None
        return socket.inet_ntoa(bytes(address))

    def _time(self, option: int) -> float | None:
        value = ctypes.c_long()
        found = self._lib.munge_ctx_get(self._decoding, ctypes.c_int(option), ctypes.byref(value))
        return float(value.value) if found == SUCCESS else None

    def _set(self, context: ctypes.c_void_p, option: int, value: Any) -> None:
        code = self._lib.munge_ctx_set(context, ctypes.c_int(option), value)
        if code != SUCCESS:
            raise MungeUnreachable(f"libmunge does not take a setting: {self._words(code)}")

    def _words(self, code: int) -> str:
        return bytes(self._lib.munge_strerror(code) or b"?").decode("utf-8", "replace")
