"""`coloc topo import`: makes a file for `[[topology.sources]]`, checked and in Slurm's order."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from coloc_cli import output, topo_check, topo_files, topo_network
from coloc_cli.app import App
from coloc_topology.check_facts import base, reordered
from coloc_topology.errors import TopologyError
from coloc_topology.gres_conf import read_gres_conf
from coloc_topology.hostlist import fold
from coloc_topology.nvml_facts import encode_facts
from coloc_topology.nvml_shape import order_from_files, shape_from_nvml
from coloc_topology.slurm_nodes import read_conf_nodes
from coloc_topology.smi_write import write_topo
from coloc_topology.source import Source, kind_of
from coloc_topology.subsets import MAX_GPUS
from colocd.errors import BadFile, BadRequest
from colocd.shapes import SLURM_CONF

ORDER_HINT = "give --order, or a dump of `coloc topo dump`, which knows the device numbers"


class Options(NamedTuple):
    """What the command line said; None: not given."""

    file: str
    nodes: str
    out: str | None
    order: str | None
    gres_conf: str | None


def run(app: App, options: Options) -> None:
    """Write the file and say how to name it in the configuration."""
    import msgspec

    names = topo_files.hosts(options.nodes)
    text = topo_files.read_text(options.file)
    topo_network.refuse(options.file, kind_of(text))
    if kind_of(text) == "gres.conf":
        raise BadFile(f"{options.file} is a gres.conf", "coloc reads gres.conf by itself; import facts of a server")
    source = topo_files.read_file(options.file, text)
    path, types = (None, ()) if options.order is not None else _slurm(app, options, names[0])
    order = _given(options, source) if options.order is not None else _order(options, source, names[0], path, types)
    if source.facts is not None:
        facts = source.facts
        host = names[0] if len(names) == 1 else facts.host
        written = encode_facts(msgspec.structs.replace(facts, order=order, host=host))
        shape = shape_from_nvml(facts, order=order).shape
    else:
        shape = reordered(base(source), order)
        nics = [nic._replace(links=tuple(nic.links[i] for i in order)) for nic in source.nics]
        written = write_topo(shape, nics, f"nodes {fold(names)}, in Slurm's order")
    _tell(options, source, names, shape.gpus, compared=path is not None or options.order is not None)
    if options.out is None:
        output.raw(written.encode())
    else:
        _write(options.out, written)
        output.say("[[topology.sources]]")
        output.say(f'nodes = "{fold(names)}"')
        output.say(f'file = "{os.path.abspath(options.out)}"')


def _given(options: Options, source: Source) -> tuple[int, ...]:
    words = (options.order or "").split(",")
    order = tuple(int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 4)
    if len(order) != len(words) or sorted(order) != list(range(source.shape.gpus)):
        message = f"--order {options.order or ''!r} does not name each of the {source.shape.gpus} GPUs once"
        raise BadRequest(message, "the i-th number is what the file calls Slurm's GPU i: --order 4,5,6,7,0,1,2,3")
    return order


def _order(options: Options, source: Source, node: str, path: str | None, types: tuple[str, ...]) -> tuple[int, ...]:
    """Slurm's order by gres.conf's File; the file's own without a gres.conf or with AutoDetect (both are PCI order)."""
    own = tuple(number.nvml for number in source.numbers) or tuple(range(source.shape.gpus))
    if path is None:
        return own
    try:
        conf = read_gres_conf(topo_files.read_text(path), [])
        gpus = conf.gpus(node, types)
        detects = conf.autodetect(node)[-1:]
    except TopologyError as error:
        raise BadFile(f"{path}, {error}") from None
    if detects not in ((), ("off",)):
        return own
    if len(gpus) != source.shape.gpus:
        message = f"{path} lists {len(gpus)} GPUs for {node}, {options.file} has {source.shape.gpus}"
        raise BadFile(message, "import the file of a node of this kind; `coloc topo check` tells more")
    files = [gpu.file for gpu in gpus]
    if source.facts is None:
        minors = [_minor(file) for file in files]
        known = [minor for minor in minors if minor is not None]
        if len(known) != len(minors) or known != sorted(set(known)):
            message = f"{path} has the devices of {node} in an order that {source.kind} does not explain"
            raise BadFile(message, ORDER_HINT)
        return own
    order, wrong = order_from_files(source.facts, files)
    if order is None:
        raise BadFile(f"{path} does not fit {options.file}: {'; '.join(wrong[:3])}", ORDER_HINT)
    return order


def _minor(file: str | None) -> int | None:
    """The number in a device's name; None: it has none."""
    found = re.fullmatch(r"/dev/(?:nvidia|dri/renderD|dri/card)([0-9]{1,4})", file or "")
    return None if found is None else int(found[1])


def _slurm(app: App, options: Options, node: str) -> tuple[str | None, tuple[str, ...]]:
    """The gres.conf that counts (None: there is none), and the order of the node's GPU types in slurm.conf."""
    slurm, topology = topo_check.config(app)
    conf_path = slurm.conf or app.environ.get("SLURM_CONF") or SLURM_CONF
    path = options.gres_conf or topology.gres_conf or str(Path(conf_path).with_name("gres.conf"))
    if options.gres_conf is None and topology.gres_conf is None and not os.path.exists(path):
        return None, ()
    try:
        found = read_conf_nodes(topo_files.read_text(conf_path)).get(node)
    except (BadFile, TopologyError):
        found = None
    return path, tuple(kind for kind, _ in found.types) if found is not None else ()


def _tell(options: Options, source: Source, names: tuple[str, ...], gpus: int, *, compared: bool) -> None:
    """What the person should know goes to stderr, so that stdout is the file."""
    notes = list(source.notes)
    if source.pcie_only:
        notes.append("it shows no NVLinks: it comes from `topo -mp`, take `topo -m`")
    if source.domain is not None and len(names) > 1:
        notes.append("its NVLink domain counts only for the node of the dump; import one dump for each node")
    if not compared:
        notes.append("there is no gres.conf to compare the order with (--gres-conf); PCI order is assumed")
    if gpus > MAX_GPUS:
        notes.append(f"colocd does not use it: {gpus} GPUs, and at most {MAX_GPUS} a node are supported")
    for note in notes:
        output.warn(f"coloc: {output.clean(options.file)}: {output.clean(note)}")
    output.warn(f"coloc: {gpus} GPUs for {fold(names)}")


def _write(path: str, text: str) -> None:
    part = f"{path}.part.{os.getpid()}"
    try:
        with open(part, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no name of a file"
        raise BadFile(f"{path} cannot be written: {reason}", "name a file in a folder you may write to") from None
    finally:
        if "\0" not in part and os.path.exists(part):
            os.unlink(part)
