"""`coloc topo show`: pictures of files and of live nodes."""

from collections.abc import Sequence
from typing import Any

from coloc_cli import output, topo_domains, topo_files, topo_live, topo_network, topo_picture
from coloc_cli.app import App
from coloc_topology.errors import TopologyError
from coloc_topology.gres_conf import read_gres_conf
from coloc_topology.shape import Shape
from coloc_topology.source import Source, kind_of
from colocd.core.view import View
from colocd.errors import BadFile, DaemonUnreachable, NotFound

WIDTH = 80


def run(app: App, words: Sequence[str], as_json: bool) -> None:
    """Show files and nodes; without words, one line for each node, and what joins them."""
    documents: list[dict[str, Any]] = []
    pictures: list[list[str]] = []
    files = [word for word in words if topo_files.is_file(word)]
    for path in files:
        _file(path, documents, pictures)
    nodes = [word for word in words if word not in files]
    if nodes or not words:
        view = _view(app)
        found = _nodes(view, nodes)
        documents += [topo_live.document(use) for use in found]
        if words:
            pictures += [topo_live.lines(use, topo_domains.above(use.node, view.nodes)) for use in found]
        elif not as_json:
            _table(found)
            pictures += [["", *drawn]] if (drawn := topo_domains.tree(found)) else []
    if as_json:
        output.as_json(documents)
        return
    for n, lines in enumerate(pictures):
        if n:
            output.say("")
        for line in lines:
            for part in _folded(output.clean(line)):
                output.say(part)


def _folded(line: str) -> list[str]:
    """The line in pieces of at most 80 columns, with its indent kept."""
    if output.cells(line) <= WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    first, *rest = output.wrap(line.strip(), WIDTH - len(indent) - 2)
    return [indent + first, *(f"{indent}  {part}" for part in rest)]


def _nodes(view: View, words: Sequence[str]) -> list[topo_live.NodeUse]:
    names = [name for word in words for name in topo_files.hosts(word)] if words else None
    known = {node.name for node in view.nodes}
    strange = next((name for name in names or () if name not in known), None)
    if strange is not None:
        raise NotFound(f"Slurm has no node {strange!r}, and there is no such file", "`coloc topo show` lists the nodes")
    return topo_live.uses(view, names)


def _view(app: App) -> View:
    import msgspec

    from colocd.core.view import decode_view

    with app.client() as client:
        data = client.view()
    try:
        return decode_view(data)
    except msgspec.MsgspecError as error:
        raise DaemonUnreachable(f"the view of colocd cannot be read: {error}", "use the same release of both") from None


def _table(found: Sequence[topo_live.NodeUse]) -> None:
    if not found:
        output.say("no nodes with GPUs")
        return
    titles = ("NODE", "SHAPE", "GPUS", "FREE", "ISLAND", "USE")
    output.show(titles, [topo_live.row(use) for use in found], right="GPUS FREE ISLAND")
    output.say("ISLAND: most free GPUs joined by NVLink. S serving, b batch, ? unknown, x down")


def _file(path: str, documents: list[dict[str, Any]], pictures: list[list[str]]) -> None:
    text = topo_files.read_text(path)
    kind = kind_of(text)
    if topo_network.is_network(kind):
        document, lines = topo_network.read(path, text, kind)
        documents.append(document)
        pictures.append(lines)
        return
    if kind == "gres.conf":
        for nodes, shape, note in _gres(path, text):
            notes = [] if note is None else [note]
            documents.append(_document(path, "gres.conf", shape, nodes=nodes, notes=notes))
            head = f"{path}: {nodes}, {'links unknown' if shape is None else _count(shape)}"
            pictures.append(
                [head, *([] if shape is None else _drawn(shape, "cores")), *(f"  note: {note}" for note in notes)]
            )
        return
    read = topo_files.read_file(path, text)
    facts = read.facts
    documents.append(
        _document(
            path,
            read.kind,
            read.shape,
            numbers=[number._asdict() for number in read.numbers],
            domain=read.domain,
            host=None if facts is None else facts.host,
            notes=list(read.notes),
        )
    )
    pictures.append(_source(path, read))


def _document(path: str, kind: str, shape: Shape | None, **more: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"file": path, "kind": kind, "gpus": None if shape is None else shape.gpus}
    if shape is not None:
        document |= {"links": shape.links, "numa": shape.numa, "cores": shape.cores}
        document["islands"] = topo_live.islands(shape) if shape.gpus <= 16 else None
    return document | more


def _source(path: str, read: Source) -> list[str]:
    facts = read.facts
    what = _count(read.shape)
    if facts is not None:
        kinds = sorted({gpu.name for gpu in facts.gpus if gpu.name is not None})
        what = " ".join(filter(None, (facts.host and f"{facts.host},", what, " and ".join(kinds))))
    lines = [f"{path}: {what}", *_drawn(read.shape)]
    lines += [f"  near {nic.device or nic.name:<12} {topo_picture.near(nic.links)}" for nic in read.nics]
    if read.numbers:
        lines.append(f"  {'Slurm':>5}  {'NVML':>4}  {'device':<14}  PCI bus id")
        for number in read.numbers:
            device = "?" if number.minor is None else f"/dev/nvidia{number.minor}"
            lines.append(f"  {number.slurm:>5}  {number.nvml:>4}  {device:<14}  {number.bus_id or '?'}")
    if read.domain is not None:
        lines.append(f"  NVLink domain {read.domain}")
    if read.pcie_only:
        lines.append("  note: NVLinks are not shown: this is `nvidia-smi topo -mp`, take `topo -m`")
    return lines + [f"  note: {note}" for note in read.notes]


def _count(shape: Shape) -> str:
    return "1 GPU" if shape.gpus == 1 else f"{shape.gpus} GPUs"


def _drawn(shape: Shape, what: str = "CPUs") -> list[str]:
    if shape.gpus > 16:
        return topo_picture.picture(shape)
    lines = topo_picture.picture(shape)
    if shape.gpus > 1:
        lines += ["", *topo_picture.matrix(shape), ""]
    return lines + [f"  {what} {cores}: near GPU {gpus}" for cores, gpus in topo_picture.cpus(shape)]


def _gres(path: str, text: str) -> list[tuple[str, Shape | None, str | None]]:
    """Node lists of a gres.conf with their shape and what is to say about it, equal ones together."""
    from coloc_topology.hostlist import fold

    try:
        conf = read_gres_conf(text)
        groups: dict[tuple[Shape | None, str | None], list[str]] = {}
        for name in conf.names or ("",):
            gres = conf.node(name)
            groups.setdefault((gres.shape, gres.note), []).append(name)
    except TopologyError as error:
        raise BadFile(f"{path}, {error}", topo_files.HINT) from None
    return [(fold(names) if names != [""] else "all nodes", *key) for key, names in groups.items()]
