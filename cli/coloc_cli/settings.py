"""What the command line needs of the configuration file: where the sockets are.

It reads only its own part and takes the defaults when the usual file is missing or not readable for the caller: an
ordinary user must be able to ask a running daemon. A file that was named (--config, COLOC_CONFIG) must be there.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from colocd.errors import BadConfig

if TYPE_CHECKING:
    from colocd.config import ApiConfig

DEFAULT_PATH = "/etc/coloc/colocd.toml"


def config_path(given: str | None, environ: Mapping[str, str]) -> str:
    """The configuration file that applies: --config, else COLOC_CONFIG, else /etc/coloc/colocd.toml."""
    return given or environ.get("COLOC_CONFIG") or DEFAULT_PATH


def read_table(path: str) -> dict[str, Any]:
    """The file's content; raises `BadConfig` when it is missing, unreadable or not TOML."""
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise BadConfig(f"the configuration file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: {error}") from None


def find_table(given: str | None, environ: Mapping[str, str], *, must_open: bool = True) -> dict[str, Any]:
    """As `read_table` of the file that applies; empty when the default path applies and cannot be opened.

    `must_open` False: also when COLOC_CONFIG names a file that cannot be opened. A `given` file must always be there.
    """
    path = config_path(given, environ)
    if not given and (path == DEFAULT_PATH or not must_open) and not os.access(path, os.R_OK):
        return {}
    return read_table(path)


def api_config(given: str | None, environ: Mapping[str, str]) -> "ApiConfig":
    """Where the daemon's sockets are; raises `BadConfig` when the file names them wrongly."""
    import msgspec

    from colocd.config import ApiConfig

    table = find_table(given, environ)
    try:
        return msgspec.convert(table.get("api", {}), ApiConfig)
    except msgspec.ValidationError as error:
        raise BadConfig(f"{config_path(given, environ)}: [api]: {error}") from None
