"""Service files (TOML): what a service owner writes, turned into a `ServiceSpec`. Keys are described in docs/service-file.md."""

import json
import os
import re
import stat
import string
import tomllib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from colocd.core.service import Measure, ServiceSpec
from colocd.errors import BadFile
from colocd.sbatch_options import option_reason, script_reason
from colocd.service_odd import odd
from colocd.telemetry.names import SERVERS, measures, selector
from colocd.toml import Document
from colocd.units import LONG, Rule, duration, one_line

PLACEHOLDERS = ("address", "node", "port", "slot")
SCRIPT_LIMIT = 256 << 10
"""Longest script in bytes; far below Slurm's own limit of 4 MiB, since it is kept with the service."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}\$?")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


def _matches(pattern: re.Pattern[str], what: str) -> Rule:
    return Rule(check=lambda value: None if pattern.fullmatch(value) else f"must be {what}, not {value!r:.80}")


def url_placeholders(url: str) -> set[str]:
    """Names in braces in a URL; raises ValueError for anything in braces that is not a plain name."""
    names = set()
    for _, name, spec, conversion in string.Formatter().parse(url):
        if name is None:
            continue
        if name not in PLACEHOLDERS or spec or conversion:
            known = ", ".join(f"{{{word}}}" for word in PLACEHOLDERS)
            raise ValueError(f"has the unknown placeholder {{{name}}}; known are {known}")
        names.add(name)
    return names


def _url(value: str) -> str | None:
    said = one_line(value)
    if said is not None:
        return said
    if any(char.isspace() for char in value):
        return "must not contain blanks"
    try:
        url_placeholders(value)
        parts = urlsplit(value.format(address="192.0.2.1", node="n1", port=8000, slot=0))
        host, port = parts.hostname, parts.port
    except ValueError as wrong:
        return f"{wrong}" if "placeholder" in str(wrong) else f"is not a URL: {wrong}"
    if parts.scheme not in ("http", "https"):
        return f"must start with http:// or https://, not {value!r:.60}"
    if not host or port == 0:
        return "must name a host" if not host else "must not use port 0"
    if "@" in parts.netloc:
        return "must not contain a user name or password"
    return None


def _script(value: str) -> str | None:
    if not value.startswith("#!"):
        return 'must start with "#!" (as in #!/bin/bash)'
    if not value.split("\n", 1)[0][2:].strip():
        return 'must name an interpreter after "#!"'
    if "\0" in value:
        return "contains a NUL character"
    if len(value.encode("utf-8", "surrogatepass")) > SCRIPT_LIMIT:
        return f"is longer than {SCRIPT_LIMIT} bytes"
    found = script_reason(value)
    return None if found is None else f"line {found[0]} of the script {found[1]}; delete it"


def _script_file(value: str) -> str | None:
    said = one_line(value)
    if said is not None:
        return said
    if value.startswith("/") or ".." in value.split("/"):
        return "must be a path below the folder of the service file, without '..'"
    return None


def _series(mapping: dict[str, str]) -> str | None:
    try:
        for fact, text in mapping.items():
            selector(fact, text)
    except ValueError as wrong:
        return f"is refused: {wrong}"
    return None


_SIZE = 1e12

RULES: dict[str, Rule] = {
    "name": _matches(_NAME, "1 to 63 of a-z, 0-9 and -, not starting with -"),
    "user": _matches(_USER, "a user name"),
    "partition": _matches(_WORD, "the name of one partition"),
    "script": Rule(check=_script),
    "script_file": Rule(check=_script_file),
    "gpus_per_replica": Rule(low=1, high=64),
    "capacity.per_replica": Rule(above=0.0, high=_SIZE),
    "capacity.target_use": Rule(above=0.0, high=1.0),
    "capacity.learn": Rule(),
    "slo.ttft": duration(high=3600.0),
    "slo.tpot": duration(high=60.0),
    "drain.url": Rule(check=_url),
    "drain.hook": _matches(_WORD, "the name of a program in routing.hooks, without a path"),
    "drain.timeout": duration(high=60.0),
    "drain.settle": duration(zero=True, high=3600.0),
    "load.url": Rule(check=_url),
    "load.measure": Rule(),
    "load.server": Rule(
        check=lambda value: None if value in SERVERS else f"must be one of {', '.join(SERVERS)}, not {value!r:.60}"
    ),
    "load.series": Rule(check=_series),
    "link_level": Rule(),
    "mode": Rule(),
    "min_replicas": Rule(low=0, high=4096),
    "max_replicas": Rule(low=1, high=4096),
    "cpus_per_replica": Rule(low=1, high=4096),
    "port_base": Rule(low=1, high=65535),
    "ready.url": Rule(check=_url),
    "ready.timeout": duration(high=86400.0),
    "drain_grace": duration(zero=True, high=86400.0),
    "lead_time": duration(high=86400.0),
    "priority": Rule(low=-1_000_000, high=1_000_000),
    "season": duration(high=LONG),
    "nodes": Rule(low=1, high=1024),
    "closeness": Rule(),
    "spread": Rule(),
    "beside": _matches(_NAME, "the name of a service"),
    "like": _matches(_NAME, "the name of a service"),
    "sbatch_options": Rule(),
    "sbatch_options[]": Rule(check=option_reason),
}
"""Range and unit of every key; a test walks the Structs and proves that none is missing."""


def parse_service(text: str, filename: str) -> ServiceSpec:
    """Read the text of a service file; raises `BadFile` with file, line, key and reason.

    `script_file` is read from below the folder of `filename`, which must be an absolute path then: the daemon's working
    folder means nothing (see `inline_script`). Windows line ends become plain ones, in scripts, too.
    """
    document = Document(text, filename, BadFile)
    _take_script(document, Path(filename).parent if filename.startswith("/") else None)
    spec = document.build(ServiceSpec, RULES)
    for key, reason in _conflicts(spec):
        document.complain(key, reason)
    document.finish()
    return spec


def inline_script(text: str, filename: str) -> str:
    """Put the content of `script_file` into the text as `script`, on the same line; other texts come back as they are.

    For a client that sends the text to a daemon which cannot or must not read the client's files. Raises `BadFile`.
    """
    document = Document(text, filename, BadFile)
    line = document.line(("script_file",))
    if "script_file" not in document.data or "script" in document.data or line is None:
        return text  # nothing to do, or a mistake that parse_service will name
    _take_script(document, Path(filename).parent)
    document.finish()
    lines = text.replace("\r\n", "\n").split("\n")
    try:
        alone = tomllib.loads(lines[line - 1].removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError:
        alone = {}
    if set(alone) != {"script_file"}:
        raise BadFile(f"{filename}:{line}: script_file: must be written on one line")
    script = json.dumps(document.data["script"], ensure_ascii=False).replace("\x7f", "\\u007f")
    lines[line - 1] = f"script = {script}"
    return "\n".join(lines)


def service_warnings(spec: ServiceSpec) -> list[str]:
    """Legal values that are hardly meant, and a user this host does not know; one sentence each."""
    return list(odd(spec, url_placeholders))


def spec_to_json(spec: ServiceSpec) -> str:
    """The spec as it is kept in the store: same spec, same text."""
    return msgspec.json.encode(spec, order="deterministic").decode()


def spec_from_json(text: str) -> ServiceSpec:
    """Read what `spec_to_json` wrote, by this release or an older one; raises `BadFile`.

    Ranges are not checked again: a stored service must not stop the daemon because a later release became stricter.
    """
    try:
        return msgspec.json.decode(text, type=ServiceSpec)
    except (msgspec.MsgspecError, UnicodeError) as wrong:
        raise BadFile(f"stored service: {wrong}", "apply the service file again with `coloc service apply`") from None


def _conflicts(spec: ServiceSpec) -> Iterable[tuple[tuple[str, ...], str]]:
    if spec.min_replicas > spec.max_replicas:
        yield ("min_replicas",), f"must not be above max_replicas ({spec.min_replicas} > {spec.max_replicas})"
    if spec.port_base + spec.max_replicas > 65535:
        yield ("port_base",), f"is too high: port_base + max_replicas ({spec.max_replicas}) must not be above 65535"
    if (spec.load.measure is Measure.BUSY) == bool(spec.load.url):
        yield ("load", "url"), "must not be given: busy_gpus is read from the GPUs" if spec.load.url else "is missing"
    if spec.load.measure is Measure.BUSY:
        return
    able = measures(spec.load.server, spec.load.series)
    if spec.load.measure not in able:
        others = ", ".join(measure.value for measure in Measure if measure in able)
        yield (
            ("load", "measure"),
            f"{spec.load.measure.value} cannot be read from {spec.load.server}; it tells {others}",
        )


def _take_script(document: Document, folder: Path | None) -> None:
    """Replace `script_file` by its content, so that only `script` is left to decode. `folder` None: it is not known."""
    data = document.data
    if isinstance(data.get("script"), str):
        data["script"] = data["script"].replace("\r\n", "\n")
    if "script_file" not in data:
        if "script" not in data:
            document.complain(("script",), "is missing; give script or script_file")
            data["script"] = _NO_SCRIPT
        return
    name = data.pop("script_file")
    if "script" in data:
        document.complain(("script_file",), "must not stand beside script: give one of them")
        return
    data["script"] = _NO_SCRIPT
    if not isinstance(name, str):
        document.complain(("script_file",), "must be a text")
        return
    reason = _script_file(name)
    if reason is None and folder is None:
        reason = "can only be read here when the service file is named by its absolute path"
    elif reason is None and folder is not None:
        try:
            content = _read_script(folder, name)
        except (OSError, ValueError) as wrong:
            reason = f"{name!r:.80} cannot be read: {getattr(wrong, 'strerror', None) or wrong}"
        else:
            data["script"] = content
            reason = _script(content)
    if reason is not None:
        data["script"] = _NO_SCRIPT
        document.complain(("script_file",), reason)


_NO_SCRIPT = "#!/bin/sh\n"
"""Stands in for a script that was refused already, so that it is not refused twice."""


def _read_script(folder: Path, name: str) -> str:
    path = Path(os.path.realpath(folder / name, strict=True))  # Path.resolve raises RuntimeError for link loops
    if not path.is_relative_to(os.path.realpath(folder)):
        raise ValueError("it lies outside the folder of the service file")
    # O_NONBLOCK: opening a named pipe must not hang the daemon
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(SCRIPT_LIMIT + 1)
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
