"""Pictures of GPUs for a terminal of 80 columns: islands at every level, links, and who sits where. Only text, no printing."""

from collections.abc import Mapping, Sequence

from coloc_topology.fit import fit_table
from coloc_topology.shape import Level, Shape, bits, idx
from coloc_topology.subsets import MAX_GPUS

NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FREE, UNKNOWN = ".", "?"
_LABEL = 15
_SHORT = {"NODE": "NOD"}


def islands(shape: Shape) -> list[tuple[Level, tuple[int, ...]]]:
    """The islands of each level that has other islands than the level above it, best first; nothing joined: left out."""
    table = fit_table(shape)
    found: list[tuple[Level, tuple[int, ...]]] = []
    last = tuple(1 << i for i in range(shape.gpus))
    for level in sorted(Level, reverse=True):
        parts = table.islands(level)
        if parts != last:
            found.append((level, parts))
            last = parts
    return found


def picture(shape: Shape, use: Sequence[str] | None = None) -> list[str]:
    """Lines: GPU numbers, the letter of each GPU's user if `use` is given, and the islands of every level.

    An island is drawn as `[--]`; islands that lie between each other have letters instead. At most 16 GPUs.
    """
    if not 0 < shape.gpus <= MAX_GPUS:
        return [f"(no picture: {shape.gpus} GPUs, at most {MAX_GPUS} are drawn)"]
    lines = [_row("GPU", [str(i) for i in range(shape.gpus)])]
    if use is not None:
        lines.append(_row("used by", list(use)))
    lines += [_islands_row(level.name, parts, shape.gpus) for level, parts in islands(shape)]
    numa = [None if fact is None else str(fact) for fact in shape.numa]
    if any(fact is not None for fact in numa):
        lines.append(_row("NUMA node", [fact or UNKNOWN for fact in numa]))
    return lines


def _row(label: str, cells: Sequence[str]) -> str:
    return (f"  {label:<{_LABEL}}" + "".join(f"{cell:>3} " for cell in cells)).rstrip()


def _islands_row(label: str, parts: Sequence[int], count: int) -> str:
    if any(part != _span(part) for part in parts):
        names = {gpu: NAMES[n].lower() for n, part in enumerate(parts) for gpu in bits(part)}
        return _row(label, [names[i] for i in range(count)])
    text = ""
    for part in parts:
        size = part.bit_count()
        text += "  - " if size == 1 else "  [" + "-" * (4 * size - 4 - 1) + "] "
    return f"  {label:<{_LABEL}}{text}".rstrip()


def _span(part: int) -> int:
    """The smallest run of GPUs that holds the set."""
    low = (part & -part).bit_length() - 1
    return (1 << part.bit_length()) - (1 << low)


def matrix(shape: Shape) -> list[str]:
    """The link matrix; shortened words (`N18` for NV18, `NOD`) where 80 columns need it."""
    wide = shape.gpus <= 12
    lines = [_links_row("", [str(i) for i in range(shape.gpus)], wide)]
    for i, row in enumerate(shape.links):
        lines.append(_links_row(f"GPU {i}", [word if wide else _short(word) for word in row], wide))
    return lines


def _short(word: str) -> str:
    return word.replace("NV", "N") if len(word) > 3 and word.startswith("NV") else _SHORT.get(word, word)


def _links_row(label: str, words: Sequence[str], wide: bool) -> str:
    size = 5 if wide else 4
    return f"  {label:<7}" + "".join(f"{word:>{size}}" for word in words)


def near(words: Sequence[str | None]) -> str:
    """Which GPUs a device is near, best path first: `PIX 0,1  SYS 2-7`."""
    order = [level.name for level in sorted(Level, reverse=True)]
    groups: dict[str, int] = {}
    for gpu, word in enumerate(words):
        groups[word or UNKNOWN] = groups.get(word or UNKNOWN, 0) | 1 << gpu
    ranked = sorted(groups.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))
    return "  ".join(f"{word} {idx(gpus)}" for word, gpus in ranked)


def cpus(shape: Shape) -> list[tuple[str, str]]:
    """CPU lists with the GPUs near them, `("0-7", "0-3")`; unknown ones are left out."""
    groups: dict[str, int] = {}
    for gpu, fact in enumerate(shape.cores):
        if fact is not None:
            groups[fact] = groups.get(fact, 0) | 1 << gpu
    return [(fact, idx(gpus)) for fact, gpus in groups.items()]


def best_free(shape: Shape, free: int) -> str:
    """The best free sets of 2, 4 and 8 GPUs with their level, as `; best sets: 2: 0,1 NVLINK`; empty: fewer are free."""
    if shape.gpus > MAX_GPUS:
        return ""
    fits = [(count, fit_table(shape).best(free, count)) for count in (2, 4, 8)]
    parts = [f"{count}: {idx(fit.gpus)} {fit.level.name}" for count, fit in fits if fit is not None]
    return f"; best sets: {'; '.join(parts)}" if parts else ""


def letters(users: Mapping[str, int], count: int, other: int) -> tuple[list[str], dict[str, str]]:
    """One letter per user (in the order given) and GPU; `.` free, `?` in use (`other`) by nobody known."""
    use = [UNKNOWN if other >> gpu & 1 else FREE for gpu in range(count)]
    names: dict[str, str] = {}
    for n, (user, gpus) in enumerate(users.items()):
        names[user] = NAMES[n % len(NAMES)]
        for gpu in bits(gpus):
            if gpu < count:
                use[gpu] = names[user]
    return use, names
