"""What bench_slurm prints: one row an arm, from the single reclaims."""

import statistics
from collections.abc import Sequence
from typing import Any

from bench.slurm_arms import Reclaim

HEAD = ("release", "gres.conf", "arm", "reclaims", "in one island", "of 2 GPUs", "of 4 GPUs", "victims", "taken/needed")
TAIL = ("steps lost", "refused", "no result", "s p50", "s p90", "s max")


def summary(reclaims: Sequence[Reclaim]) -> dict[str, Any]:
    """Means over all reclaims that ran; hits are counted over all. None: there is no value."""
    ran = [r for r in reclaims if r.seconds is not None]
    times = sorted(r.seconds for r in ran if r.seconds is not None)
    hits = {
        str(k): [sum(r.island for r in reclaims if r.gpus == k), sum(r.gpus == k for r in reclaims)] for k in (2, 4)
    }
    return {
        "reclaims": len(reclaims),
        "in_island": sum(r.island for r in reclaims),
        "in_island_by_gpus": hits,
        "victims_mean": round(statistics.mean(r.victims for r in ran), 2) if ran else None,
        "gpus_taken_per_needed": round(sum(r.taken for r in ran) / sum(r.gpus for r in ran), 2) if ran else None,
        "steps_lost": sum(r.steps_lost for r in reclaims),
        "refused": len(reclaims) - len(ran),
        "seconds": {"p50": _at(times, 0.5), "p90": _at(times, 0.9), "max": _at(times, 1.0)},
        "more_than_one_start": sum(r.starts > 1 for r in reclaims),
    }


def _at(ranked: Sequence[float], share: float) -> float | None:
    return round(ranked[round(share * (len(ranked) - 1))], 2) if ranked else None


def line(found: dict[str, Any]) -> list[str]:
    """The cells of one row."""

    def hit(good: int, of: int) -> str:
        return f"{good}/{of} ({100 * good / of:.0f} %)" if of else "-"

    by = found["in_island_by_gpus"]
    cells = [
        found["release"],
        found["gres"],
        found["arm"],
        found["reclaims"],
        hit(found["in_island"], found["reclaims"]),
    ]
    cells += [hit(*by["2"]), hit(*by["4"]), found["victims_mean"], found["gpus_taken_per_needed"], found["steps_lost"]]
    cells += [found["refused"], found["no_result"], *found["seconds"].values()]
    return ["-" if cell is None else str(cell) for cell in cells]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows as a Markdown table, in columns that also read well as they are."""
    cells = [[*HEAD, *TAIL], *(line(row) for row in rows)]
    wide = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    text = ["| " + " | ".join(word.ljust(width) for word, width in zip(row, wide, strict=True)) + " |" for row in cells]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in wide) + "|")
    return "\n".join(text)
