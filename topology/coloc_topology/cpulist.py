"""CPU and NUMA lists as the kernel, nvidia-smi and Slurm write them: `0-31,64-95`."""

import re

_LIST = re.compile(r"[0-9]{1,7}(-[0-9]{1,7})?(,[0-9]{1,7}(-[0-9]{1,7})?)*")


def ranges(text: str) -> tuple[tuple[int, int], ...] | None:
    """The ranges of a list, merged and ascending, both ends included; None: `text` is no such list."""
    if not _LIST.fullmatch(text):
        return None
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.append((int(first), int(last or first)))
    if any(low > high for low, high in found):
        return None
    merged: list[tuple[int, int]] = []
    for low, high in sorted(found):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)
