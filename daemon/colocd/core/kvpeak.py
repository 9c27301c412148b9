"""KV memory at its future peak, from the lengths of past outputs. Pure and without randomness.

Requests that run now hold `u` tokens each and will write `r` more. Sorted by remaining output, longest first, the memory is
fullest when some request i ends: then it and all that run longer have written r_i more, so the peak is the largest
i·r_i + Σ_{j≤i} u_j (Past-Future scheduling, Gong et al., ASPLOS'25).
"""

from collections.abc import Sequence

Lengths = tuple[tuple[float, float], ...]
"""(tokens, number of requests), shortest first."""

RESERVE = 0.05
"""Share of the memory that stays unplanned."""
MOST = 4096
"""More requests at once than this are not looked at."""
_GOLDEN = 0.6180339887498949


def future_peak(running: Sequence[tuple[float, float]]) -> float:
    """Tokens in memory at the worst moment for requests (held, remaining), if none is added."""
    held = peak = 0.0
    for i, (u, r) in enumerate(sorted(running, key=lambda request: -request[1]), start=1):
        held += u
        peak = max(peak, i * r + held)
    return peak


def requests_that_fit(outputs: Lengths, prompts: Lengths, tokens: float) -> float:
    """How many requests at once fit into `tokens` at their peak; at least 1."""
    room = tokens * (1 - RESERVE)
    low, high = 1, MOST
    while low < high:
        middle = (low + high + 1) // 2
        if future_peak(steady(outputs, prompts, middle)) <= room:
            low = middle
        else:
            high = middle - 1
    return float(low)


def steady(outputs: Lengths, prompts: Lengths, count: int) -> list[tuple[float, float]]:
    """`count` requests (held, remaining) as one would find them running: long ones more often, each anywhere in its life."""
    biased = tuple((length, number * length) for length, number in outputs)
    made = []
    for i in range(count):
        length = _at(biased, (i + 0.5) / count)
        # Three spread-out sequences instead of dice: the same question has the same answer.
        written = length * ((i * _GOLDEN) % 1.0)
        prompt = _at(prompts, (i * _GOLDEN * _GOLDEN + 0.5) % 1.0)
        made.append((prompt + written, length - written))
    return made


def _at(lengths: Lengths, share: float) -> float:
    total = sum(number for _, number in lengths)
    passed = 0.0
    for length, number in lengths:
        passed += number
        if passed >= share * total:
            return length
    return lengths[-1][0] if lengths else 0.0
