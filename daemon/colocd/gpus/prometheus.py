"""The site's Prometheus as a source of GPU readings: dcgm-exporter's metrics of all nodes, two queries a round.

`last_over_time` bounds how old a value may be, and `timestamp` tells how old it is: an instant query alone answers with
values of up to five minutes ago as if they were of now.
"""

import math
import threading
from typing import Any

import httpx
import msgspec

from colocd.agent.wire import GpuInfo, GpuSample
from colocd.clock import Clock
from colocd.config_telemetry import PrometheusConfig
from colocd.gpus.seen import Seen, Spell

UTIL, USED, POWER = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE"
XID, DOUBLE_BIT, REMAP_FAILED = (
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE",
)
CLOCK, MEMORY_CLOCK, COPY = "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_MEM_CLOCK", "DCGM_FI_DEV_MEM_COPY_UTIL"
ENGINE, DRAM = "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE"
"""Shares that stand in for `UTIL` and `COPY` where a site exports the profiling metrics instead."""
NAMES = (UTIL, USED, POWER, XID, DOUBLE_BIT, REMAP_FAILED, CLOCK, MEMORY_CLOCK, COPY, ENGINE, DRAM)
WHO, WHAT = "Hostname,gpu,GPU_I_ID", "device,UUID,pci_bus_id,modelName"
"""Labels that are asked for: those of the exporter's pod, driver and jobs would make an answer three times as long."""
LARGEST = 64 << 20
"""Longest answer that is read, in bytes."""
GAP = 3.0


class Series(msgspec.Struct):
    """One series of an instant query."""

    metric: dict[str, str]
    value: tuple[float, str]


class _Data(msgspec.Struct):
    result: list[Series]
    resultType: str = "vector"


class _Answer(msgspec.Struct):
    status: str
    data: _Data | None = None
    error: str = ""


_DECODER = msgspec.json.Decoder(_Answer)


class Prometheus:
    """Implements `GpuSource`; asks in a thread of its own, every `period` seconds. `window`: oldest value that counts."""

    def __init__(self, config: PrometheusConfig, clock: Clock, period: float, window: float) -> None:
        self._config, self._clock, self._period, self._window = config, clock, period, window
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="coloc-prometheus", daemon=True)
        self._names: frozenset[str] = frozenset()
        self._seen: dict[str, Seen] = {}
        self._spells: dict[str, list[Spell]] = {}
        self._problem: str | None = None
        self._asked = self._failed = 0

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join(2 * self._config.timeout + 5)

    def expect(self, addresses: dict[str, str]) -> None:
        """See `GpuSource.expect`; labels name hosts, so the addresses do not matter."""
        with self._lock:
            self._names = frozenset(addresses)
            self._seen = {name: seen for name, seen in self._seen.items() if name in addresses}

    def latest(self) -> dict[str, Seen]:
        """See `GpuSource.latest`."""
        with self._lock:
            return dict(self._seen)

    def drain(self) -> dict[str, list[Spell]]:
        """See `GpuSource.drain`."""
        with self._lock:
            spells, self._spells = self._spells, {}
            return spells

    def counts(self) -> dict[str, int]:
        """See `GpuSource.counts`."""
        return {"queries": self._asked, "queries-failed": self._failed}

    def problems(self) -> tuple[str, ...]:
        """See `GpuSource.problems`."""
        return () if self._problem is None else (self._problem,)

    def _run(self) -> None:
        with httpx.Client(timeout=self._config.timeout, trust_env=False, follow_redirects=False) as client:
            while True:
                self.round(client)
                if self._clock.wait(self._stop, self._period):
                    return

    def round(self, client: httpx.Client) -> None:
        """Ask once; what went wrong is told in `problems`, and then nothing new is known."""
        select = f",{self._config.select}" if self._config.select.strip() else ""
        names = "|".join(NAMES)
        newest = f"timestamp({USED}{{{select.removeprefix(',')}}})"
        last = f'last_over_time({{__name__=~"{names}"{select}}}[{self._window:.0f}s])'
        self._asked += 1
        try:
            times = self._ask(client, f"max by ({WHO},{WHAT}) ({newest})")
            values = self._ask(client, f"max by (__name__,{WHO}) ({last})")
        except (httpx.HTTPError, msgspec.MsgspecError, ValueError) as error:
            self._failed += 1
            self._problem = (
                f"Prometheus at {self._config.url} tells nothing of the GPUs: {error or type(error).__name__}"
            )
            return
        with self._lock:
            known = self._names
        found = readings(times, values, known, self._clock.now() - self._window)
        self._problem = None if found else f"Prometheus at {self._config.url} has no fresh {USED} of any node"
        with self._lock:
            for name, seen in found.items():
                self._take(name, seen)

    def _take(self, name: str, seen: Seen) -> None:
        old = self._seen.get(name)
        if old is not None and seen.at <= old.at:
            return
        if old is not None and seen.at - old.at <= GAP * max(self._period, 15.0):
            told = list(zip(seen.gpus, seen.samples, strict=True))
            spell = Spell(
                seen.at,
                seen.at - old.at,
                {gpu.index: sample.sm for gpu, sample in told if sample.sm is not None},
                {gpu.index: sample.power / 1000 for gpu, sample in told if sample.power is not None},
            )
            self._spells.setdefault(name, []).append(spell)
            del self._spells[name][:-256]
        self._seen[name] = seen

    def _ask(self, client: httpx.Client, query: str) -> list[Series]:
        url = f"{str(self._config.url).rstrip('/')}/api/v1/query"
        with client.stream("POST", url, data={"query": query}) as answer:
            body = bytearray()
            deadline = self._clock.monotonic() + 2 * self._config.timeout
            for part in answer.iter_bytes():
                body += part
                if len(body) > LARGEST or self._clock.monotonic() > deadline:
                    raise ValueError("its answer is too long or too slow")
        if answer.status_code != 200 and not body.startswith(b"{"):
            raise ValueError(f"it answers {answer.status_code}")
        told = _DECODER.decode(body)
        if told.status != "success" or told.data is None or told.data.resultType != "vector":
            raise ValueError(told.error[:200] or f"it answers {answer.status_code}")
        return told.data.result


def readings(times: list[Series], values: list[Series], nodes: frozenset[str], after: float) -> dict[str, Seen]:
    """Readings by node. `times`: when each GPU was scraped last; one scraped before `after` is not told at all.

    `Hostname` is the node's name, or begins with it and a dot. Series of MIG instances are left out: they are not GPUs.
    """
    fresh: dict[tuple[str, int], float] = {}
    labels: dict[tuple[str, int], dict[str, str]] = {}
    for series in times:
        key, at = _key(series.metric, nodes), _number(series.value[1])
        if key is not None and at is not None and after <= at and fresh.get(key, 0.0) <= at:
            fresh[key], labels[key] = at, series.metric
    facts: dict[tuple[str, int], dict[str, float]] = {}
    for series in values:
        key, value = _key(series.metric, nodes), _number(series.value[1])
        if key in fresh and key is not None and value is not None and value >= 0:
            facts.setdefault(key, {})[series.metric.get("__name__", "")] = value
    found: dict[str, Seen] = {}
    by_node: dict[str, list[tuple[str, int]]] = {}
    for key in sorted(fresh):
        by_node.setdefault(key[0], []).append(key)
    for node, keys in by_node.items():
        found[node] = Seen(
            min(fresh[key] for key in keys),
            tuple(_info(key[1], labels[key]) for key in keys),
            tuple(_sample(facts.get(key, {})) for key in keys),
        )
    return found


def _key(labels: dict[str, str], nodes: frozenset[str]) -> tuple[str, int] | None:
    host, gpu = labels.get("Hostname", ""), labels.get("gpu", "")
    name = host if host in nodes else host.partition(".")[0]
    if name not in nodes or labels.get("GPU_I_ID") or not (gpu.isascii() and gpu.isdigit() and int(gpu) < 128):
        return None
    return name, int(gpu)


def _info(index: int, labels: dict[str, str]) -> GpuInfo:
    device = labels.get("device", "").removeprefix("nvidia")
    return GpuInfo(
        index=index,
        minor=int(device) if device.isascii() and device.isdigit() else None,
        uuid=labels.get("UUID"),
        bus_id=labels.get("pci_bus_id"),
        name=labels.get("modelName"),
    )


def _sample(facts: dict[str, float]) -> GpuSample:
    def whole(name: str, factor: float = 1.0, most: float = 1e15) -> int | None:
        value = facts.get(name)
        return None if value is None or value > most else round(value * factor)

    def percent(name: str, share: str) -> int | None:
        told = whole(name, most=100)
        return whole(share, 100, most=1) if told is None else told

    xid, failed = whole(XID), whole(REMAP_FAILED)
    return GpuSample(
        sm=percent(UTIL, ENGINE),
        memory_busy=percent(COPY, DRAM),
        used=whole(USED),
        power=whole(POWER, 1000),
        clock=whole(CLOCK),
        memory_clock=whole(MEMORY_CLOCK),
        ecc=whole(DOUBLE_BIT),
        remap=None if failed is None else 2 * bool(failed),
        xids=(xid,) if xid else (),
    )


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
