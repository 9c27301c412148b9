"""`coloc forecast`: a service's foreseen load, and how well the forecaster does on a recorded one."""

from pathlib import Path
from typing import Any

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from coloc_cli.durations import duration
from coloc_cli.words import local
from colocd.errors import BadRequest


class ServiceGroup(click.Group):
    """A group whose first word is a sub-command or, for most people, the name of a service."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take a word that is no sub-command as the service to show."""
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=ServiceGroup)
def command() -> None:
    """A service's foreseen load; backtest on a recorded one."""


@command.command()
@click.argument("file")
@click.option("--column", required=True, metavar="NAME", help="Column of the load.")
@click.option("--time", metavar="NAME", help="Column of the time. Default: one that is named like it, else row by row.")
@click.option("--step", type=duration, metavar="DURATION", default="10m", show_default=True, help="Length of a bin.")
@click.option(
    "--horizon", type=duration, metavar="DURATION", default="60m", show_default=True, help="How far ahead is foreseen."
)
@click.option(
    "--train",
    type=duration,
    metavar="DURATION",
    default="7d",
    show_default=True,
    help="History before the first origin.",
)
@click.option(
    "--every", type=duration, metavar="DURATION", default="1h", show_default=True, help="Time between origins."
)
@click.option("--timezone", metavar="ZONE", help="Zone of the site, as Europe/Berlin. Default: UTC.")
@json_option
@shared_options
@pass_app
def backtest(app: App, /, file: str, as_json: bool, **options: Any) -> None:
    """Foresee a recorded load from many origins and compare with what came.

    From each origin only what lies before it is used. Scored is the mean load of the bin one horizon later; holes are not.
    """
    from coloc_cli.backtest import run_backtest

    found = run_backtest(app.clock, file, **options)
    if as_json:
        output.as_json(found)
        return
    for label in ("file", "column", "time"):
        output.paragraph(label, found[label] if found[label] is not None else "row by row")
    for note in found["notes"]:
        output.paragraph("note", note)
    output.paragraph("origins", f"{found['n']}, {found['seconds']:.2f} s in all")
    output.say("")
    rows = [
        ("coloc", *_cells(found)),
        *((name.replace("_", " "), *_cells(s)) for name, s in found["baselines"].items()),
    ]
    output.show(("FORECAST", "WAPE%", "PINBALL95%", "COVERAGE95%"), rows, right="WAPE% PINBALL95% COVERAGE95%")


@command.command()
@click.argument("service")
@click.option("--svg", metavar="FILE", help="Write the picture as SVG.")
@click.option("--png", metavar="FILE", help="Write the picture as PNG (needs Pillow).")
@json_option
@shared_options
@pass_app
def show(app: App, service: str, svg: str | None, png: str | None, as_json: bool) -> None:
    """A service's load: seen, foreseen, what its replicas carry, and when some are to spare."""
    with app.client() as client:
        told = client.forecast(service)
    from coloc_cli.forecast_columns import columns
    from coloc_cli.forecast_picture import Png, Svg, draw

    for path, kind in ((svg, Svg), (png, Png)):
        if path is not None:
            canvas = kind()
            draw(canvas, told)
            _write(path, canvas.done())
    if as_json:
        output.as_json(told)
        return
    for line in columns(told, output.terminal_width() or 80):
        output.say(line)
    output.say("")
    output.paragraph("foreseen", told["basis"] or "nothing can be foreseen yet")
    output.paragraph("carried", f"{told['carried']:.4g} by {told['have']} replica{'' if told['have'] == 1 else 's'}")
    if told["load"] is None:
        output.paragraph("to spare", "not told, for its load is unknown: it keeps what it has")
    elif told["have"]:
        at = told["at"]
        spans = [f"{local(at + a)[5:16]} to {local(at + b)[5:16]}" for a, b in told["valleys"]]
        output.paragraph("to spare", ", ".join(spans) or f"nothing at q{told['quantile']:g}, as far as is foreseen")
    if records := told["records"]:
        output.say("")
        rows = [[f"{r['ahead'] / 60:.0f}", *(f"{100 * r[k]:.1f}" for k in _RECORD), _used(r)] for r in records]
        titles = ("MIN_AHEAD", "OFF%", "LAST_VALUE%", "COVERED95%", "MOSTLY")
        output.show(titles, rows, right=" ".join(titles[:4]))


def _used(record: dict[str, Any]) -> str:
    return "last value: the forecast lost against it" if record.get("lost") else str(record["used"])


_RECORD = ("wape", "persistence", "covered95")


def _write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be written: {error.strerror}", "name a file in a folder you may write to"
        ) from None


def _cells(score: dict[str, Any]) -> list[str]:
    values = [(score["wape"], 100), (score["pinball95_pct"], 1), (score["coverage95"], 100)]
    return ["-" if value is None else f"{factor * value:.2f}" for value, factor in values]
