"""What a value of a configuration or service file may be: its unit and its range. Pure."""

import math
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

Unit = Literal["", "seconds", "GPU-seconds"]

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_HOW = 'a number of seconds or a text like "90s", "5m", "1h30m" or "2d"'


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Range and unit of one key: `above` and `below` are not reached, `low` and `high` are. None: no such bound.

    `check` returns the reason why a value is refused, None when it is fine; it runs after the bounds.
    """

    above: float | None = None
    low: float | None = None
    high: float | None = None
    below: float | None = None
    unit: Unit = ""
    check: Callable[[Any], str | None] | None = None

    def reason(self, value: Any) -> str | None:
        """Say why `value` (already of the right type) is refused; None: it is not."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):
                return f"must be a finite number, not {value}"
            outside = (
                (self.above is not None and value <= self.above)
                or (self.low is not None and value < self.low)
                or (self.high is not None and value > self.high)
                or (self.below is not None and value >= self.below)
            )
            if outside:
                return f"must be {self.range()}, not {value:g}"
        return None if self.check is None else self.check(value)

    def range(self) -> str:
        """Say the bounds in words; an empty text when there are none."""
        words = []
        if self.above is not None:
            words.append(f"above {self.above:.15g}")
        if self.low is not None:
            words.append(f"at least {self.low:.15g}")
        if self.high is not None:
            words.append(f"at most {self.high:.15g}")
        if self.below is not None:
            words.append(f"below {self.below:.15g}")
        return " and ".join(words)


YEAR = 366 * 86400.0
LONG = 10 * YEAR


def duration(*, zero: bool = False, high: float = YEAR) -> Rule:
    """Rule for a duration: seconds, or a text with units. `zero`: 0 is allowed, too."""
    return Rule(low=0.0 if zero else None, above=None if zero else 0.0, high=high, unit="seconds")


def seconds(text: str) -> float:
    """Turn "90s", "1h30m", "2d" or "0.5" into seconds; raises ValueError with the reason."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"must be {_HOW}, not {text!r:.60}")
    units = [unit for _, unit in parts]
    if len(set(units)) != len(units):
        raise ValueError(f"names a unit twice in {text!r:.60}")
    return math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)


def one_line(value: str) -> str | None:
    """Refuse empty texts and control characters (NUL and line breaks among them)."""
    if not value.strip():
        return "must not be empty"
    bad = next((char for char in value if ord(char) < 32 or ord(char) == 127), None)
    return None if bad is None else f"contains the control character U+{ord(bad):04X}"


def split_address(text: str) -> tuple[str, int] | None:
    """Host and port of `host:port`, an IPv6 address in brackets; None: it is not that."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        return None
    return (bare, int(port)) if ":" not in bare or host.startswith("[") else None


def host_port(value: str) -> str | None:
    """Refuse what is not `host:port`."""
    return one_line(value) or (None if split_address(value) else f"must be host:port, not {value!r:.60}")


def absolute_path(value: str) -> str | None:
    """Refuse what is not an absolute path."""
    return one_line(value) or (None if value.startswith("/") else f"must be an absolute path, not {value!r:.60}")


def socket_path(value: str) -> str | None:
    """Refuse what the kernel does not take as the path of a Unix socket (absolute, less than 108 bytes)."""
    said = absolute_path(value)
    if said is not None:
        return said
    size = len(value.encode("utf-8", "surrogatepass"))
    return None if size < 108 else f"is {size} bytes long; a Unix socket's path must be shorter than 108"
