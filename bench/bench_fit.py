"""Medians of the fit tables' look-ups: python bench/bench_fit.py"""

from collections.abc import Callable
from itertools import combinations
from statistics import median
from timeit import repeat

from coloc_topology.fit import FitTable
from coloc_topology.shape import Level, Shape

WARM = 20000


def islands_of_four(gpus: int, inside: str, between: str) -> Shape:
    word = {(i, j): inside if i // 4 == j // 4 else between for i, j in combinations(range(gpus), 2)}
    links = tuple(tuple("X" if i == j else word[min(i, j), max(i, j)] for j in range(gpus)) for i in range(gpus))
    return Shape(f"{gpus} GPUs, {inside}/{between}", links)


def show(shape: Shape, what: str, call: Callable[[], object], number: int = 1, per: int = 1, rounds: int = 7) -> None:
    seconds = median(repeat(call, number=number, repeat=rounds))
    print(f"{shape.name:20} {what:36} {seconds / number / per * 1e6:10.2f} us")


def measure(shape: Shape) -> None:
    half, everything = shape.gpus // 2, shape.all
    show(shape, "analyse", lambda: FitTable(shape))
    fresh = [FitTable(shape) for _ in range(7)]
    show(shape, "best of half, first look-up", lambda: fresh.pop().best(everything, half))
    fresh = [FitTable(shape) for _ in range(7)]
    sets = [free for free in range(everything + 1) if free.bit_count() >= half][:: max(1, everything // 255)]
    show(
        shape,
        "best of half, cold, mean of many",
        lambda: [fresh[-1].best(f, half) for f in sets] and fresh.pop(),
        1,
        len(sets),
    )
    table, free = FitTable(shape), everything & ~0b100
    table.subsets(free, half, Level.SYS)
    show(shape, "best, warm", lambda: table.best(free, half), WARM)
    show(shape, "best_at, warm", lambda: table.best_at(free, half, Level.NVLINK), WARM)
    show(shape, "worst_level, warm", lambda: table.worst_level(free, half), WARM)
    show(shape, "level_of", lambda: table.level_of(free), WARM)
    show(shape, "subsets, warm", lambda: table.subsets(free, half, Level.SYS), WARM)


if __name__ == "__main__":
    for gpus in (8, 16):
        measure(islands_of_four(gpus, "NV4", "SYS"))
        measure(islands_of_four(gpus, "NV18", "NV18"))
