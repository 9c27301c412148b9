"""What NVML says of one server, as a JSON document: `coloc topo dump` writes it on the GPU node, the head node reads it.

Facts only, in NVML's own numbering and nothing concluded from them; `nvml_shape` does that. None always means that NVML
did not tell (not supported, function missing, an error that `problems` names).
"""

import re

import msgspec

from coloc_topology.errors import TopologyError

FORMAT = "coloc-nvml"
VERSION = 1
MAX_NVML_GPUS = 128

_BUS = re.compile(r"([0-9A-Fa-f]{1,8}):([0-9A-Fa-f]{1,2}):([0-9A-Fa-f]{1,2})\.([0-9A-Fa-f])")


class NvLink(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One NVLink port of a GPU. `remote` is `gpu`, `switch`, `npu`; `bus_id` the PCI bus id at the other end."""

    link: int
    active: bool | None = None
    remote: str | None = None
    bus_id: str | None = None


class Fabric(msgspec.Struct, frozen=True, kw_only=True):
    """Registration of a GPU with an NVLink fabric: GPUs with equal `cluster` and `clique` reach each other by NVLink.

    `cluster` None: a fabric of this server alone. `state`: `completed`, `in-progress`, `not-started`, or `failed`.
    """

    state: str
    cluster: str | None = None
    clique: int | None = None


class NvmlGpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. `index` is NVML's, `minor` the N of /dev/nvidiaN, `memory` in bytes.

    `numa`: NUMA nodes of the CPUs near it; `own_numa`: NUMA node that its memory is itself (Grace). `cpus`: numbers of
    the operating system. `nvlinks` (): it has none; None: not readable. `lost`: why the GPU itself cannot be read.
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    minor: int | None = None
    bus_id: str | None = None
    memory: int | None = None
    numa: tuple[int, ...] | None = None
    own_numa: int | None = None
    cpus: str | None = None
    mig: bool | None = None
    fabric: Fabric | None = None
    nvlinks: tuple[NvLink, ...] | None = None
    lost: str | None = None


class NvmlPair(msgspec.Struct, frozen=True, kw_only=True):
    """Two GPUs (NVML's indices). `ancestor`: the PCIe path in nvidia-smi's words. Peer access: `ok` or why not."""

    a: int
    b: int
    ancestor: str | None = None
    p2p_read: str | None = None
    p2p_nvlink: str | None = None


class NvmlFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The dump of one server. `cores[i]`: operating system's CPUs of Slurm's core i; None: not read.

    `order[i]`: NVML index of Slurm's GPU i, once somebody has compared the two (`coloc topo import`); None: nobody has.
    """

    format: str = FORMAT
    version: int = VERSION
    host: str | None = None
    driver: str | None = None
    gpus: tuple[NvmlGpu, ...] = ()
    pairs: tuple[NvmlPair, ...] = ()
    cores: tuple[str, ...] | None = None
    order: tuple[int, ...] | None = None
    problems: tuple[str, ...] = ()


def looks_like_nvml(text: str) -> bool:
    """Whether a topology file is a dump (JSON) and not an output of nvidia-smi."""
    return text.removeprefix("\ufeff").lstrip()[:1] == "{"


def encode_facts(facts: NvmlFacts) -> str:
    """The dump as JSON, one GPU and one pair a line; same facts, same text."""
    parts = []
    for field in NvmlFacts.__struct_fields__:
        value = getattr(facts, field)
        if field in ("gpus", "pairs") and value:
            text = "[\n  " + ",\n  ".join(msgspec.json.encode(item).decode() for item in value) + "\n ]"
        else:
            text = msgspec.json.encode(value).decode()
        parts.append(f' "{field}": {text}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _place(text: str, complaint: str) -> tuple[int, int] | tuple[None, None]:
    """Line and column of the byte that a complaint about JSON names; None: it names none, but a path."""
    found = re.search(r"\(byte ([0-9]+)\)", complaint)
    if found is None:
        return None, None
    before = text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")[: int(found[1])]
    return before.count(b"\n") + 1, len(before) - before.rfind(b"\n")


def decode_facts(text: str) -> NvmlFacts:
    """Read a dump.

    Raises `TopologyError` that names the place: line and column where it is no JSON, else the path of the field.
    """
    try:
        facts = msgspec.json.decode(text.removeprefix("\ufeff").encode("utf-8", "surrogatepass"), type=NvmlFacts)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise TopologyError(f"this is no NVML dump of `coloc topo dump`: {error}", *_place(text, str(error))) from None
    if facts.format != FORMAT:
        raise TopologyError(f"this is no NVML dump of `coloc topo dump`: its format is {facts.format[:40]!r}")
    if facts.version != VERSION:
        raise TopologyError(f"the NVML dump has version {facts.version}; this release reads version {VERSION}")
    _check(facts)
    return facts


def _check(facts: NvmlFacts) -> None:
    count = len(facts.gpus)
    if count > MAX_NVML_GPUS:
        raise TopologyError(f"the NVML dump has {count} GPUs; more than {MAX_NVML_GPUS} are not believed")
    if [gpu.index for gpu in facts.gpus] != list(range(count)):
        raise TopologyError("the GPUs of the NVML dump are not numbered 0, 1 and so on, in order")
    seen: set[tuple[int, int]] = set()
    for pair in facts.pairs:
        key = (min(pair.a, pair.b), max(pair.a, pair.b))
        if not 0 <= key[0] < key[1] < count:
            raise TopologyError(f"the NVML dump tells of the pair {pair.a} and {pair.b}, but it has {count} GPUs")
        if key in seen:
            raise TopologyError(f"the NVML dump tells of the pair {key[0]} and {key[1]} twice")
        seen.add(key)
    for fact in ("uuid", "minor", "bus_id"):
        known = [value for gpu in facts.gpus if (value := bus(gpu.bus_id) if fact == "bus_id" else getattr(gpu, fact))]
        twice = next((value for value in known if known.count(value) > 1), None)
        if twice is not None:
            raise TopologyError(f"two GPUs of the NVML dump have the same {fact} {str(twice)[:60]}")
    if facts.order is not None and sorted(facts.order) != list(range(count)):
        raise TopologyError("`order` of the NVML dump does not name each GPU once")


def bus(text: str | None) -> str | None:
    """A PCI bus id in one form, `0000:3b:00.0` (sysfs); None: unknown, or no address of a device."""
    found = None if text is None else _BUS.fullmatch(text.strip())
    if found is None:
        return None
    domain, number, device, function = (int(part, 16) for part in found.groups())
    if domain == number == device == 0:
        return None  # NVML's answer for a link whose other end it does not know
    return f"{domain:04x}:{number:02x}:{device:02x}.{function:x}"
