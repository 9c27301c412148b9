"""The rule by which GPUs are given, against what Slurm 22.05.8 gave: jobs started in this order on one empty node of two
sockets with 8 cores and 4 GPUs each. A row: GPUs and cores asked for, cores and GPUs given (None: it had to wait)."""

import pytest

from coloc_topology.shape import Shape, idx, quads
from colocd.sim.gpus import Free, GpuChoice, sockets_of

Row = tuple[int, int, str | None, str | None]

WITH_CORES: list[list[Row]] = [
    [(1, 3, "0-2", "0"), (1, 10, "3-4,8-15", "1"), (0, 10, None, None), (4, 2, "5-6", "2-5")],
    [(2, 1, "0", "0-1"), (3, 1, "8", "4-6"), (1, 1, "1", "2"), (1, 6, "9-14", "7"), (2, 6, None, None)],
    [(2, 10, "0-9", "0,4"), (0, 2, "10-11", ""), (3, 2, "12-13", "5-7")],
    [
        (1, 4, "0-3", "0"),
        (3, 1, "8", "4-6"),
        (0, 1, "4", ""),
        (1, 6, "9-14", "7"),
        (3, 10, None, None),
        (1, 10, None, None),
    ],
    [
        (1, 2, "0-1", "0"),
        (4, 1, "8", "4-7"),
        (0, 4, "2-5", ""),
        (2, 6, "6-7,9-12", "1-2"),
        (0, 4, None, None),
        (4, 4, None, None),
        (1, 4, None, None),
    ],
    [(2, 3, "0-2", "0-1"), (1, 1, "8", "4"), (3, 3, "9-11", "5-7"), (1, 1, "3", "2"), (1, 3, "4-6", "3")],
    [
        (1, 3, "0-2", "0"),
        (2, 10, "3-4,8-15", "1,4"),
        (3, 10, None, None),
        (0, 1, "5", ""),
        (1, 3, None, None),
        (4, 4, None, None),
        (4, 2, "6-7", "2-3,5-6"),
    ],
    [
        (1, 3, "0-2", "0"),
        (1, 2, "8-9", "4"),
        (1, 3, "10-12", "5"),
        (1, 1, "3", "1"),
        (2, 3, "4-6", "2-3"),
        (1, 6, None, None),
    ],
    [
        (2, 1, "0", "0-1"),
        (1, 1, "8", "4"),
        (2, 10, "1-7,9-11", "2,5"),
        (1, 1, "12", "6"),
        (4, 2, None, None),
        (3, 1, None, None),
        (2, 6, None, None),
    ],
    [(1, 2, "0-1", "0"), (2, 4, "8-11", "4-5"), (2, 4, "2-5", "1-2"), (3, 4, "6-7,12-13", "3,6-7")],
]
WITHOUT_CORES: list[list[Row]] = [
    [(1, 1, "0", "0"), (3, 1, "1", "1-3"), (2, 3, "2-4", "4-5")],
    [
        (3, 4, "0-3", "0-2"),
        (3, 10, "4-13", "3-5"),
        (1, 6, None, None),
        (0, 2, "14-15", ""),
        (0, 3, None, None),
        (0, 4, None, None),
    ],
    [(2, 10, "0-4,8-12", "0-1"), (3, 1, "5", "2-4"), (3, 1, "6", "5-7"), (2, 1, None, None), (1, 1, None, None)],
    [(0, 1, "0", ""), (4, 10, "1-5,8-12", "0-3"), (3, 1, "6", "4-6")],
    [(1, 1, "0", "0"), (1, 2, "1-2", "1"), (1, 1, "3", "2"), (1, 1, "4", "3"), (2, 1, "5", "4-5"), (2, 1, "6", "6-7")],
]


def check(choice: GpuChoice, rows: list[Row]) -> None:
    shape = quads()
    sockets = sockets_of(shape, 16)
    free = Free(0xFF, 0xFFFF)
    for gpus, cores, core_ids, gpu_ids in rows:
        fits = free.gpus.bit_count() >= gpus and free.cores.bit_count() >= cores
        assert fits == (core_ids is not None)
        if fits:
            given = choice.give(shape, sockets, free, gpus, cores)
            assert (idx(given.cores), idx(given.gpus)) == (core_ids, gpu_ids or "-")
            free = Free(free.gpus & ~given.gpus, free.cores & ~given.cores)


@pytest.mark.parametrize("rows", WITH_CORES)
def test_as_measured_with_cores(rows: list[Row]) -> None:
    check(GpuChoice(), rows)


@pytest.mark.parametrize("rows", WITHOUT_CORES)
def test_as_measured_without_cores(rows: list[Row]) -> None:
    check(GpuChoice(by_socket=False), rows)


def pairs() -> Shape:
    links = tuple(tuple("X" if i == j else "NV4" if i // 2 == j // 2 else "SYS" for j in range(8)) for i in range(8))
    return Shape("pairs", links)


@pytest.mark.parametrize(("shape", "count", "given"), [(quads(), 4, "0-1,4-5"), (pairs(), 2, "0,2"), (quads(), 1, "0")])
def test_inverted_links(shape: Shape, count: int, given: str) -> None:
    """The worst first, as measured on 24.11 to 26.05."""
    choice = GpuChoice(links_inverted=True)
    assert idx(choice.give(shape, sockets_of(shape, 16), Free(0xFF, 0xFFFF), count, 1).gpus) == given


def test_sockets() -> None:
    assert [(s.gpus, s.cores) for s in sockets_of(quads(), 16)] == [(0x0F, 0x00FF), (0xF0, 0xFF00)]
    assert [(s.gpus, s.cores) for s in sockets_of(pairs(), 16)] == [(0xFF, 0xFFFF)]
    assert [(s.gpus, s.cores) for s in sockets_of(Shape("none", ()), 4)] == [(0, 0xF)]
