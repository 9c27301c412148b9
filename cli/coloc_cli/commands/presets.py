"""`coloc presets`: what `coloc sbatch --coloc-preset` knows."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options


@click.command()
@click.argument("name", required=False)
@json_option
@shared_options
@pass_app
def command(app: App, name: str | None, as_json: bool) -> None:
    """Presets of `coloc sbatch`, by library.

    With a NAME: what the preset sets, and what the job has to do itself.
    """
    import msgspec

    from coloc_cli.presets import preset, presets

    chosen = {name: preset(name)} if name else presets()
    if as_json:
        output.as_json(msgspec.to_builtins(chosen))
    elif name:
        one = chosen[name]
        for key in ("title", "signal", "to", "ack", "grace", "needs", "example"):
            value = getattr(one, key)
            output.say(f"{key:9}{'-' if value is None else f'{value:g} s' if key == 'grace' else value}")
    else:
        rows = [
            [key, one.signal or "-", one.to if one.signal else "-", one.ack, one.title] for key, one in chosen.items()
        ]
        output.show(["PRESET", "SIGNAL", "TO", "ACK", "FOR"], rows)
