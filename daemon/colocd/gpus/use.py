"""How much of the GPUs that a job held it used: summed over its life, told when it ends."""

from collections.abc import Iterable, Mapping

import msgspec

from colocd.core.view import Job, JobState
from colocd.gpus.seen import Spell

_HOLDS = (JobState.RUNNING, JobState.SUSPENDED, JobState.COMPLETING)


class Use(msgspec.Struct):
    """GPU-seconds that were measured, busy GPU-seconds among them, and joules. What was not measured is in none of them."""

    seconds: float = 0.0
    busy: float = 0.0
    joules: float = 0.0

    def words(self) -> str:
        """One phrase for people."""
        hours, share = self.seconds / 3600, 100 * self.busy / self.seconds if self.seconds else 0.0
        return f"its GPUs were busy {share:.0f} % of {hours:.2g} measured GPU-hours ({self.joules / 3.6e6:.2g} kWh)"


class UseBook:
    """Sums by job. `text` and `load` carry it over a restart of colocd."""

    def __init__(self) -> None:
        self.jobs: dict[str, Use] = {}

    def add(
        self, spells: Mapping[str, list[Spell]], order: Mapping[str, Mapping[int, int]], jobs: Iterable[Job]
    ) -> None:
        """Give what was measured to who holds the GPUs now and did then. `order`: NVML's index by Slurm's, by node."""
        for job in jobs:
            if job.state not in _HOLDS or not job.gpus or job.started is None:
                continue
            for node, mask in job.gpus.items():
                known = order.get(node)
                if known is None or node not in spells:
                    continue
                mine = [nvml for gpu, nvml in known.items() if mask >> gpu & 1]
                for spell in spells[node]:
                    if spell.at - spell.seconds >= job.started:
                        self._add(job.ref, spell, mine)

    def _add(self, ref: str, spell: Spell, gpus: list[int]) -> None:
        use = self.jobs.setdefault(ref, Use())
        for gpu in gpus:
            busy = spell.sm.get(gpu)
            if busy is not None:
                use.seconds += spell.seconds
                use.busy += spell.seconds * busy / 100
                use.joules += spell.seconds * spell.power.get(gpu, 0.0)

    def ended(self, jobs: Iterable[Job]) -> dict[str, Use]:
        """Take out the jobs that hold nothing any more."""
        alive = {job.ref for job in jobs if job.state in _HOLDS or job.state is JobState.CONFIGURING}
        return {ref: self.jobs.pop(ref) for ref in list(self.jobs) if ref not in alive}

    def text(self) -> str:
        """All sums as JSON."""
        return msgspec.json.encode(self.jobs).decode()

    def load(self, text: str | None) -> None:
        """Go on with earlier sums; a text that cannot be read is none."""
        try:
            self.jobs = {} if text is None else msgspec.json.decode(text, type=dict[str, Use])
        except msgspec.MsgspecError:
            self.jobs = {}
