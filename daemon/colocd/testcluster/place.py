"""Where a cluster's files are: its directory, the short path that Slurm sees, and a whole other system to run it in."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from colocd.errors import BadFile, ColocError, NotFound
from colocd.testcluster.spec import Spec, cgroup_conf, gres_conf, slurm_conf

# A Unix socket's path has at most 107 bytes; slurmstepd appends `/spool/n16_4294967295.4294967291`.
LONGEST = 70
COMMANDS = (
    *(
        "munged",
        "slurmctld",
        "slurmd",
        "sbatch",
        "srun",
        "salloc",
        "scancel",
        "scontrol",
        "squeue",
        "sinfo",
        "sacctmgr",
    ),
    *("sacct", "sprio", "sdiag", "strigger"),
)
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH inside another system."""
SHARED = ("/proc", "/dev", "/etc/hosts")
"""What the other system sees of this one; Slurm's daemons look up the name of the host."""
FOLDERS = {"bin": 0o755, "gpu": 0o755, "log": 0o755, "run": 0o755, "spool": 0o755, "state": 0o700, "work": 0o1777}


def short(directory: Path) -> str:
    """The path that stands in Slurm's files: the directory, or a link to it if it is long or has odd characters."""
    path = str(directory)
    if len(os.fsencode(path)) <= LONGEST and re.fullmatch(r"[A-Za-z0-9_./+-]+", path):
        return path
    parent = tempfile.gettempdir()
    if len(parent) > 30 or not re.fullmatch(r"[A-Za-z0-9_./+-]+", parent):
        parent = "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="coloc-", dir=parent))
    folder.chmod(0o755)
    link = folder / "c"
    link.symlink_to(directory)
    return str(link)


def write(directory: Path, spec: Spec) -> None:
    """Write everything the daemons need into the directory."""
    for name, mode in FOLDERS.items():
        (directory / name).mkdir(exist_ok=True)
        (directory / name).chmod(mode)
    for gpu in range(spec.shape.gpus):
        (directory / "gpu" / f"nvidia{gpu}").touch()
    (directory / "slurm.conf").write_text(slurm_conf(spec))
    (directory / "gres.conf").write_text(gres_conf(spec))
    (directory / "cgroup.conf").write_text(cgroup_conf(spec))
    for name, text in spec.files.items():
        (directory / name).write_text(text)
    key = directory / "munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
    if spec.root is not None:
        _enter(directory, spec)


def save(directory: Path, spec: Spec) -> None:
    """Remember the spec for processes that attach, and for `down`."""
    (directory / "cluster.json").write_bytes(msgspec.json.format(msgspec.json.encode(spec)) + b"\n")


def load(directory: Path) -> Spec:
    """The spec of the cluster in the directory; raises `NotFound` when there is none, `BadFile` when it is damaged."""
    file = directory / "cluster.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Spec)
    except FileNotFoundError:
        raise NotFound(f"there is no test cluster in {directory}", hint="name the directory given to `up`") from None
    except (OSError, msgspec.DecodeError) as error:
        raise BadFile(f"{file} cannot be read: {error}") from None


def remove(directory: Path, spec: Spec) -> None:
    """Remove the directory and what lies outside of it: mounts and the short link."""
    if spec.root is not None:
        _leave(spec.root, spec.base)
    if spec.base != str(directory):
        shutil.rmtree(Path(spec.base).parent, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def _mounts(root: str) -> list[str]:
    """Mount points below the folder. (`os.path.ismount` does not see bind mounts inside one file system.)"""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    real = os.path.realpath(root)
    return [
        point
        for point in (re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), p) for p in points)
        if point.startswith(f"{real}/")
    ]


def _enter(directory: Path, spec: Spec) -> None:
    """Make the directory visible inside the other system, and wrappers that run its commands in there."""
    assert spec.root is not None
    root = os.path.realpath(spec.root)
    for source, inner in (*((shared, shared) for shared in SHARED), (str(directory), spec.base)):
        where = root + inner
        if where in _mounts(root):
            continue
        if os.path.isdir(source):
            os.makedirs(where, exist_ok=True)
        else:
            Path(where).touch()
        done = subprocess.run(["mount", "--bind", source, where], check=False, capture_output=True, text=True)
        if done.returncode:
            raise ColocError(f"cannot mount {source} in {root}: {done.stderr.strip()}", hint="run it as root")
    for name in COMMANDS:
        wrapper = directory / "bin" / name
        # A PATH of its own: the caller's begins with these wrappers.
        wrapper.write_text(f'#!/bin/sh\nexec chroot {shlex.quote(root)} /usr/bin/env PATH={PATH} {name} "$@"\n')
        wrapper.chmod(0o755)
    # a Python of that system for slurm.pyslurm_python; the program it is given is not visible in there
    python = directory / "bin" / "python-pyslurm"
    copy, env = shlex.quote(f"{spec.base}/helper.py"), f"PATH={PATH} PYTHONPATH=/opt/pyslurm"
    python.write_text(f'#!/bin/sh\ncp "$1" {copy}\nexec chroot {shlex.quote(root)} /usr/bin/env {env} python3 {copy}\n')
    python.chmod(0o755)


def _leave(root: str, base: str) -> None:
    """Undo the mounts; those that other clusters in the same system need stay."""
    root = os.path.realpath(root)
    shared = {root + path for path in SHARED}
    mine = root + base
    others = {
        point for point in _mounts(root) if not any(point == s or point.startswith(f"{s}/") for s in {*shared, mine})
    }
    for point in [mine] if others else [mine, *shared]:
        if point in _mounts(root):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    if os.path.isdir(mine) and mine not in _mounts(root):
        os.rmdir(mine)
