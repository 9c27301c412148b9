"""Writes gres.conf lines for a known shape; what `gres_conf` reads back."""

from collections.abc import Sequence

from coloc_topology.errors import TopologyError
from coloc_topology.hostlist import fold
from coloc_topology.shape import Shape


def write_gres_conf(
    node_names: Sequence[str],
    shape: Shape,
    files: Sequence[str],
    types: Sequence[str] = (),
    *,
    links: bool = True,
    flags: str = "",
) -> str:
    """gres.conf lines for nodes of one shape: one line a GPU, in index order; `files[i]` is GPU i's device.

    `types[i]` is its gres type; empty (or no types at all): untyped. `Links` is written when some pair has NVLinks (never
    with `links` False), `Cores` where known, `Flags` for all GPUs if given. From Slurm 24.05 on, `Links` makes
    `--gres=gpu:n` take the worst-linked GPUs: see docs/topology.md.
    Raises `TopologyError` when counts do not match or a value cannot stand in gres.conf.
    """
    count = shape.gpus
    if not node_names:
        raise TopologyError("no node to write gres.conf lines for")
    if len(files) != count or len(types) not in (0, count):
        raise TopologyError(
            f"shape {shape.name} has {count} GPUs; {len(files)} files and {len(types)} types were given"
        )
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    linked = links and any(shape.pair_nvlinks(i, j) for i, j in pairs)
    lines = []
    for i in range(count):
        settings = {"NodeName": fold(node_names), "AutoDetect": "off", "Name": "gpu"}
        if types and types[i]:
            settings["Type"] = types[i]
        settings["File"] = files[i]
        cores = shape.cores[i] if i < len(shape.cores) else None
        if cores is not None:
            settings["Cores"] = cores
        if linked:
            settings["Links"] = ",".join("-1" if i == j else str(shape.pair_nvlinks(i, j)) for j in range(count))
        if flags:
            settings["Flags"] = flags
        lines.append(" ".join(f"{key}={_plain(key, value)}" for key, value in settings.items()))
    return "".join(line + "\n" for line in lines)


def _plain(key: str, value: str) -> str:
    if not value or any(c.isspace() or not c.isprintable() or c in '"#\\' for c in value):
        raise TopologyError(f"{key}={value[:60]!r} cannot be written to gres.conf")
    return value
