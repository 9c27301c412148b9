"""Reads the GPUs of this node through NVML, again and again, and lives through lost GPUs and restarts of the driver."""

import ctypes
from collections.abc import Callable
from typing import Any

from colocd.agent.faults import FaultMemory
from colocd.agent.jobs import JobFinder
from colocd.agent.wire import GpuInfo, GpuSample, Instance, JobUse
from colocd.errors import NotFound
from colocd.telemetry.nvml import Nvml

MIB = 1 << 20
SM_CLOCK, MEMORY_CLOCK = 1, 2
UNCORRECTED, CORRECTED, VOLATILE = 1, 0, 0
UNINITIALIZED, NOT_FOUND, DRIVER_NOT_LOADED, TIMEOUT, LOST, RESET_REQUIRED, MISMATCH = 1, 6, 9, 10, 15, 16, 18
RESTARTED = frozenset({UNINITIALIZED, DRIVER_NOT_LOADED, MISMATCH})
"""Errors that say that the driver went away under us."""
LINK_ERRORS = (38, 52, 59)  # CRC flits, replays, recoveries: totals over all links
TX, RX = 138, 139
ALL_LINKS = 0xFFFFFFFF
MAX_EVENTS = 64
LOOK_AGAIN = 12
"""Samples after which NVML is opened anew while a GPU cannot be read: after its reset the old handle stays dead."""


class DriverReplaced(Exception):
    """The driver was upgraded under this process; only a new process gets the new library."""

    exit_code = 75


class Sampler:
    """`read` gives the GPUs and one sample of each, or None while NVML tells nothing; `problems` says why."""

    def __init__(self, jobs: JobFinder, faults: FaultMemory, open_nvml: Callable[[], Nvml] = Nvml) -> None:
        self._jobs, self._faults, self._open = jobs, faults, open_nvml
        self._nvml: Nvml | None = None
        self._gpus: list[tuple[GpuInfo, Any]] = []
        self._why: dict[int, str] = {}
        self._known: dict[int, GpuInfo] = {}
        self._events: Any = None
        self._lost_for = 0
        self._refused: tuple[str, ...] = ()
        self.problems: tuple[str, ...] = ()

    def read(self) -> tuple[tuple[GpuInfo, ...], tuple[GpuSample, ...]] | None:
        """One sample. A driver that went away makes a hole, and NVML is opened anew the next time."""
        nvml = self._ready()
        if nvml is None:
            return None
        nvml.problems.clear()
        nvml.codes.clear()
        count = nvml.ask("NVML", "nvmlDeviceGetCount")
        self._take_events(nvml)
        samples = tuple(self._gpu(nvml, info, handle) for info, handle in self._gpus)
        self.problems = tuple([*self._refused, *nvml.problems][:16])
        if nvml.codes & RESTARTED or count != len(self._gpus):
            self.close()
            return None
        dead = any(handle is None for _, handle in self._gpus) or any(sample.lost for sample in samples)
        self._lost_for = self._lost_for + 1 if dead else 0
        if self._lost_for >= LOOK_AGAIN:
            self.close()
        return tuple(info for info, _ in self._gpus), samples

    def close(self) -> None:
        """Let go of NVML; the next `read` opens it again."""
        if self._nvml is not None:
            self._nvml.close()
        self._nvml, self._events, self._lost_for = None, None, 0

    def _ready(self) -> Nvml | None:
        if self._nvml is not None:
            return self._nvml
        try:
            nvml = self._open()
        except NotFound as error:
            if "mismatch" in str(error).lower():
                raise DriverReplaced(str(error)) from None
            self.problems = (str(error)[:300],)
            return None
        count = nvml.ask("NVML", "nvmlDeviceGetCount")
        if count is None:
            self.problems = tuple(nvml.problems[:16])
            nvml.close()
            return None
        if count != len(self._known):
            self._known = {}  # NVML numbers the GPUs anew
        self._nvml, self._why = nvml, {}
        self._gpus = [self._meet(nvml, index) for index in range(min(count, 128))]
        self._refused = tuple(problem for problem in nvml.problems if "nvmlDeviceGetHandleByIndex" in problem)
        self._listen(nvml)
        return nvml

    def _meet(self, nvml: Nvml, index: int) -> tuple[GpuInfo, Any]:
        who, before = f"GPU {index}", set(nvml.codes)
        nvml.codes.clear()
        handle = nvml.ask(who, "nvmlDeviceGetHandleByIndex", index)
        lost, nvml.codes = _lost(nvml.codes), nvml.codes | before
        if handle is None:
            if lost is not None:  # any other refusal (no permission, say) does not condemn the GPU
                self._why[index] = lost
            return self._known.get(index, GpuInfo(index=index)), None
        pci = nvml.ask(who, "nvmlDeviceGetPciInfo", handle)
        memory = nvml.ask(who, "nvmlDeviceGetMemoryInfo", handle)
        mig = nvml.ask(who, "nvmlDeviceGetMigMode", handle)
        info = GpuInfo(
            index=index,
            minor=nvml.ask(who, "nvmlDeviceGetMinorNumber", handle),
            uuid=nvml.ask(who, "nvmlDeviceGetUUID", handle),
            bus_id=None if pci is None else _text(pci.busId),
            name=nvml.ask(who, "nvmlDeviceGetName", handle),
            memory=None if memory is None else int(memory.total) // MIB,
            mig=None if mig is None else bool(mig[0]),
        )
        if info.uuid is not None:
            self._known[index] = info
        return info, handle

    def _listen(self, nvml: Nvml) -> None:
        """Ask for critical XIDs; a driver or GPU without events tells none, which is no failure."""
        self._events = nvml.ask("NVML", "nvmlEventSetCreate")
        if self._events is None:
            return
        kind = nvml.lib.nvmlEventTypeXidCriticalError
        for info, handle in self._gpus:
            if handle is not None:
                nvml.ask(f"GPU {info.index}", "nvmlDeviceRegisterEvents", handle, kind, self._events, unsupported=False)

    def _take_events(self, nvml: Nvml) -> None:
        for _ in range(MAX_EVENTS if self._events is not None else 0):
            event = nvml.ask("NVML", "nvmlEventSetWait", self._events, 0, unsupported=None, also=(TIMEOUT, LOST))
            if event is None:
                return
            place = _address(event.device)
            info = next((i for i, handle in self._gpus if handle is not None and _address(handle) == place), None)
            if info is not None and info.uuid is not None and event.eventType & nvml.lib.nvmlEventTypeXidCriticalError:
                self._faults.add(info.uuid, int(event.eventData))

    def _gpu(self, nvml: Nvml, info: GpuInfo, handle: Any) -> GpuSample:
        xids = self._faults.of(info.uuid)
        if handle is None:
            return GpuSample(lost=self._why.get(info.index), xids=xids)
        who, ask, before = f"GPU {info.index}", nvml.ask, set(nvml.codes)
        nvml.codes.clear()
        rates = ask(who, "nvmlDeviceGetUtilizationRates", handle)
        memory = ask(who, "nvmlDeviceGetMemoryInfo", handle)
        power = ask(who, "nvmlDeviceGetPowerUsage", handle)
        clocks = [ask(who, "nvmlDeviceGetClockInfo", handle, kind) for kind in (SM_CLOCK, MEMORY_CLOCK)]
        ecc, corrected = (
            ask(who, "nvmlDeviceGetTotalEccErrors", handle, kind, VOLATILE) for kind in (UNCORRECTED, CORRECTED)
        )
        links = self._links(nvml, who, handle)
        remap = self._remap(nvml, who, handle)
        jobs = self._processes(nvml, who, handle)
        instances = self._instances(nvml, who, handle) if info.mig else None
        lost = _lost(nvml.codes)
        nvml.codes |= before
        return GpuSample(
            sm=None if rates is None else _percent(rates.gpu),
            memory_busy=None if rates is None else _percent(rates.memory),
            used=None if memory is None else int(memory.used) // MIB,
            power=power,
            clock=clocks[0],
            memory_clock=clocks[1],
            nvlink_tx=links[0],
            nvlink_rx=links[1],
            nvlink_errors=links[2],
            ecc=ecc,
            corrected=corrected,
            remap=remap,
            xids=xids,
            lost=lost,
            jobs=jobs,
            instances=instances,
        )

    def _links(self, nvml: Nvml, who: str, handle: Any) -> tuple[int | None, int | None, int | None]:
        fields = [(TX, ALL_LINKS), (RX, ALL_LINKS), *((field, 0) for field in LINK_ERRORS)]
        found = nvml.ask(who, "nvmlDeviceGetFieldValues", handle, fields)
        if found is None:
            return None, None, None
        told = [int(v.value.ullVal) if v.nvmlReturn == 0 else None for v in found]
        errors = [n for n in told[2:] if n is not None]
        return told[0], told[1], sum(errors) if errors else None

    def _remap(self, nvml: Nvml, who: str, handle: Any) -> int | None:
        """Ampere and later remap rows; GPUs before it retire pages."""
        rows = nvml.ask(who, "nvmlDeviceGetRemappedRows", handle)
        if rows is not None:
            return int(bool(rows[2])) | 2 * int(bool(rows[3]))
        pages = nvml.ask(who, "nvmlDeviceGetRetiredPagesPendingStatus", handle)
        return None if pages is None else int(bool(pages))

    def _processes(self, nvml: Nvml, who: str, handle: Any) -> tuple[JobUse, ...] | None:
        found = nvml.ask(who, "nvmlDeviceGetComputeRunningProcesses", handle)
        if found is None:
            return None
        jobs: dict[str, tuple[int, int | None]] = {}
        for process in found[:1024]:
            job = self._jobs.job_of(process.pid)
            count, memory = jobs.get(job, (0, 0))
            used = process.usedGpuMemory
            jobs[job] = (count + 1, None if used is None or memory is None else memory + int(used) // MIB)
        return tuple(JobUse(job, *use) for job, use in sorted(jobs.items())[:256])

    def _instances(self, nvml: Nvml, who: str, handle: Any) -> tuple[Instance, ...]:
        """The MIG instances. Their utilisation is not to be had from NVML; the GPU's own is not told either while MIG is on."""
        found = []
        for number in range(min(nvml.ask(who, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0, 16)):
            one = nvml.ask(who, "nvmlDeviceGetMigDeviceHandleByIndex", handle, number, also=(NOT_FOUND,))
            if one is None:
                continue
            memory = nvml.ask(who, "nvmlDeviceGetMemoryInfo", one)
            used, total = (None, None) if memory is None else (int(memory.used) // MIB, int(memory.total) // MIB)
            uuid = nvml.ask(who, "nvmlDeviceGetUUID", one)
            found.append(Instance(uuid, used, total, self._processes(nvml, who, one)))
        return tuple(found)


def _lost(codes: set[int]) -> str | None:
    return "GPU is lost" if LOST in codes else "GPU requires a reset" if RESET_REQUIRED in codes else None


def _percent(value: int) -> int | None:
    return value if 0 <= value <= 100 else None


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
