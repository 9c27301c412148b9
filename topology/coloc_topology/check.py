"""Compares gres.conf with what NVML or nvidia-smi tell and with what Slurm believes; writes the lines that would be right.

Pure. Nodes that have the same lines, the same facts and the same place in Slurm are looked at once and told together.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coloc_topology import check_facts
from coloc_topology.check_facts import Findings, Subject, Worth
from coloc_topology.check_lines import correct
from coloc_topology.errors import TopologyError
from coloc_topology.gres_conf import GresConf
from coloc_topology.releases import TESTED
from coloc_topology.slurm_nodes import SlurmNode
from coloc_topology.source import Source

INVERTED = next(release.since for release in TESTED if release.inverted_links)
"""From this release on, Slurm takes the worst-linked GPUs."""


class Finding(NamedTuple):
    """One thing that is wrong or odd on these nodes. `severity`: `error`, `warning` or `note`; `code` is its short name."""

    severity: str
    code: str
    nodes: tuple[str, ...]
    text: str


class Correction(NamedTuple):
    """gres.conf lines for some nodes, to stand instead of theirs."""

    nodes: tuple[str, ...]
    lines: str


class Report(NamedTuple):
    """Findings, worst first, and the lines that answer them where enough is known to write any."""

    findings: tuple[Finding, ...]
    corrections: tuple[Correction, ...]

    @property
    def wrong(self) -> bool:
        """Whether there is more than notes."""
        return any(finding.severity != "note" for finding in self.findings)


def check(
    conf: GresConf,
    nodes: Mapping[str, SlurmNode],
    sources: Mapping[str, Source],
    release: tuple[int, int] | None,
    complaints: Sequence[TopologyError] = (),
) -> Report:
    """Check all nodes that have GPUs in Slurm, in gres.conf by name, or a source.

    `complaints`: `Links` that reading gres.conf left out; those of lines that are for no node are told without one.
    """
    findings: dict[tuple[str, str, str], list[str]] = {}
    corrections: dict[object, tuple[Subject, list[str]]] = {}
    seen: dict[object, tuple[tuple[Worth, ...], Subject]] = {}
    names = dict.fromkeys([*(n for n, node in nodes.items() if node.gpus), *conf.names, *sources])
    for name in names:
        node, source = nodes.get(name), sources.get(name)
        key = (conf.lines(name), node, id(source))
        if key not in seen:
            subject = _subject(conf, name, node, source, release)
            worths = _stranger(source) if node is None and nodes else _look(subject, conf, name, complaints)
            seen[key] = (worths, subject)
        worths, subject = seen[key]
        for worth in worths:
            findings.setdefault(worth, []).append(name)
        if any(worth.severity != "note" for worth in worths) and _writable(subject, worths):
            corrections.setdefault(key, (subject, []))[1].append(name)
    for complaint in complaints:
        findings.setdefault(_invalid(complaint), [])
    rank = {"error": 0, "warning": 1, "note": 2}
    told = [Finding(*worth[:2], tuple(where), worth[2]) for worth, where in findings.items()]
    told.sort(key=lambda finding: rank[finding.severity])
    lines = [(tuple(where), correct(subject, where)) for subject, where in corrections.values()]
    return Report(tuple(told), tuple(Correction(where, text) for where, text in lines if text))


def _subject(
    conf: GresConf, name: str, node: SlurmNode | None, source: Source | None, release: tuple[int, int] | None
) -> Subject:
    types = tuple(kind for kind, _ in node.types) if node is not None else ()
    return Subject(conf.gpus(name, types), conf.autodetect(name), node, source, release, INVERTED)


def _stranger(source: Source | None) -> tuple[Worth, ...]:
    """A node that Slurm does not have: facts of it are for nothing, lines for it do no harm."""
    severity = "note" if source is None else "warning"
    return (Worth(severity, "node-unknown", "Slurm has no such node"),)


def _writable(subject: Subject, worths: Sequence[Worth]) -> bool:
    """Without a source only one thing can be repaired: Links that this release turns against the user."""
    if any(worth.code == "node-unknown" for worth in worths):
        return False
    return subject.source is not None or any(worth.code == "links-inverted" for worth in worths)


def _invalid(error: TopologyError) -> Worth:
    return Worth("error", "links-invalid", f"gres.conf, {error}")


def _look(subject: Subject, conf: GresConf, name: str, complaints: Sequence[TopologyError]) -> tuple[Worth, ...]:
    found = Findings()
    lines = {gpu.line for gpu in subject.gpus}
    left_out = [_invalid(complaint) for complaint in complaints if complaint.line in lines]
    found.all += left_out
    try:
        conf.node(name, tuple(kind for kind, _ in subject.node.types) if subject.node is not None else ())
    except TopologyError as error:
        found.all.append(_invalid(error))
    check_facts.gres(subject, found)
    check_facts.slurm(subject, found)
    if subject.source is not None:
        check_facts.devices(subject, found)
        check_facts.links(subject, found)
        check_facts.cores(subject, found)
    check_facts.sorting(subject, found)
    # Links that were left out because they are invalid are not missing, too.
    return tuple(dict.fromkeys(w for w in found.all if not (left_out and w.code == "links-missing")))
