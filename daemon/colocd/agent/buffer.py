"""Samples that colocd has not confirmed yet, oldest first, in memory and bounded."""

from collections import deque

from colocd.agent.wire import MAX_SAMPLES, VERSION, Batch, GpuInfo, GpuSample, Sample

_Entry = tuple[int, float, tuple[GpuInfo, ...], tuple[GpuSample, ...]]


class Buffer:
    """Times are monotonic seconds. When it is full the oldest sample goes: a hole, counted in `dropped`."""

    def __init__(self, node: str, run: str, period: float, size: int) -> None:
        self._node, self._run, self._period = node, run, period
        self._entries: deque[_Entry] = deque()
        self._size = size
        self._next = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, at: float, gpus: tuple[GpuInfo, ...], samples: tuple[GpuSample, ...]) -> None:
        """Append a sample taken at `at`."""
        if len(self._entries) >= self._size:
            self._entries.popleft()
            self.dropped += 1
        self._entries.append((self._next, at, gpus, samples))
        self._next += 1

    def batch(self, now: float, limit: int, problems: tuple[str, ...] = ()) -> Batch:
        """The oldest samples of the same GPUs, at most `limit`; without any, a batch that only says what is wrong."""
        gpus = self._entries[0][2] if self._entries else ()
        taken: list[Sample] = []
        for seq, at, infos, samples in self._entries:
            if infos != gpus or len(taken) >= min(limit, MAX_SAMPLES):
                break
            taken.append(Sample(seq, round(max(0.0, now - at), 2), samples))
        return Batch(
            version=VERSION,
            node=self._node,
            run=self._run,
            period=self._period,
            gpus=gpus,
            samples=tuple(taken),
            dropped=self.dropped,
            problems=problems,
        )

    def taken(self, seq: int) -> None:
        """Forget samples up to this number: colocd has them."""
        while self._entries and self._entries[0][0] <= seq:
            self._entries.popleft()
