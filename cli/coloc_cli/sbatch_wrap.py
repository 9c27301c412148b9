"""The script that is submitted when a program of coloc's runs around the user's: readable, and complete in itself."""

import hashlib
import re
import shlex
from importlib.resources import files

from coloc_cli.sbatch_wishes import Wishes

PARTS = ("mark.py", "processes.py", "helper.py")
_HEADS = (b"#SBATCH", b"#PBS", b"#BSUB")
_SPACE = b" \t\n\v\f\r"
_OWN_IMPORT = re.compile(r"^from coloc_cli\.inside\..*\n", re.MULTILINE)

_TEXT = """\
# Made by `coloc sbatch` around the script below: a small program runs it, asks it to save when coloc wants the GPUs, and
# tells coloc in this job's comment when it has. Nothing of coloc need be installed here.
trap '' {ask}
umask 077
coloc_dir=$(mktemp -d "${{TMPDIR:-/tmp}}/coloc-job-XXXXXXXX") || exit 70
trap 'rm -rf "$coloc_dir"' EXIT
cat >"$coloc_dir/script" <<'{end}'
"""
_MIDDLE = """\
{end}
cat >"$coloc_dir/helper.py" <<'{end}'
"""
_END = """\
{end}
umask {umask}
for coloc_python in python3 /usr/bin/python3 /usr/libexec/platform-python; do
    command -v "$coloc_python" >/dev/null || continue
    exec "$coloc_python" -I "$coloc_dir/helper.py" {options} -- "$coloc_dir/script" "$@"
done
echo "coloc: no python3 on this node, so this job cannot say when it has saved" >&2
trap - {ask} EXIT
chmod 700 "$coloc_dir/script"
exec "$coloc_dir/script" "$@"
"""


def from_wrap(command: str) -> bytes:
    """The script that sbatch makes of --wrap."""
    return f"#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{command}\n".encode(errors="surrogateescape")


def acceptable(script: bytes) -> bool:
    """Whether sbatch takes this script. If not, it goes there as it is, and sbatch says what is wrong."""
    return script.startswith(b"#!") and b"\0" not in script and b"\r\n" not in script


def helper() -> bytes:
    """The embedded program: its parts as one file."""
    folder = files("coloc_cli").joinpath("inside")
    return b"\n".join(_OWN_IMPORT.sub("", folder.joinpath(name).read_text(encoding="utf-8")).encode() for name in PARTS)


def wrap(script: bytes, wishes: Wishes, slurm: str) -> bytes:
    """The script around `script`; `slurm`: the folder of Slurm's commands here, in case a job's PATH does not have it."""
    program = helper()
    end = "COLOC-END-" + hashlib.sha256(script + program).hexdigest()[:12]
    words = {
        "end": end,
        "ask": " ".join(wishes.ask),
        "options": shlex.join(options(wishes, slurm)),
        "umask": '"$coloc_umask"',
    }
    text = b"#!/bin/sh\n" + b"".join(line + b"\n" for line in heads(script)) + b"coloc_umask=$(umask)\n"
    text += _TEXT.format(**words).encode() + _line(script)
    text += _MIDDLE.format(**words).encode() + _line(program)
    return text + _END.format(**words).encode(errors="surrogateescape")


def heads(script: bytes) -> list[bytes]:
    """The script's lines that sbatch reads: up to the first that is a command."""
    found = []
    for line in script.split(b"\n"):
        if line.startswith(_HEADS):
            found.append(line)
        elif (bare := line.strip(_SPACE)) and not bare.startswith(b"#"):
            break
    return found


def options(wishes: Wishes, slurm: str) -> list[str]:
    """The embedded program's options."""
    pairs = {
        "bin": slurm,
        "ask": ",".join(wishes.ask),
        "send": wishes.signal or "",
        "to": wishes.to,
        "ack": wishes.ack,
        "exits": ",".join(map(str, wishes.exits)),
        "files": wishes.files or "",
        "checkpoint": wishes.checkpoint or "",
        "interval": f"{wishes.interval:g}" if wishes.interval and wishes.checkpoint else "",
        "resume": wishes.resume or "",
        "resume-arg": wishes.resume_arg or "",
    }
    return [f"--{name}={value}" for name, value in pairs.items() if value]


def _line(text: bytes) -> bytes:
    return text if text.endswith(b"\n") else text + b"\n"
