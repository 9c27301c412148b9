"""Critical XIDs of this boot: a failed GPU stays failed when the agent is started again, until the node was."""

import json
import os
from pathlib import Path

import msgspec

BOOT_ID = "/proc/sys/kernel/random/boot_id"
_KEPT = 32


class _File(msgspec.Struct):
    boot: str
    xids: dict[str, list[int]] = {}


class FaultMemory:
    """XIDs by the GPU's uuid, in a file (in /run, say). A file that cannot be read or written is no file."""

    def __init__(self, path: str | None, boot_id: str = BOOT_ID) -> None:
        self._path = Path(path) if path is not None else None
        try:
            self._boot = Path(boot_id).read_text().strip()
        except OSError:
            self._boot = "unknown"
        self._xids: dict[str, list[int]] = {}
        if self._path is not None:
            try:
                old = msgspec.json.decode(self._path.read_bytes(), type=_File)
            except (OSError, msgspec.MsgspecError):
                return
            if old.boot == self._boot:
                self._xids = {uuid: [x for x in xids if 0 <= x < 1 << 31] for uuid, xids in old.xids.items()}

    def add(self, uuid: str, xid: int) -> None:
        """Remember an XID of a GPU; the file is replaced as a whole."""
        known = self._xids.setdefault(uuid, [])
        if xid in known or len(known) >= _KEPT:
            return
        known.append(xid)
        if self._path is None:
            return
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.write_text(json.dumps({"boot": self._boot, "xids": self._xids}))
            os.replace(new, self._path)
        except OSError:
            return

    def of(self, uuid: str | None) -> tuple[int, ...]:
        """The XIDs of a GPU, in the order in which they came."""
        return tuple(self._xids.get(uuid, ())) if uuid is not None else ()
