"""How long `coloc valleys` takes for a large cluster: the tide of 24 hours over nodes full of jobs, many services.

python bench/bench_valleys.py [--nodes 12500] [--services 20]
"""

import argparse
import math

import msgspec
from bench.clusters import full, service

from colocd.clock import SystemClock
from colocd.core.service import Capacity
from colocd.core.tide import tide
from colocd.core.view import Forecast, Quantiles, Reading, View


def with_tide(view: View, count: int) -> View:
    """The view with `count` services whose loads rise and fall at different times of the day."""
    services = []
    for n in range(count):
        base = service(f"service-{n}", (2, 4, 8)[n % 3], level="SYS" if n % 3 == 2 else "NVLINK")
        capacity = Capacity(per_replica=10.0, target_use=1.0)
        spec = msgspec.structs.replace(base.spec, max_replicas=400, capacity=capacity)
        loads = [10 * (1 + 100 * (1 + math.sin((i + 7 * n) / 15))) for i in range(97)]
        points = tuple(Quantiles(i * 900.0, dict.fromkeys(("0.5", "0.9", "0.95"), x)) for i, x in enumerate(loads))
        forecast = Forecast(points=points, step=900.0, trust=1.0, basis="bench")
        services.append(msgspec.structs.replace(base, spec=spec, load=Reading(loads[0], view.at), forecast=forecast))
    return msgspec.structs.replace(view, services=tuple(services))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=12_500)
    parser.add_argument("--services", type=int, default=20)
    options = parser.parse_args()
    clock = SystemClock()
    view = with_tide(full(options.nodes, 1), options.services)
    for turn in range(3):
        began = clock.monotonic()
        found = tide(view)
        took = clock.monotonic() - began
        print(f"{turn}: {took:.2f} s, {len(found.slots)} stretches, {len(found.valleys)} valleys of {found.gpus} GPUs")


if __name__ == "__main__":
    main()
