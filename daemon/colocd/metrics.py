"""colocd's own Prometheus metrics; names and meaning in docs/metrics.md."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from colocd.core.need import carried, counted, lead_time, need
from colocd.core.view import Record, ReplicaState, View
from colocd.core.wishes import is_wish
from colocd.gpu_use import gpu_busy, gpu_use
from colocd.store.records import Handover

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """One registry per daemon, so that tests and several daemons in one process do not meet."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self._cycles = Histogram("coloc_cycle_seconds", "Duration of a cycle", buckets=_SECONDS, registry=r)
        self._failed = Counter("coloc_cycles_failed", "Cycles that could not read Slurm or the store", registry=r)
        self._viewed = Gauge("coloc_view_timestamp_seconds", "When the last view was made (Unix seconds)", registry=r)
        self._gpus = Gauge("coloc_gpus", "GPUs by who holds them", ["use"], registry=r)
        self._need = Gauge("coloc_service_replicas_needed", "Replicas a service needs", ["service"], registry=r)
        self._have = Gauge("coloc_service_replicas", "Replicas that serve or will", ["service"], registry=r)
        self._ready = Gauge("coloc_service_replicas_ready", "Replicas that are ready", ["service"], registry=r)
        self._load = Gauge(
            "coloc_service_load", "Load in the service's own measure; NaN: unknown", ["service"], registry=r
        )
        self._each = Gauge(
            "coloc_service_capacity", "Load that one replica is planned to carry", ["service", "source"], registry=r
        )
        self._ahead = Gauge("coloc_service_lead_seconds", "From a decision to a ready replica", ["service"], registry=r)
        self._margin = Gauge(
            "coloc_service_margin_ratio",
            "What the load may grow by within the lead time; NaN: unknown",
            ["service"],
            registry=r,
        )
        self._busy = Gauge(
            "coloc_gpus_busy_ratio", "Part of the time in which a kernel ran, 0 to 1", ["use"], registry=r
        )
        self._off = Gauge(
            "coloc_forecast_error_ratio",
            "Mean error of what was told ÷ mean load, lately",
            ["service", "ahead"],
            registry=r,
        )
        self._last_off = Gauge(
            "coloc_forecast_last_value_error_ratio", "The same for the last value", ["service", "ahead"], registry=r
        )
        self._covered = Gauge(
            "coloc_forecast_covered95_ratio", "Share at or below the 0.95 quantile", ["service", "ahead"], registry=r
        )
        self._used = Gauge(
            "coloc_forecast_used", "0: the last value did better and is told instead", ["service", "ahead"], registry=r
        )
        self._told = Gauge("coloc_gpu_nodes_read", "Nodes with a fresh reading of their GPUs", registry=r)
        self._readings = Counter("coloc_gpu_readings", "What agents and Prometheus brought", ["what"], registry=r)
        self._counted: dict[str, int] = {}
        self._calls = Counter("coloc_slurm_calls", "Commands sent to Slurm", ["command"], registry=r)
        self._calling = Counter("coloc_slurm_seconds", "Seconds that Slurm's answers took", ["command"], registry=r)
        self._called: dict[str, tuple[int, float]] = {}
        self._problems = Gauge("coloc_problems", "Readings that failed in the last cycle", registry=r)
        self._paused = Gauge("coloc_paused", "1 while coloc is paused", registry=r)
        self._handovers = Counter("coloc_handovers", "Ended handovers", ["outcome"], registry=r)
        self._victims = Counter("coloc_victims", "Evicted batch jobs", ["acknowledged"], registry=r)
        self._lead = Histogram(
            "coloc_handover_seconds",
            "From decision to released placement",
            buckets=(*_SECONDS, 60, 120, 300),
            registry=r,
        )

    def cycle(self, seconds: float) -> None:
        """Count a finished cycle."""
        self._cycles.observe(seconds)

    def failed(self) -> None:
        """Count a cycle that had no view: all gauges are as old as `coloc_view_timestamp_seconds` then."""
        self._failed.inc()

    def seen(self, view: View) -> None:
        """Show a view."""
        for use, count in gpu_use(view).items():
            self._gpus.labels(use).set(count)
        self._viewed.set(view.at)
        self._problems.set(len(view.problems))
        self._paused.set(view.paused is not None)
        for gauge in (self._need, self._have, self._ready, self._load, self._each, self._ahead, self._margin):
            gauge.clear()
        for gauge in (self._off, self._last_off, self._covered, self._used):
            gauge.clear()
        for service in view.services:
            name = service.spec.name
            if is_wish(name):
                continue  # a label per job would grow without end
            self._need.labels(name).set(need(service, view.policy, view.at).now)
            self._have.labels(name).set(len(counted(service)))
            self._ready.labels(name).set(sum(r.state is ReplicaState.READY for r in service.replicas))
            self._load.labels(name).set(service.load.value if service.load is not None else float("nan"))
            for record in service.forecast.records if service.forecast is not None else ():
                self._foreseen(name, record)

            learned = service.capacity is not None and service.capacity.learned
            self._each.labels(name, "learned" if learned else "configured").set(carried(service))
            self._ahead.labels(name).set(lead_time(service))
            self._margin.labels(name).set(service.surge.share if service.surge is not None else float("nan"))
        self._told.set(len(view.gpus))
        self._busy.clear()
        for use, share in gpu_busy(view).items():
            self._busy.labels(use).set(share)

    def _foreseen(self, name: str, record: Record) -> None:
        ahead = f"{record.ahead:.0f}"
        self._off.labels(name, ahead).set(record.wape)
        self._last_off.labels(name, ahead).set(record.persistence)
        self._covered.labels(name, ahead).set(record.covered95)
        self._used.labels(name, ahead).set(not record.lost)

    def asked(self, usage: Mapping[str, tuple[int, float]]) -> None:
        """Bring the counters of calls to Slurm up to these sums."""
        for command, (calls, seconds) in usage.items():
            before = self._called.get(command, (0, 0.0))
            self._calls.labels(command).inc(calls - before[0])
            self._calling.labels(command).inc(max(0.0, seconds - before[1]))
        self._called = dict(usage)

    def readings(self, counts: Mapping[str, int]) -> None:
        """Bring the counters of GPU readings up to these sums."""
        for what, count in counts.items():
            self._readings.labels(what).inc(max(0, count - self._counted.get(what, 0)))
        self._counted = dict(counts)

    def handover(self, h: Handover) -> None:
        """Count an ended handover."""
        self._handovers.labels(h.state.value).inc()
        acked = set(h.data.get("acked", ()))
        for ref in h.data.get("evicted", ()):
            self._victims.labels("yes" if ref in acked else "no").inc()
        if h.state == "released":
            self._lead.observe(max(0.0, h.updated_at - h.created_at))

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
