"""What NVML's utilisation tells of a server's load: python bench/bench_blackbox.py (docs/benchmarks-agent.md)

One replica with continuous batching: requests come at random, a step makes one token for all that run and takes `STEP` and
`EACH` per request, a prompt is read by itself first. Utilisation is the share of time in which a kernel ran, as NVML counts it.
"""

import math
import random

STEP, EACH, GAP = 0.020, 0.0002, 0.002
"""Seconds of a step, more per request in it, and between two steps, in which no kernel runs."""
PROMPT = 0.05
MOST = 64
"""Requests at once that one replica carries."""
TOKENS = 200
SECONDS = 7200.0


def simulate(load: float, seed: int = 1) -> tuple[float, float]:
    """(mean requests running, share of time in which a kernel ran) at a mean concurrency of about `load` requests."""
    dice = random.Random(seed)
    rate = load / (TOKENS * (STEP + GAP + EACH * load) + PROMPT) if load else 0.0
    now, busy, area = 0.0, 0.0, 0.0
    running: list[int] = []
    coming = dice.expovariate(rate) if rate else math.inf
    while now < SECONDS:
        if not running and coming > now:
            now = min(coming, SECONDS)
            continue
        began = now
        while coming <= now and len(running) < MOST:
            running.append(max(1, round(dice.lognormvariate(math.log(TOKENS) - 0.5, 1.0))))
            coming += dice.expovariate(rate)
            busy += PROMPT
            now += PROMPT
        step = STEP + EACH * len(running)
        busy += step
        now += step + GAP
        area += len(running) * (now - began)
        running = [left - 1 for left in running if left > 1]
    return area / now, busy / now


def asked_for(load: float, replicas: int) -> float:
    """Load per replica below which `busy_gpus` gives one of `replicas` up: their busy share must fit on the others, and 10 %."""
    return replicas * simulate(load)[1] * 1.1 - (replicas - 1)


def main() -> None:
    print("| requests at once, of 64 | utilisation |\n|---|---|")
    for load in (0.0, 0.1, 0.3, 1, 2, 4, 8, 16, 32, 48):
        area, busy = simulate(load)
        print(f"| {area:.2g} ({area / MOST:.1%}) | {busy:.0%} |")
    print("\n| replicas | one is given up below … requests a replica |\n|---|---|")
    for replicas in (2, 4, 10):
        low, high = 0.0, 16.0
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if asked_for(middle, replicas) <= 0 else (low, middle)
        print(f"| {replicas} | {low:.2g} ({low / MOST:.1%} of what it carries) |")


if __name__ == "__main__":
    main()
