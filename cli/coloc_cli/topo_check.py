"""`coloc topo check`: gathers gres.conf, Slurm's own words and the facts of the servers, and prints what does not fit."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coloc_cli import output, settings, topo_files, topo_network
from coloc_cli.app import App
from coloc_topology.check import Report, check
from coloc_topology.errors import TopologyError
from coloc_topology.gres_conf import read_gres_conf
from coloc_topology.hostlist import fold
from coloc_topology.slurm_nodes import (
    SlurmNode,
    config_release,
    read_conf_nodes,
    read_scontrol_nodes,
    release_of,
)
from coloc_topology.source import Source, kind_of
from colocd.config import SlurmConfig, TopologyConfig
from colocd.errors import BadConfig, BadFile, BadRequest, ColocError
from colocd.shapes import SLURM_CONF

GRES_HINT = "name the gres.conf with --gres-conf, or slurm.conf beside it with --slurm-conf"
CONF_HINT = "name slurm.conf with --slurm-conf"
LINES_HINT = "correct the line named above; `coloc topo check` goes on from there"


class Options(NamedTuple):
    """What the command line said; None: not given."""

    slurm_conf: str | None
    gres_conf: str | None
    facts: tuple[str, ...]
    release: str | None
    offline: bool


class Slurm(NamedTuple):
    """What is known of Slurm. `asked`: slurmctld answered; `why`: why it did not."""

    nodes: dict[str, SlurmNode]
    release: tuple[int, int] | None
    asked: bool
    why: str | None


def run(app: App, options: Options, as_json: bool) -> int:
    """Print findings and corrected lines; the exit code of the command."""
    slurm_config, topology = config(app)
    conf_path = options.slurm_conf or slurm_config.conf or app.environ.get("SLURM_CONF") or SLURM_CONF
    gres_path = options.gres_conf or topology.gres_conf or str(Path(conf_path).with_name("gres.conf"))
    slurm = _slurm(slurm_config, options, conf_path)
    text = topo_files.read_text(gres_path, GRES_HINT)
    complaints: list[TopologyError] = []
    try:
        conf = read_gres_conf(text, complaints)
        report = check(conf, slurm.nodes, _sources(options, topology, slurm.nodes), slurm.release, complaints)
    except TopologyError as error:
        raise BadFile(f"{gres_path}, {error}", LINES_HINT) from None
    if as_json:
        output.as_json(_document(report, slurm, gres_path))
    else:
        _print(report, slurm, gres_path)
    return BadConfig.exit_code if report.wrong else 0


def config(app: App) -> tuple[SlurmConfig, TopologyConfig]:
    """The parts of the configuration that count here; defaults where there is no file."""
    import msgspec

    table = settings.find_table(app.config, app.environ)
    try:
        slurm = msgspec.convert(table.get("slurm", {}), SlurmConfig)
        return slurm, msgspec.convert(table.get("topology", {}), TopologyConfig)
    except msgspec.ValidationError as error:
        raise BadConfig(f"{app.config_path}: {error}") from None


def _slurm(config: SlurmConfig, options: Options, conf_path: str) -> Slurm:
    import msgspec

    given = None if options.release is None else release_of(options.release)
    if options.release is not None and given is None:
        raise BadRequest(f"{options.release[:40]!r} is no release of Slurm", "write it like 24.11")
    why = None
    if not options.offline:
        from colocd.clock import SystemClock
        from colocd.slurm.shell import Shell

        named = conf_path if options.slurm_conf or config.conf or "SLURM_CONF" in os.environ else None
        shell = Shell(msgspec.structs.replace(config, conf=named), SystemClock())
        try:
            release = config_release(shell.ask("scontrol", "show", "config"))
            nodes = read_scontrol_nodes(shell.ask("scontrol", "-o", "show", "node"))
            return Slurm(nodes, given or release, True, None)
        except ColocError as error:
            why = str(error)
    try:
        return Slurm(read_conf_nodes(topo_files.read_text(conf_path, CONF_HINT)), given, False, why)
    except TopologyError as error:
        raise BadFile(f"{conf_path}, {error}", LINES_HINT) from None
    except BadFile:
        if options.slurm_conf is not None:
            raise
        return Slurm({}, given, False, why)


def _sources(options: Options, topology: TopologyConfig, nodes: Mapping[str, SlurmNode]) -> dict[str, Source]:
    """The facts of each node: from the command line, else from the configuration's topology sources."""
    found: dict[str, Source] = {}
    for word in options.facts:
        hosts, equals, path = word.partition("=")
        if not equals or "/" in hosts:
            hosts, path = "", word  # a path, perhaps with "=" in it (write ./a=b)
        source = _facts(path)
        if hosts:
            names = topo_files.hosts(hosts)
        elif source.facts is not None and source.facts.host is not None:
            names = (source.facts.host,)
        else:
            raise BadRequest(f"{path} does not tell which node it is from", f"write --nvml NODES={path}")
        found.update(dict.fromkeys(names, source))
    for given in topology.sources:
        source = _facts(given.file)
        for name in topo_files.hosts(given.nodes):
            found.setdefault(name, source)
    return found


def _facts(path: str) -> Source:
    text = topo_files.read_text(path)
    topo_network.refuse(path, kind_of(text))
    if kind_of(text) == "gres.conf":
        raise BadFile(f"{path} is a gres.conf, not facts of a server", "give it with --gres-conf")
    return topo_files.read_file(path, text)


def _release(slurm: Slurm) -> str | None:
    return None if slurm.release is None else f"{slurm.release[0]}.{slurm.release[1]:02d}"


def _document(report: Report, slurm: Slurm, gres_path: str) -> dict[str, Any]:
    return {
        "gres_conf": gres_path,
        "slurm": {"release": _release(slurm), "asked": slurm.asked, "why_not": slurm.why},
        "findings": [{**finding._asdict(), "nodes": list(finding.nodes)} for finding in report.findings],
        "corrections": [{"nodes": list(c.nodes), "lines": c.lines.splitlines()} for c in report.corrections],
    }


def _print(report: Report, slurm: Slurm, gres_path: str) -> None:
    if not slurm.asked:
        known = "counts are slurm.conf's" if slurm.nodes else "its counts are not checked"
        why = "not asked" if slurm.why is None else slurm.why
        output.paragraph("Slurm", f"{_release(slurm) or 'release unknown'}; {known} ({why})", 9)
    for finding in report.findings:
        where = f"{_hosts(finding.nodes)}: " if finding.nodes else ""
        output.paragraph(finding.severity, f"{where}{finding.text}", 9)
    for correction in report.corrections:
        output.say("")
        output.say(f"# {output.clean(gres_path)}: instead of the lines for {_hosts(correction.nodes)}")
        for line in correction.lines.splitlines():
            output.say(output.clean(line))
        links = "Links=" in correction.lines
        if not links and any(
            f.code.startswith("links") and set(f.nodes) & set(correction.nodes) for f in report.findings
        ):
            output.say("# coloc itself still needs the links: see `coloc topo import`")
    if not report.findings:
        output.say(f"{gres_path}: nothing to complain about")


def _hosts(names: Sequence[str]) -> str:
    try:
        return fold(names)
    except TopologyError:
        return ",".join(names)
