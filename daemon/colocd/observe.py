"""Observe: one reading of Slurm, the services and the store becomes one immutable view."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from colocd.act.adoption import KEPT
from colocd.act.tools import OVERRIDE, RETRY, brief
from colocd.asked import Asked
from colocd.clock import Clock
from colocd.config import Config
from colocd.core.need import need
from colocd.core.room import spread
from colocd.core.seats import in_order
from colocd.core.service import Measure, ServiceSpec
from colocd.core.view import Held, Job, Reading, Replica, ReplicaState, ServiceView, View
from colocd.core.wishes import served
from colocd.errors import BadFile, SlurmRefused, SlurmUnknown, SlurmUnreachable
from colocd.forecasters import Forecasters
from colocd.gpus.board import GpuBoard
from colocd.learning import Learner
from colocd.memory import Memory
from colocd.network import NOWHERE
from colocd.servicefile import spec_from_json
from colocd.shapes import LoadedShapes, load_shapes
from colocd.site_check import SiteWatch, Weight, blocking
from colocd.slurm.port import Cluster, SlurmPort
from colocd.store.port import Store
from colocd.store.records import Handover, LoadSample, ReplicaRow, ServiceRow
from colocd.telemetry.busy import busy_load
from colocd.telemetry.load import LoadReader, ServiceLoad
from colocd.telemetry.scrape import Scraper
from colocd.telemetry.targets import load_targets, ready_urls
from colocd.traces import Recent, Traces

log = logging.getLogger(__name__)

ASK_AGAIN = 300.0
"""Seconds after a failed reading of Slurm's topology until it is asked again: a call per cycle would be too much."""


class Observed(msgspec.Struct, frozen=True):
    """A view, and what only the acting side needs of the same readings."""

    view: View
    cluster: Cluster
    ready: dict[tuple[str, int], bool | None]
    idle: set[tuple[str, int]]
    odd: tuple[str, ...] = ()
    """What of the site's set-up is not as coloc would like it, one sentence each."""
    private: bool = False
    """The site hides people's jobs from each other."""


class Observer:
    """Builds views; remembers load histories, counters and since when a service's load is low."""

    def __init__(
        self, slurm: SlurmPort, store: Store, clock: Clock, scraper: Scraper, period: float, board: GpuBoard
    ) -> None:
        self._slurm = slurm
        self._store = store
        self._clock = clock
        self._scraper = scraper
        self._board = board
        self._memory = Memory(store)
        self._loads = LoadReader(max_gap=max(180.0, 3 * period))
        self._traces = Traces(store)
        self._recent = Recent(store)
        self._learner = Learner(store)
        self._forecasters = Forecasters(self._traces, clock)
        self._low_since: dict[str, float] = {}
        self._site = SiteWatch(slurm, clock)
        self._asked = Asked(slurm)
        self._shapes: tuple[tuple[tuple[str, int], ...], LoadedShapes] | None = None
        self._ask_again: float | None = None

    def forget_topology(self) -> None:
        """Read the topology files again with the next view (after a reload)."""
        self._shapes = None
        self._board.forget_topology()

    def shapes(self, config: Config, cluster: Cluster) -> LoadedShapes:
        """Shapes of the cluster's nodes, read again when the nodes change."""
        key = tuple((n.name, n.gpus) for n in cluster.nodes)
        late = self._ask_again is not None and self._clock.monotonic() >= self._ask_again
        if self._shapes is None or self._shapes[0] != key or late:
            told, problems = self._network()
            loaded = load_shapes(config.topology, key, config.slurm.conf, told)
            self._shapes = (key, loaded._replace(problems=loaded.problems + problems))
            for problem in self._shapes[1].problems:
                log.warning("%s", problem)
        return self._shapes[1]

    def _network(self) -> tuple[str | None, tuple[str, ...]]:
        """What Slurm says of switches and blocks, asked with the topology files only: it changes as seldom as these.

        After a failure it is asked again, `ASK_AGAIN` later: until then no domain that only Slurm knows is used.
        """
        self._ask_again = None
        try:
            return self._slurm.topology(), ()
        except (SlurmRefused, SlurmUnreachable, SlurmUnknown) as error:
            self._ask_again = self._clock.monotonic() + ASK_AGAIN
            again = f"Slurm is asked again after {ASK_AGAIN / 60:.0f} min or at a reload"
            return None, (f"switches and blocks that only Slurm knows are unknown, {again}: {error}",)

    def observe(self, config: Config) -> Observed:
        """Read everything. Raises Slurm's and the store's errors: without them there is no view to act on."""
        cluster = self._slurm.read()
        cluster = msgspec.structs.replace(cluster, jobs=spread(cluster.jobs, cluster.nodes))
        loaded = self.shapes(config, cluster)
        handovers = self._store.handovers(only_open=True)
        specs, rows, problems = self._specs()
        gpus = self._board.look(config, cluster.nodes, cluster.jobs)
        problems += gpus.problems
        findings, config = self._site.look(cluster, config), self._site.weigh(config)
        problems += cluster.notes + loaded.problems + tuple(f.text for f in findings if f.weight is Weight.ERROR)
        replicas = _replicas(self._store.replicas(), handovers)
        addresses = {n.name: n.address for n in cluster.nodes}
        targets = [t for s in specs.values() for t in load_targets(s, replicas, addresses)]
        answers = self._scraper.read(targets)
        urls = {key: url for s in specs.values() for key, url in ready_urls(s, replicas, addresses).items()}
        ready = {(k[0], k[1]): v for k, v in self._scraper.ready(urls).items()}  # type: ignore[index]
        now = self._clock.now()
        loads = {
            name: busy_load(s, replicas, gpus.readings)
            if s.load.measure is Measure.BUSY
            else self._loads.read(s, replicas, answers)  # type: ignore[arg-type]
            for name, s in specs.items()
        }
        problems += tuple(p for load in loads.values() for p in load.problems)
        self._remember(specs, loads, now)
        self._learner.watch(specs, loads, now)
        shared = sum(n.gpus for n in cluster.nodes if n.up and set(n.partitions) & set(config.policy.batch_partitions))
        memory = self._memory.look(cluster.jobs, handovers, config.policy, shared, now)
        self._forecasters.begin(specs)
        services = tuple(self._service(specs, r, replicas, loads[r.name], config, now) for r in rows if r.name in specs)
        nodes = tuple(
            msgspec.structs.replace(
                n,
                shape=loaded.nodes.get(n.name),
                unfit=gpus.unfit.get(n.name, ()),
                nvlink_domain=(domains := loaded.domains.get(n.name, NOWHERE)).nvlink,
                leaf=domains.leaf,
                block=domains.block,
            )
            for n in cluster.nodes
        )
        jobs = self._asked.look(cluster.jobs, cluster.nodes)
        view = View(
            at=now,
            mode=config.mode,
            paused=self._store.setting("paused") or blocking(findings),
            slurm=cluster.version,
            policy=config.policy,
            shapes=dict(loaded.shapes),
            nodes=tuple(sorted(nodes, key=lambda n: n.name)),
            jobs=tuple(sorted(jobs, key=lambda j: j.order)),
            facts=memory.facts,
            services=services + self._wishes(jobs, handovers, config, now),
            handovers=tuple(brief(h) for h in handovers),
            gpus=gpus.readings,
            runs=memory.runs,
            evicted=memory.evicted,
            quota=memory.quota,
            delays=self._site.delays,
            overrides=self._overrides(specs),
            problems=problems,
        )
        idle = {(name, slot) for name, load in loads.items() for slot in load.idle}
        odd = tuple(f"{f.text}; {f.hint}" for f in findings if f.weight is Weight.WARNING)
        return Observed(view, cluster, ready, idle, odd, self._site.hides_jobs)

    def _specs(self) -> tuple[dict[str, ServiceSpec], tuple[ServiceRow, ...], tuple[str, ...]]:
        specs: dict[str, ServiceSpec] = {}
        problems: list[str] = []
        rows = self._store.services()
        for row in rows:
            try:
                specs[row.name] = spec_from_json(row.spec)
            except BadFile as error:
                problems.append(f"service {row.name} in the store cannot be read: {error}")
        return specs, rows, tuple(problems)

    def _remember(self, specs: Mapping[str, ServiceSpec], loads: Mapping[str, ServiceLoad], now: float) -> None:
        """Append this cycle's readings to the history; unknown ones as holes."""
        samples: list[LoadSample] = []
        for name, spec in specs.items():
            reading = loads[name].reading
            value = reading.value if reading is not None else None
            self._traces.add(name, spec.season, now, value)
            samples.append(LoadSample(service=name, at=now, value=value))
            parts = loads[name].parts
            samples += [LoadSample(service=f"{name}:{part}", at=now, value=found) for part, found in parts.items()]
            self._recent.add(name, now, value)
        for gone in self._traces.keep(specs):
            self._loads.forget(gone)
            self._recent.forget(gone)
        self._store.add_load(samples)

    def _service(
        self,
        specs: Mapping[str, ServiceSpec],
        row: ServiceRow,
        replicas: Sequence[Replica],
        load: ServiceLoad,
        config: Config,
        now: float,
    ) -> ServiceView:
        spec, reading = specs[row.name], load.reading
        fresh = reading if reading is not None and now - reading.at <= config.policy.stale_after else None
        measured = None if fresh is None else Reading(fresh.value, fresh.at)
        view = ServiceView(
            spec=spec,
            replicas=tuple(_with_readings(r, load) for r in replicas if r.service == spec.name),
            load=measured,
            forecast=self._forecasters.forecast(spec, specs, config.forecast, measured, now),
            retry_at=_number(self._store.setting(f"{RETRY}{spec.name}")),
            removed=row.removed,
            recent=self._recent.highest(spec.name, now, config.policy.scale_down_after),
            capacity=self._learner.capacity(spec),
            lead=(lead := self._learner.lead(spec, self._site.delays.kill_wait)),
            surge=self._learner.surge(spec, measured, lead.seconds, config.policy.surge_quantile, now),
        )
        wanted = need(view, config.policy, now)
        if wanted.have <= wanted.now:
            self._low_since.pop(spec.name, None)
        else:
            self._low_since.setdefault(spec.name, now)
        return msgspec.structs.replace(view, low_since=self._low_since.get(spec.name))

    def _overrides(self, names: Iterable[str]) -> dict[str, str]:
        found = {name: self._store.setting(f"{OVERRIDE}{name}") for name in names}
        return {name: word for name, word in sorted(found.items()) if word is not None}

    def _wishes(
        self, jobs: Sequence[Job], handovers: Sequence[Handover], config: Config, now: float
    ) -> tuple[ServiceView, ...]:
        """Other people's jobs that ask for a place, as services of one replica."""
        waiting = [j.ref for j in jobs if j.request is not None and j.held is Held.ADMIN]
        kept = {ref for ref in waiting if self._store.setting(f"{KEPT}{ref}") is not None}
        found = served(jobs, config.policy, {h.service for h in handovers}, kept, now)
        return tuple(
            msgspec.structs.replace(s, retry_at=_number(self._store.setting(f"{RETRY}{s.spec.name}"))) for s in found
        )


def _replicas(rows: Sequence[ReplicaRow], handovers: Sequence[Handover]) -> tuple[Replica, ...]:
    """Replicas as the planner counts them: the placed ones, and one for each open handover that has none yet."""
    found = {
        (r.service, r.slot): Replica(
            service=r.service,
            slot=r.slot,
            state=ReplicaState(r.state),
            job=r.job,
            node=r.node,
            places=r.places,
            level=r.level,
            since=r.since,
        )
        for r in rows
    }
    for h in handovers:
        found.setdefault(
            (h.service, h.slot),
            Replica(
                service=h.service,
                slot=h.slot,
                state=ReplicaState.PLACING,
                job=h.job,
                node=in_order(h.places)[0],
                places=h.places,
                since=h.created_at,
            ),
        )
    return tuple(found[key] for key in sorted(found))


def _with_readings(replica: Replica, load: ServiceLoad) -> Replica:
    meter = load.meters.get(replica.slot)
    found = msgspec.structs.replace(replica, load=load.replicas.get(replica.slot))
    return found if meter is None else msgspec.structs.replace(found, kv_use=meter.kv_use, hits=meter.hits)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
