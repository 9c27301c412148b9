"""What differs between the releases of Slurm that coloc is tested with: one record each, and what changed with it.

Everything that depends on the release asks here, nothing else looks at version numbers. A release between two of these has
the habits of the newest one that began (`since`) before it. Recorded answers: tests/slurm/data.
"""

import re
from typing import NamedTuple

_NUMBER = re.compile(r"([0-9]{2})\.([0-9]{1,2})")
Number = tuple[int, int]
"""A release as (24, 11)."""


class Release(NamedTuple):
    """The habits of a release, `number`, and of those before it from `since` on.

    `inverted_links`: `--gres` takes the worst-linked GPUs where gres.conf has `Links=`. `no_cgroups`: how cgroup.conf does
    without cgroups. `default_priority`: PriorityType where slurm.conf names none. `changed`: what else changed against the
    release before, as far as coloc could care: (where, what).
    """

    number: Number
    since: Number
    inverted_links: bool
    no_cgroups: str
    default_priority: str
    changed: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """As Slurm writes it: 24.11."""
        return name(self.number)


R22_05 = Release(
    number=(22, 5),
    since=(22, 5),
    inverted_links=False,
    no_cgroups="CgroupAutomount=no",
    default_priority="priority/basic",
)
R24_11 = Release(
    number=(24, 11),
    since=(24, 5),
    inverted_links=True,
    no_cgroups="CgroupPlugin=disabled",
    default_priority="priority/multifactor",
    changed=(
        ("gres.conf Links=", "honoured the wrong way round from 24.05 on"),
        ("cgroup.conf", "CgroupAutomount is gone, CgroupPlugin=disabled is new (24.05)"),
        ("PriorityType", "defaults to multifactor; without weights every job has priority 1, and nice orders nothing"),
        ("show job", "TRES= became ReqTRES= and AllocTRES=; Power= is gone"),
        ("show node", "CapWatts=, ExtSensors*= are gone; ResumeAfterTime= is new"),
        ("show partition", "MaxCPUsPerSocket= and ExclusiveTopo= are new"),
        ("show reservation", "Watts= is gone"),
        ("scontrol --json", "is new (23.02)"),
        ("MaxBatchRequeue", "is new, 5: a job whose start fails that often is held"),
    ),
)
R26_05 = Release(
    number=(26, 5),
    since=(26, 5),
    inverted_links=True,
    no_cgroups="CgroupPlugin=disabled",
    default_priority="priority/multifactor",
    changed=(
        ("show job", "SLUID=, SubmitLine=, LicensesAlloc=, Exclusive= are new"),
        ("show node", "ReservationName= and SuspendTime= are new"),
        ("show partition", "Exclusive= replaces ExclusiveUser= and ExclusiveTopo="),
        ("show reservation", "AllowedPartitions= and QOS= are new"),
        (
            "show config",
            "(null) for what is off (PreemptType, JobCompType …), where older releases name a plugin `…/none`",
        ),
        ("sbatch --export-file", "its variables reach the job only with --export=ALL"),
        ("libslurm", "job ids are passed as slurm_step_id_t: pyslurm 25.11 needs tools/pyslurm_build.sh"),
        ("slurmstepd", "starts without an environment"),
    ),
)
TESTED = (R22_05, R24_11, R26_05)
"""Oldest first."""


def number(text: str) -> Number | None:
    """The release in a text like `slurm 24.11.5`; None: there is none."""
    found = _NUMBER.search(text)
    return None if found is None else (int(found[1]), int(found[2]))


def name(release: Number) -> str:
    """As Slurm writes it: (24, 5) is 24.05."""
    return f"{release[0]}.{release[1]:02d}"


def habits(release: Number | None) -> Release:
    """Those of this release; of the oldest tested one for an older or unknown one."""
    return next((r for r in reversed(TESTED) if release is not None and r.since <= release), TESTED[0])


def doubt(release: Number | None) -> str | None:
    """One sentence where coloc knows too little of this release, with what it does about it; None: it knows enough."""
    oldest, newest = TESTED[0], TESTED[-1]
    if release is None:
        return "Slurm does not tell its release: coloc assumes the habits of " + oldest.name
    if release < oldest.number:
        return f"Slurm {name(release)} is older than {oldest.name}, the oldest release that coloc is tested with"
    if release > newest.number:
        return (
            f"Slurm {name(release)} is newer than {newest.name}, the newest release that coloc is tested with: it uses "
            "the client commands only, leaves nodes alone whose state it does not know, and assumes the habits of "
            + newest.name
        )
    return None
