"""How values of the API are put into words: ages, times, GPU sets."""

import datetime as dt
from typing import Any


def span(seconds: float | None) -> str:
    """A duration for people: `12 s`, `3 min`, `2 h 05 min`, `4 d 3 h`; None is `?`."""
    if seconds is None:
        return "?"
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def ago(moment: float | None, now: float) -> str:
    """How long ago `moment` (Unix seconds) was; None is `?`."""
    return "?" if moment is None else f"{span(now - moment)} ago"


def local(moment: float | None) -> str:
    """A time (Unix seconds) in the reader's time zone; None is `?`."""
    if moment is None:
        return "?"
    return dt.datetime.fromtimestamp(moment, tz=dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def gpu_set(value: Any) -> str:
    """GPUs of a node in Slurm's notation; accepts the mask of a view as well as the text of the API."""
    if isinstance(value, int):
        from coloc_topology.shape import idx

        return idx(value)
    return "?" if value is None else str(value)


def seats(places: Any) -> str:
    """GPUs by node: `n1:0-3 n2:0-3`; nothing known is `?`."""
    return " ".join(f"{name}:{gpu_set(gpus)}" for name, gpus in (places or {}).items()) or "?"


def joined(values: Any) -> str:
    """A list as words; an empty one is `-`, None is `?`."""
    if values is None:
        return "?"
    return " ".join(str(value) for value in values) or "-"
