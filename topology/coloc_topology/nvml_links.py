"""How two GPUs are joined, from NVML's facts of both: bonded NVLinks, a common NVSwitch, or the PCIe path."""

from coloc_topology.nvml_facts import NvmlFacts, NvmlGpu, NvmlPair, bus
from coloc_topology.shape import idx, mask_of

PCIE = ("PIX", "PXB", "PHB", "NODE", "SYS")
_FLOOR = "SYS"


class LinkReader:
    """Words of the link matrix, in NVML's numbering; remembers what was uncertain."""

    def __init__(self, facts: NvmlFacts) -> None:
        self._gpus = facts.gpus
        self._pairs = {(min(p.a, p.b), max(p.a, p.b)): p for p in facts.pairs}
        self._buses = {known: gpu.index for gpu in facts.gpus if (known := bus(gpu.bus_id)) is not None}
        self._unread: set[int] = {gpu.index for gpu in facts.gpus if gpu.nvlinks is None}
        self._unjoined: set[tuple[int, int]] = set()
        self._no_path: set[tuple[int, int]] = set()
        self._uneven: set[tuple[int, int]] = set()
        self._blocked: dict[str, set[int]] = {}

    def word(self, a: int, b: int) -> str:
        """nvidia-smi's word for GPUs a and b: `X`, `NV<n>`, or the PCIe path."""
        if a == b:
            return "X"
        pair = self._pairs.get((min(a, b), max(a, b)), NvmlPair(a=a, b=b))
        count = self._bonded(a, b) or self._switched(a, b, pair)
        if count and self._usable(a, b, pair):
            return f"NV{count}"
        if pair.ancestor in PCIE:
            return pair.ancestor
        self._no_path.add((min(a, b), max(a, b)))
        return _FLOOR

    def _ends(self, gpu: NvmlGpu) -> list[int | str | None]:
        """Where the active NVLinks of a GPU lead: index of a GPU of this server, `switch`, `away`, or None: not told."""
        ends: list[int | str | None] = []
        for link in gpu.nvlinks or ():
            if not link.active:
                continue
            there = bus(link.bus_id)
            if there in self._buses and link.remote in (None, "gpu"):
                ends.append(self._buses[there or ""])
            elif link.remote == "switch":
                ends.append("switch")
            else:
                ends.append(None if link.remote is None else "away")
        return ends

    def _bonded(self, a: int, b: int) -> int:
        """Direct NVLinks between two GPUs, as both ends tell; the smaller number when they differ."""
        ones = [self._ends(self._gpus[x]).count(y) for x, y in ((a, b), (b, a)) if self._gpus[x].nvlinks is not None]
        if len(set(ones)) > 1:
            self._uneven.add((min(a, b), max(a, b)))
        return min(ones, default=0)

    def _switched(self, a: int, b: int, pair: NvmlPair) -> int:
        """NVLinks of both GPUs into NVSwitches. An end that is not told counts as one only when peers show a switch."""
        ends = [self._ends(self._gpus[x]) for x in (a, b)]
        known = min(one.count("switch") for one in ends)
        if known:
            return known
        untold = min(one.count("switch") + one.count(None) for one in ends)
        if untold and not (self._all_peers(a) and self._all_peers(b)):
            self._unjoined.add((min(a, b), max(a, b)))
            return 0
        return untold

    def _all_peers(self, a: int) -> bool:
        """Whether NVML says that GPU a reaches every other GPU of the server over NVLink."""
        pairs = [self._pairs.get((min(a, gpu.index), max(a, gpu.index))) for gpu in self._gpus if gpu.index != a]
        return all(pair is not None and pair.p2p_nvlink == "ok" for pair in pairs)

    def _usable(self, a: int, b: int, pair: NvmlPair) -> bool:
        """Whether the NVLinks of the pair work: no refusal of peer access, and one and the same, complete fabric."""
        if pair.p2p_nvlink not in (None, "ok", "unknown"):
            return self._no(f"NVML refuses NVLink peer access ({pair.p2p_nvlink})", a, b)
        fabrics = [self._gpus[x].fabric for x in (a, b)]
        for fabric in fabrics:
            if fabric is not None and fabric.state != "completed":
                return self._no(f"the NVLink fabric is {fabric.state}", a, b)
        one, two = fabrics
        if one is not None and two is not None and (one.cluster, one.clique) != (two.cluster, two.clique):
            return self._no("the NVLink fabric keeps them in different cliques", a, b)
        return True

    def _no(self, why: str, a: int, b: int) -> bool:
        self._blocked.setdefault(why, set()).update((a, b))
        return False

    def notes(self) -> list[str]:
        """What was uncertain in the words asked for so far, one sentence each, in NVML's numbering."""
        told = []
        if self._unread:
            told.append(f"NVLinks of GPU {_set(self._unread)} could not be read, so NVLinks may be missing here")
        if self._unjoined:
            told.append(f"where NVLinks of GPU {_flat(self._unjoined)} lead is not told, so they are not counted")
        if self._uneven:
            told.append(f"GPUs {_flat(self._uneven)} disagree on the NVLinks between them; the smaller number counts")
        if self._no_path:
            told.append(f"the PCIe path between some of GPU {_flat(self._no_path)} is not told; it counts as SYS")
        told += [f"NVLinks of GPU {_set(gpus)} are not counted: {why}" for why, gpus in self._blocked.items()]
        return told


def _set(gpus: set[int]) -> str:
    return idx(mask_of(gpus))


def _flat(pairs: set[tuple[int, int]]) -> str:
    return _set({gpu for pair in pairs for gpu in pair})
