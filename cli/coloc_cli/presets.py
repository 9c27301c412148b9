"""The registry of presets: `presets.toml` beside this file."""

import tomllib
from functools import cache
from importlib.resources import files

import msgspec

from colocd.errors import BadRequest


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one stack asks for; keys as in the file. `signal` None: it gets no signal; `grace` None: no limit of its own."""

    title: str
    needs: str
    example: str
    ack: str
    signal: str | None = None
    to: str = "program"
    grace: float | None = None


@cache
def presets() -> dict[str, Preset]:
    """All presets, in the order of the file."""
    text = files("coloc_cli").joinpath("presets.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Preset])


def preset(name: str) -> Preset:
    """One preset; raises `BadRequest` for a name that is none."""
    found = presets().get(name)
    if found is None:
        raise BadRequest(f"there is no preset {name!r}", f"presets: {', '.join(presets())}; see `coloc presets`")
    return found
