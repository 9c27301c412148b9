"""Reads one server's topology through NVML (`pynvml`). Runs on the GPU node; needs no rights and changes nothing."""

import ctypes
import uuid
from collections.abc import Iterable
from typing import Any

from coloc_topology.nvml_facts import Fabric, NvLink, NvmlFacts, NvmlGpu, NvmlPair, bus
from colocd.errors import NotFound

ANCESTORS = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
PEERS = {0: "ok", 1: "chipset", 2: "gpu", 3: "io-hub", 4: "disabled", 5: "unsupported", 6: "unknown"}
REMOTES = {0: "gpu", 1: "npu", 2: "switch"}
FABRICS = {1: "not-started", 2: "in-progress", 3: "completed"}
# pynvml 13 has NVML_P2P_CAPS_INDEX_READ as a tuple, so the header's numbers stand here.
P2P_READ, P2P_NVLINK = 0, 2
WORDS = 64
"""Size of the CPU and NUMA masks that NVML fills, in 64-bit words."""
NONE = -1
"""Stands for `not supported` where that tells something: this GPU has no such link."""
HINT = "run this on a node with NVIDIA GPUs, as somebody who may run nvidia-smi"


class Nvml:
    """NVML, initialised. Every call goes through `ask`; `problems` has what failed, one sentence each."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            raise NotFound("pynvml is not installed here", "install the Python package nvidia-ml-py") from None
        self.lib = pynvml
        self.problems: list[str] = []
        self.codes: set[int] = set()
        """NVML's numbers of the errors that `problems` tells of."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise NotFound(f"NVML cannot be used here: {error}", HINT) from None

    def ask(self, who: str, function: str, *arguments: Any, unsupported: Any = None, also: tuple[int, ...] = ()) -> Any:
        """One NVML call; None when it failed or is not known to this driver, `unsupported` when the GPU has no such thing.

        `also`: further error numbers that mean the same and are no failure of this call.
        """
        call = getattr(self.lib, function, None)
        if call is None:
            return self._fail(who, function, "this pynvml does not know it")
        try:
            return call(*arguments)
        except self.lib.NVMLError as error:
            code = getattr(error, "value", None)
            if code in (self.lib.NVML_ERROR_NOT_SUPPORTED, self.lib.NVML_ERROR_INVALID_ARGUMENT, *also):
                return unsupported
            if code is not None:
                self.codes.add(code)
            if code == self.lib.NVML_ERROR_FUNCTION_NOT_FOUND:
                who = "this driver"  # the same for every GPU
            return self._fail(who, function, str(error))
        except UnicodeDecodeError:
            return self._fail(who, function, "its text cannot be read")

    def _fail(self, who: str, function: str, why: str) -> None:
        text = f"{who}: {function}: {why}"
        if text not in self.problems:
            self.problems.append(text)

    def close(self) -> None:
        """Shut NVML down."""
        self.ask("NVML", "nvmlShutdown")


def read_nvml(host: str | None = None, cores: tuple[str, ...] | None = None) -> NvmlFacts:
    """The facts of this server; `host` and `cores` are put into the record. Raises `NotFound` without a working NVML."""
    nvml = Nvml()
    try:
        count = nvml.ask("NVML", "nvmlDeviceGetCount")
        if count is None:
            raise NotFound(f"NVML tells of no GPU: {'; '.join(nvml.problems)}", HINT)
        handles: dict[int, Any] = {}
        gpus = tuple(_gpu(nvml, index, handles) for index in range(count))
        pairs = tuple(_pair(nvml, a, b, handles) for a in handles for b in handles if a < b)
        driver = nvml.ask("NVML", "nvmlSystemGetDriverVersion")
        return NvmlFacts(host=host, driver=driver, gpus=gpus, pairs=pairs, cores=cores, problems=tuple(nvml.problems))
    finally:
        nvml.close()


def _gpu(nvml: Nvml, index: int, handles: dict[int, Any]) -> NvmlGpu:
    who, known = f"GPU {index}", len(nvml.problems)
    handle = nvml.ask(who, "nvmlDeviceGetHandleByIndex", index)
    if handle is None:
        return NvmlGpu(index=index, lost=(nvml.problems[known:] or ["no handle"])[-1].rpartition(": ")[2])
    pci = nvml.ask(who, "nvmlDeviceGetPciInfo", handle)
    links = _links(nvml, who, handle)
    memory = nvml.ask(who, "nvmlDeviceGetMemoryInfo", handle)
    mig = nvml.ask(who, "nvmlDeviceGetMigMode", handle)
    gone = next((p for p in nvml.problems[known:] if "lost" in p.lower()), None)
    if gone is not None:
        return NvmlGpu(index=index, bus_id=_bus(pci), lost=gone.rpartition(": ")[2])
    handles[index] = handle
    return NvmlGpu(
        index=index,
        uuid=nvml.ask(who, "nvmlDeviceGetUUID", handle),
        name=nvml.ask(who, "nvmlDeviceGetName", handle),
        minor=nvml.ask(who, "nvmlDeviceGetMinorNumber", handle),
        bus_id=_bus(pci),
        memory=None if memory is None else int(memory.total),
        # nvmlDeviceGetNumaNodeId is something else: the node that the GPU's own memory is.
        numa=_numbers(nvml.ask(who, "nvmlDeviceGetMemoryAffinity", handle, WORDS, 0)),
        own_numa=nvml.ask(who, "nvmlDeviceGetNumaNodeId", handle),
        cpus=_list(_numbers(nvml.ask(who, "nvmlDeviceGetCpuAffinity", handle, WORDS))),
        mig=None if mig is None else bool(mig[0]),
        fabric=_fabric(nvml, who, handle),
        nvlinks=links,
    )


def _links(nvml: Nvml, who: str, handle: Any) -> tuple[NvLink, ...] | None:
    found: list[NvLink] = []
    for link in range(nvml.lib.NVML_NVLINK_MAX_LINKS):
        state = nvml.ask(who, "nvmlDeviceGetNvLinkState", handle, link, unsupported=NONE)
        if state == NONE:
            break  # links are numbered without holes
        if state is None:
            return None
        if not state:
            found.append(NvLink(link=link, active=False))
            continue
        kind = nvml.ask(who, "nvmlDeviceGetNvLinkRemoteDeviceType", handle, link)
        pci = nvml.ask(who, "nvmlDeviceGetNvLinkRemotePciInfo", handle, link)
        found.append(NvLink(link=link, active=True, remote=REMOTES.get(kind), bus_id=_bus(pci)))
    return tuple(found)


def _pair(nvml: Nvml, a: int, b: int, handles: dict[int, Any]) -> NvmlPair:
    who, two = f"GPU {a} and {b}", (handles[a], handles[b])
    level = nvml.ask(who, "nvmlDeviceGetTopologyCommonAncestor", *two)
    read = nvml.ask(who, "nvmlDeviceGetP2PStatus", *two, P2P_READ)
    nvlink = nvml.ask(who, "nvmlDeviceGetP2PStatus", *two, P2P_NVLINK)
    return NvmlPair(a=a, b=b, ancestor=ANCESTORS.get(level), p2p_read=PEERS.get(read), p2p_nvlink=PEERS.get(nvlink))


def _fabric(nvml: Nvml, who: str, handle: Any) -> Fabric | None:
    """The GPU's fabric registration; None: it has none (or the driver is older than fabrics)."""
    kind = getattr(nvml.lib, "c_nvmlGpuFabricInfo_v2_t", None)
    if kind is None:
        return None
    info = kind()
    known = len(nvml.problems)
    if nvml.ask(who, "nvmlDeviceGetGpuFabricInfoV", handle, ctypes.byref(info), unsupported=NONE) != 0:
        del nvml.problems[known:]
        info = nvml.lib.c_nvmlGpuFabricInfo_t()
        if nvml.ask(who, "nvmlDeviceGetGpuFabricInfo", handle, ctypes.byref(info), unsupported=NONE) != 0:
            del nvml.problems[known:]  # a driver without the function has no fabric
            return None
    state = FABRICS.get(info.state)
    if state is None:
        return None
    if state == "completed" and info.status != 0:
        return Fabric(state="failed")
    raw = bytes(info.clusterUuid)
    return Fabric(state=state, cluster=str(uuid.UUID(bytes=raw)) if any(raw) else None, clique=int(info.cliqueId))


def _bus(pci: Any) -> str | None:
    if pci is None:
        return None
    text = pci.busId
    return bus(text.decode("ascii", "replace") if isinstance(text, bytes) else str(text))


def _numbers(words: Iterable[int] | None) -> tuple[int, ...] | None:
    """The set bits of NVML's mask; None: not told (an empty mask tells nothing)."""
    if words is None:
        return None
    return tuple(64 * i + bit for i, word in enumerate(words) for bit in range(64) if word >> bit & 1) or None


def _list(numbers: tuple[int, ...] | None) -> str | None:
    if numbers is None:
        return None
    from coloc_topology.shape import idx, mask_of

    return idx(mask_of(numbers))
