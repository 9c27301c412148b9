"""Who drives the replayed services (bench/replay_loop.py): the forecast, the last value and some more, or the future itself."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colocd.core.foresight.outlook import Sample
from colocd.core.policy import Policy
from colocd.core.service import Capacity, Load, ServiceSpec
from colocd.core.surge import Surge
from colocd.core.view import Forecast, Quantiles

STEP = 60.0
LEAD = 300.0
LOOK = 36
"""Points of a minute that the oracle sees."""

Floats = NDArray[np.float64]


class Tide(NamedTuple):
    """One service: `demand` a minute, from `begin` (Unix seconds) on; `history`: means of ten minutes, from before on."""

    spec: ServiceSpec
    demand: Floats
    history: list[Sample]


class Seen(NamedTuple):
    """What an arm is told of a service: the load that counts now, and what is foreseen."""

    load: float
    forecast: Forecast | None
    surge: Surge | None = None


class Arm(NamedTuple):
    """`see` gets (service's number, minute, coloc's forecast and margin); `policy`: the rules under which it plans."""

    name: str
    policy: Policy
    see: Callable[[int, int, Forecast | None, Surge | None], Seen]


def service(name: str, gpus: int, per_replica: float, most: int) -> ServiceSpec:
    """A service whose replicas carry `per_replica` each, all of it used."""
    return ServiceSpec(
        name=name, user="svc", partition="online", script="#!/bin/sh\n", gpus_per_replica=gpus, max_replicas=most,
        capacity=Capacity(per_replica=per_replica, target_use=1.0, learn=False), load=Load(url="http://x/metrics"),
        lead_time=LEAD, drain_grace=STEP,
    )  # fmt: skip


def coloc(quantile: float, tides: Sequence[Tide], margin: bool = True) -> Arm:
    """The forecast's quantile, rules as they are by default; `margin`: with what the load may grow by."""
    rules = Policy(peak_quantile=quantile, valley_quantile=quantile)
    name = f"coloc, q{quantile:g}{'' if margin else ', forecast only'}"
    return Arm(name, rules, lambda i, m, f, s: Seen(tides[i].demand[m], f, s if margin else None))


def reactive(more: float, tides: Sequence[Tide]) -> Arm:
    """The last value and so much more; nothing is foreseen."""
    rules = Policy(scale_down_margin=0.0, plan_ahead=0.0)
    return Arm(f"reactive, +{more:.0%}", rules, lambda i, m, f, s: Seen(tides[i].demand[m] * (1 + more), None))


def oracle(tides: Sequence[Tide]) -> Arm:
    """The future itself, minute by minute."""

    def see(i: int, m: int, f: Forecast | None, s: Surge | None) -> Seen:
        ahead = tides[i].demand[m : m + LOOK]
        points = tuple(Quantiles(k * STEP, {"0.5": float(v)}) for k, v in enumerate(ahead))
        return Seen(tides[i].demand[m], Forecast(points=points, step=STEP, trust=1.0, basis="the future"))

    return Arm("oracle", Policy(scale_down_margin=0.0), see)
