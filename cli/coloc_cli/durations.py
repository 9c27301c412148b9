"""Durations as options of a command: `90s`, `10m`, `1h30m`, `7d` or a number of seconds."""

import click

from colocd.units import LONG, seconds


def duration(text: str) -> float:
    """Seconds of a positive duration, as the type of an option; raises a usage error with the reason."""
    try:
        found = seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not 0 < found <= LONG:
        raise click.BadParameter(f"{text!r} must be above 0 and at most 10 years")
    return found
