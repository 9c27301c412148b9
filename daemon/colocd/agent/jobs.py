"""Which Slurm job a process belongs to: its cgroup says it; where Slurm uses none, its environment."""

import re
from pathlib import Path

# v1: /slurm/uid_1/job_17/…, /slurm_NODE/…; v2: /system.slice/slurmstepd.scope/job_17/…, NODE_slurmstepd.scope. From the
# root on: below its own cgroup a user can give folders any name.
_CGROUP = re.compile(
    r"^\d+:[^:]*:/(?:system\.slice/)?(?:[\w.-]+_slurmstepd\.scope|slurmstepd\.scope|slurm(?:_[\w.-]+)?)/(?:uid_\d+/)?job_(\d{1,20})(?:/|$)",
    re.MULTILINE | re.ASCII,
)
_ENVIRON = re.compile(rb"(?:^|\0)SLURM_JOB_ID=(\d{1,20})(?:\0|$)")
_LONGEST = 1 << 20


class JobFinder:
    """Looks in `proc`. Nothing is remembered: pids are given out again."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = Path(proc)

    def job_of(self, pid: int) -> str:
        """Slurm's plain job id of a process; "": it is of no job, is gone, or nothing tells.

        The cgroup is the kernel's word. The environment is the process's own, read only where no cgroup tells of a job and
        only for processes that this user may look into.
        """
        folder = self._proc / str(pid)
        try:
            found = _CGROUP.search((folder / "cgroup").read_text(errors="replace"))
            if found is not None:
                return found[1].lstrip("0")
            with (folder / "environ").open("rb") as file:
                told = _ENVIRON.search(file.read(_LONGEST))
        except OSError:
            return ""
        return "" if told is None else told[1].decode().lstrip("0")
