"""What an agent and colocd say to each other: MessagePack inside a munge credential, one batch a connection.

Everything is bounded, because even a rightful sender may be broken. None always means that the GPU or the driver does not
tell. Times are ages in seconds at sending, so the clocks of the two hosts need not agree.
"""

from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

MAGIC = b"COLOC-A1"
VERSION = 1
MAX_CREDENTIAL = 128 * 1024
"""Longest credential, in bytes; a batch of an 8-GPU node has about two kilobytes."""
MAX_PAYLOAD = 64 * 1024
MAX_REPLY = 4096
MAX_GPUS = 128
MAX_SAMPLES = 512

Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Word = Annotated[str, Meta(max_length=100)]
Sentence = Annotated[str, Meta(max_length=300)]


class JobUse(msgspec.Struct, frozen=True, array_like=True):
    """Processes of one Slurm job on a GPU. `job`: its plain id, "": of no job that can be told. `memory` in MiB."""

    job: Annotated[str, Meta(max_length=20, pattern="^[0-9]*$")]
    processes: Count
    memory: Count | None


Jobs = Annotated[tuple[JobUse, ...], Meta(max_length=256)]


class Instance(msgspec.Struct, frozen=True, array_like=True):
    """One MIG instance. NVML tells no utilisation of it. `used` and `memory` in MiB."""

    uuid: Word | None
    used: Count | None
    memory: Count | None
    jobs: Jobs | None


class GpuSample(msgspec.Struct, frozen=True, array_like=True):
    """One GPU at one time.

    `sm`, `memory_busy`: percent of the last period of the driver in which a kernel ran, in which memory was read or
    written. `used` MiB, `power` milliwatts, clocks MHz. `nvlink_tx`, `nvlink_rx` KiB and `nvlink_errors` since the driver
    started. `ecc`, `corrected`: memory errors since then. `remap`: 1 a row waits for a reset, 2 remapping failed, 3 both.
    `xids`: critical ones since the boot. `lost`: why the GPU cannot be reached. `jobs` None: its processes could not be
    listed. `instances` None: MIG is off.
    """

    sm: Percent | None = None
    memory_busy: Percent | None = None
    used: Count | None = None
    power: Count | None = None
    clock: Count | None = None
    memory_clock: Count | None = None
    nvlink_tx: Count | None = None
    nvlink_rx: Count | None = None
    nvlink_errors: Count | None = None
    ecc: Count | None = None
    corrected: Count | None = None
    remap: Annotated[int, Meta(ge=0, le=3)] | None = None
    xids: Annotated[tuple[Count, ...], Meta(max_length=32)] = ()
    lost: Word | None = None
    jobs: Jobs | None = None
    instances: Annotated[tuple[Instance, ...], Meta(max_length=16)] | None = None


class GpuInfo(msgspec.Struct, frozen=True, array_like=True):
    """Which GPU it is. `index` is NVML's, `minor` the N of /dev/nvidiaN, `memory` MiB."""

    index: Annotated[int, Meta(ge=0, lt=MAX_GPUS)]
    minor: Count | None = None
    uuid: Word | None = None
    bus_id: Word | None = None
    name: Word | None = None
    memory: Count | None = None
    mig: bool | None = None


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """All GPUs of the node at one time, in the order of `Batch.gpus`. `age`: seconds before the batch was sent."""

    seq: Count
    age: Annotated[float, Meta(ge=0, le=86400.0)]
    gpus: Annotated[tuple[GpuSample, ...], Meta(max_length=MAX_GPUS)]


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Samples of one node, oldest first. `run` names one start of the agent, `seq` counts within it.

    `dropped`: samples that this agent gave up because its buffer was full. `problems`: what it cannot read.
    """

    version: int
    node: Annotated[str, Meta(min_length=1, max_length=64)]
    run: Annotated[str, Meta(min_length=8, max_length=32)]
    period: Annotated[float, Meta(gt=0, le=3600)]
    gpus: Annotated[tuple[GpuInfo, ...], Meta(max_length=MAX_GPUS)]
    samples: Annotated[tuple[Sample, ...], Meta(max_length=MAX_SAMPLES)]
    dropped: Count = 0
    problems: Annotated[tuple[Sentence, ...], Meta(max_length=16)] = ()


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """colocd's answer. `taken`: highest `seq` of this run that it has, so that it need not be sent again; -1: none."""

    ok: bool
    taken: int
    why: Sentence = ""


class NotABatch(ValueError):
    """The bytes are no batch; the message says why in one sentence."""


_BATCH = msgspec.msgpack.Decoder(Batch)
_REPLY = msgspec.msgpack.Decoder(Reply)
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Batch | Reply) -> bytes:
    """The message as MessagePack."""
    return _ENCODER.encode(message)


def decode_batch(data: bytes) -> Batch:
    """Read a batch; raises `NotABatch`."""
    if len(data) > MAX_PAYLOAD:
        raise NotABatch(f"the batch has {len(data)} bytes; at most {MAX_PAYLOAD} are taken")
    try:
        batch = _BATCH.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotABatch(f"the batch cannot be read: {error}"[:300]) from None
    if batch.version != VERSION:
        raise NotABatch(f"the batch has version {batch.version}; this release reads version {VERSION}")
    numbers = [sample.seq for sample in batch.samples]
    if any(b <= a for a, b in pairwise(numbers)):
        raise NotABatch("the samples are not in order")
    if any(len(sample.gpus) != len(batch.gpus) for sample in batch.samples):
        raise NotABatch("a sample has another number of GPUs than the batch")
    if len({gpu.index for gpu in batch.gpus}) != len(batch.gpus):
        raise NotABatch("two GPUs have the same index")
    return batch


def decode_reply(data: bytes) -> Reply:
    """Read an answer; raises `NotABatch`."""
    try:
        return _REPLY.decode(data)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise NotABatch(f"the answer cannot be read: {error}"[:300]) from None
