from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coloc_topology.errors import TopologyError
from coloc_topology.fit import Fit, FitTable, fit_table
from coloc_topology.shape import Level, Shape, bits, mask_of, quads

WORDS = ("NV1", "NV2", "NV12", "PIX", "PXB", "PHB", "NODE", "SYS")


def shape_of(gpus: int, word: dict[tuple[int, int], str], otherwise: str, numa: tuple[int | None, ...] = ()) -> Shape:
    links = tuple(
        tuple("X" if i == j else word.get((min(i, j), max(i, j)), otherwise) for j in range(gpus)) for i in range(gpus)
    )
    return Shape("test", links, numa=numa)


@st.composite
def shapes(draw: st.DrawFn, most: int = 6) -> Shape:
    gpus = draw(st.integers(1, most))
    words = st.sampled_from(WORDS)
    word = {pair: draw(words) for pair in combinations(range(gpus), 2)}
    numa = tuple(draw(st.lists(st.sampled_from([None, 0, 1]), min_size=gpus, max_size=gpus)))
    return shape_of(gpus, word, "SYS", numa)


def level_by_hand(shape: Shape, gpus: int) -> Level:
    members = bits(gpus)
    pairs = list(combinations(members, 2))
    if all(shape.pair_level(i, j) == Level.NVLINK for i, j in pairs):
        return Level.NVLINK
    group = {members[0]}
    for _ in members:
        group |= {j for i in group for j in members if shape.pair_nvlinks(i, j)}
    if group == set(members):
        return Level.NVLINK_PARTIAL
    return min(shape.pair_level(i, j) for i, j in pairs)


def strength_by_hand(shape: Shape, gpus: int) -> int:
    pairs = [100 * shape.pair_nvlinks(i, j) + shape.pair_level(i, j) for i, j in combinations(bits(gpus), 2)]
    return (min(pairs, default=0) << 28) + sum(pairs)


def islands_by_hand(shape: Shape, level: Level) -> list[int]:
    left, found = shape.all, []
    while left:
        for count in range(left.bit_count(), 0, -1):
            sets = [mask_of(c) for c in combinations(bits(left), count)]
            good = [s for s in sets if level_by_hand(shape, s) >= level]
            if good:
                one = max(good, key=lambda s: (level_by_hand(shape, s), strength_by_hand(shape, s), -s))
                found.append(one)
                left &= ~one
                break
    return sorted(found, key=lambda m: m & -m)


def broken_by_hand(shape: Shape, gpus: int, free: int) -> int:
    islands = {i for level in Level for i in islands_by_hand(shape, level)}
    islands |= {mask_of(i for i, n in enumerate(shape.numa) if n == node) for node in (0, 1)}
    whole = [i for i in islands if i and i & free == i]
    return sum(1 for i in whole if gpus & i not in (0, i))


def order_by_hand(shape: Shape, free: int, count: int) -> list[Fit]:
    found = [Fit(s, level_by_hand(shape, s), strength_by_hand(shape, s)) for s in all_sets(free, count)]
    return sorted(found, key=lambda f: (-f.level, -f.strength, broken_by_hand(shape, f.gpus, free), f.gpus))


def all_sets(free: int, count: int) -> list[int]:
    return [mask_of(c) for c in combinations(bits(free), count)]


@settings(max_examples=60, deadline=None)
@given(shape=shapes(), data=st.data())
def test_agrees_with_brute_force(shape: Shape, data: st.DataObject) -> None:
    table = FitTable(shape)
    free = data.draw(st.integers(0, shape.all))
    count = data.draw(st.integers(1, shape.gpus))
    level = data.draw(st.sampled_from(Level))
    wanted = order_by_hand(shape, free, count)
    for _ in range(2):  # cold, then from the table
        assert table.best(free, count) == (wanted[0] if wanted else None)
        assert table.best_at(free, count, level) == next((f for f in wanted if f.level >= level), None)
        assert table.subsets(free, count, level) == tuple(f for f in wanted if f.level >= level)
        assert table.worst_level(free, count) == min((f.level for f in wanted), default=None)
    assert list(table.islands(level)) == islands_by_hand(shape, level)


@settings(max_examples=40, deadline=None)
@given(shape=shapes())
def test_every_subset_has_its_level(shape: Shape) -> None:
    table = fit_table(shape)
    for gpus in range(1, shape.all + 1):
        assert table.fit(gpus) == Fit(gpus, level_by_hand(shape, gpus), strength_by_hand(shape, gpus))


DGX1 = shape_of(
    8,
    {
        (0, 1): "NV1", (0, 2): "NV1", (0, 3): "NV2", (0, 4): "NV2", (1, 2): "NV2", (1, 3): "NV1", (1, 5): "NV2",
        (2, 3): "NV2", (2, 6): "NV1", (3, 7): "NV1", (4, 5): "NV1", (4, 6): "NV1", (4, 7): "NV2", (5, 6): "NV2",
        (5, 7): "NV1", (6, 7): "NV2",
    },
    "SYS",
)  # fmt: skip


def test_cube_mesh() -> None:
    table = fit_table(DGX1)
    assert table.islands(Level.NVLINK) == (0b1111, 0b11110000)
    assert table.level_of(0b11111111) == Level.NVLINK_PARTIAL
    assert table.level_of(mask_of([0, 1, 4, 5])) == Level.NVLINK_PARTIAL
    # A partial set is no promise for its parts: 0 and 5 have no NVLink between them.
    assert table.level_of(mask_of([0, 5])) == Level.SYS
    assert table.best(0xFF, 4) == Fit(0b1111, Level.NVLINK, table.fit(0b1111).strength)
    # Two bonded links before one.
    assert table.best(mask_of([0, 1, 4]), 2) == table.fit(mask_of([0, 4]))
    assert table.best_at(mask_of([0, 1, 6, 7]), 4, Level.NVLINK) is None


def test_the_weakest_link_counts_before_the_sum() -> None:
    strong = {(0, 1): "NV9", (0, 2): "NV9", (1, 2): "NV1"}
    even = {(3, 4): "NV2", (3, 5): "NV2", (4, 5): "NV2"}
    table = fit_table(shape_of(6, strong | even, "SYS"))
    assert table.best(0b111111, 3) == table.fit(0b111000)
    assert table.best(0b111111, 2) == table.fit(0b11)
    assert [fit.gpus for fit in table.subsets(0b111111, 3, Level.NVLINK)] == [0b111000, 0b111]


ODD = {
    "1 GPU": shape_of(1, {}, "SYS"),
    "3, one without NVLink": shape_of(3, {(0, 2): "NV4"}, "PHB"),
    "5 = 3 + 2": shape_of(5, {(0, 1): "NV4", (0, 2): "NV4", (1, 2): "NV4", (3, 4): "NV2"}, "SYS", (0, 0, 0, 1, 1)),
    "7, one of 8 failed": shape_of(7, {}, "NV18", (0, 0, 0, 0, 1, 1, 1)),
    "7, no NVLink": shape_of(7, {(i, j): "PIX" for i, j in combinations(range(7), 2) if i // 2 == j // 2}, "NODE"),
    "10 = 2 x 5": shape_of(10, {(i, j): "PXB" for i, j in combinations(range(10), 2) if i // 5 == j // 5}, "SYS"),
    "12 = 8 + 4": shape_of(12, {(i, j): "NV4" for i, j in combinations(range(12), 2) if i // 8 == j // 8}, "NODE"),
}


@pytest.mark.parametrize("shape", ODD.values(), ids=ODD)
def test_odd_servers(shape: Shape) -> None:
    table = FitTable(shape)
    sizes = sorted({1, 2, shape.gpus // 2, shape.gpus - 1, shape.gpus} - {0})
    failed = shape.all & ~(1 << shape.gpus // 2)
    for free in (shape.all, failed, shape.all & 0b101101101101, 1):
        for count in sizes:
            fits = [Fit(s, level_by_hand(shape, s), strength_by_hand(shape, s)) for s in all_sets(free, count)]
            best = table.best(free, count)
            assert (best is None) == (not fits)
            if best is not None:
                top = max((f.level, f.strength) for f in fits)
                equal = [f.gpus for f in fits if (f.level, f.strength) == top]
                assert (best.level, best.strength) == top
                assert best.gpus in equal
                assert table.worst_level(free, count) == min(f.level for f in fits)


def test_bridge_pairs() -> None:
    pairs = shape_of(4, {(0, 1): "NV4", (2, 3): "NV4"}, "PHB")
    table = fit_table(pairs)
    assert table.islands(Level.NVLINK) == (0b11, 0b1100)
    assert table.level_of(0b1111) == Level.PHB
    assert table.level_of(0b111) == Level.PHB
    # One GPU: from the pair that is broken already.
    assert table.best(0b1101, 1) == Fit(0b1, Level.NVLINK, 0)
    assert table.best(0b1011, 1) == Fit(0b1000, Level.NVLINK, 0)


def test_flat_node_keeps_sockets_whole() -> None:
    switch = shape_of(8, {}, "NV18", numa=(0, 0, 0, 0, 1, 1, 1, 1))
    table = fit_table(switch)
    assert table.islands(Level.NVLINK) == (0xFF,)
    best = table.best(0b11111100, 2)
    assert best is not None
    assert best.gpus == 0b1100
    flat = fit_table(shape_of(4, {(0, 1): "NODE", (2, 3): "NODE"}, "SYS"))
    assert flat.islands(Level.NODE) == (0b11, 0b1100)
    assert flat.worst_level(0b1111, 2) == Level.SYS
    assert flat.best_at(0b1110, 2, Level.NODE) == flat.fit(0b1100)


def test_sixteen_gpus() -> None:
    word = {(i, j): "NV4" for i, j in combinations(range(16), 2) if i // 4 == j // 4}
    table = FitTable(shape_of(16, word, "NODE"))
    assert table.islands(Level.NVLINK) == (0xF, 0xF0, 0xF00, 0xF000)
    assert table.best_at(0xFFFF ^ 0x1111, 4, Level.NVLINK) is None
    assert len(table.subsets(0xFFFF, 4, Level.NVLINK)) == 4
    assert table.worst_level(0xFFFF, 2) == Level.NODE
    best = table.best(0xFFF7, 8)
    assert best is not None
    assert best.gpus == 0xFF0


def test_too_few_and_nothing() -> None:
    table = fit_table(quads())
    assert table.best(0b11, 3) is None
    assert table.best(0b11, -1) is None
    assert table.worst_level(0, 1) is None
    assert table.subsets(0b1, 2, Level.SYS) == ()
    assert table.best(0, 0) == Fit(0, Level.NVLINK, 0)
    assert table.best(1 << 20 | 0b11, 2) == table.fit(0b11)


def test_no_larger_shape() -> None:
    with pytest.raises(TopologyError, match="17 GPUs"):
        fit_table(shape_of(17, {}, "SYS"))
    with pytest.raises(TopologyError, match="not square"):
        FitTable(Shape("odd", (("X", "SYS"), ("SYS",))))
    with pytest.raises(TopologyError, match="row 1"):
        FitTable(Shape("odd", (("X", "QPI"), ("QPI", "X"))))
