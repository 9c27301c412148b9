"""`coloc valleys`: GPUs that no service needs, by time and island."""

from datetime import datetime
from typing import Any

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options

WIDTH = 40
ROWS = 40
DIGITS = ".123456789ABCDEFG"


@click.command()
@click.option("--hours", type=click.IntRange(1, 24), default=24, show_default=True, help="How far ahead.")
@click.option("--node", metavar="NAME", help="Only the islands of this node.")
@click.option("--all", "everything", is_flag=True, help=f"All islands, not only the first {ROWS}.")
@json_option
@shared_options
@pass_app
def command(app: App, hours: int, node: str | None, everything: bool, as_json: bool) -> None:
    """GPUs that no service will need, by time and island."""
    with app.client() as client:
        told = client.valleys(hours)
        if node is not None:
            told = {**told, "valleys": [v for v in told["valleys"] if v["node"] == node]}
            if not told["valleys"]:
                client.explain(f"node:{node}")  # says that there is no such node, if so
    if as_json:
        output.as_json(told)
        return
    output.say(
        f"GPUs that no service needs at q{told['quantile']:g}, of {told['gpus']} that services and batch jobs share"
    )
    if told["blind"]:
        output.say(f"too little is known of {', '.join(told['blind'])}: all their replicas are kept free")
    per_hour = max(1, round(3600 / told["step"]))
    slots = told["slots"] if node is None else []
    for i in range(0, len(slots), per_hour):
        free = min(slot["free"] for slot in slots[i : i + per_hour])
        filled = round(WIDTH * free / told["gpus"]) if told["gpus"] else 0
        output.say(f"{_clock(slots[i]['at'])}  {'█' * filled}{'░' * (WIDTH - filled)}  {free}")
    _islands(told, per_hour, everything, node)


def _islands(told: dict[str, Any], per_hour: int, everything: bool, node: str | None) -> None:
    """A line an island: the least GPUs of each hour as one sign (`.`: none, `A`: ten)."""
    step, at, count = told["step"], told["at"], len(told["slots"])
    lines: dict[tuple[str, str], list[int]] = {}
    for valley in told["valleys"]:
        row = lines.setdefault((valley["node"], valley["island"]), [0] * count)
        first, last = round((valley["start"] - at) / step), round((valley["end"] - at) / step)
        row[first:last] = [valley["count"]] * (last - first)
    if not lines:
        output.say(f"no island{f' of {node}' if node else ''} has a GPU to spare")
        return
    output.say(f"\nby island, one sign an hour from {_clock(at)} on (. none)")
    shown = list(lines.items())[: None if everything else ROWS]
    rows = [
        (name, island, "".join(_sign(min(row[i : i + per_hour])) for i in range(0, count, per_hour)))
        for (name, island), row in shown
    ]
    output.show(("NODE", "GPUS", "HOURS"), rows)
    if len(lines) > len(shown):
        output.say(f"{len(lines) - len(shown)} more islands: --all, --node or --json")


def _sign(count: int) -> str:
    return DIGITS[count] if count < len(DIGITS) else "+"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%a %H:%M")
