"""What sbatch is given for a `Submission`: options as words, the script on standard input, the environment in a file.

* The environment travels by `--export-file` (NUL-separated, so values may hold anything), on an open file descriptor:
  nothing of colocd's environment reaches the job, nothing of the job's is seen in a process list or steers sbatch.
  `--export=ALL` then means all of that file; without it 26.05 drops the file's variables.
* Options come from the `Submission` alone: `#SBATCH` lines in the script are turned into plain comments, because sbatch
  runs as root and would obey them as root (`--bbf` and others read files).
* With `--uid` alone the job would keep root's group (measured on 22.05), so `--gid` is always given, too.
"""

import math
import os
import pwd
import re
from collections.abc import Mapping, Sequence

from colocd.errors import SlurmRefused
from colocd.slurm.port import Submission

PATH = "/usr/local/bin:/usr/bin:/bin"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_OPTION = re.compile(r"--([a-z][a-z-]*)(=.*)?", re.DOTALL)
# They would change who or what is submitted, how sbatch answers, or read files as root; sbatch takes abbreviations.
_RESERVED = (
    *(
        "uid",
        "gid",
        "wrap",
        "export",
        "export-file",
        "parsable",
        "test-only",
        "wait",
        "array",
        "hold",
        "bbf",
        "help",
        "usage",
    ),
    *(
        "version",
        "clusters",
        "get-user-env",
        "comment",
        "verbose",
        "quiet",
        "batch",
        "ignore-pbs",
        "requeue",
        "no-requeue",
    ),
)
_DIRECTIVE = re.compile(r"#(SBATCH|PBS|BSUB)\b")


def arguments(job: Submission, env_fd: int) -> list[str]:
    """The sbatch command line; the environment is read from `env_fd`. Raises `SlurmRefused` for what cannot be asked."""
    for option in job.options:
        _check_option(option)
    argv = ["sbatch", "--parsable", *job.options]
    argv += [
        "--export=ALL",
        f"--export-file={env_fd}",
        f"--job-name={job.name}",
        f"--partition={_plain('partition', job.partition)}",
    ]
    argv += [f"--nodes={max(1, len(job.nodes))}", "--ntasks-per-node=1", f"--cpus-per-task={job.cpus}"]
    if not _names(job.options, "output"):
        argv.append(f"--output={job.output or '/dev/null'}")
    argv.append("--requeue" if job.requeue else "--no-requeue")
    who = account(job.user)
    if not _names(job.options, "chdir"):
        argv.append(f"--chdir={job.workdir or (who.pw_dir if who else '/')}")
    if job.gpus:
        kind = f":{_plain('gres type', job.gpu_type)}" if job.gpu_type else ""
        argv.append(f"--gres=gpu{kind}:{job.gpus}")
    if job.nodes:
        argv.append("--nodelist=" + ",".join(_plain("node", node) for node in job.nodes))
    if job.reservation:
        argv.append(f"--reservation={_plain('reservation', job.reservation)}")
    if job.comment:
        argv.append(f"--comment={job.comment}")
    if job.time_limit is not None:
        argv.append(f"--time={max(1, math.ceil(job.time_limit / 60))}")
    if job.held:
        argv.append("--hold")
    if who is not None and who.pw_uid != os.getuid():
        argv += [f"--uid={who.pw_uid}", f"--gid={who.pw_gid}"]
    return argv


def _names(options: Sequence[str], name: str) -> bool:
    """Whether one of the options is `name` or an abbreviation: sbatch would take the later of the two."""
    return any(name.startswith(word) for word in (o[2:].partition("=")[0] for o in options) if word)


def script(job: Submission) -> bytes:
    """The script for sbatch's standard input: the job's, with `#SBATCH` lines made plain comments."""
    if not job.script.startswith("#!"):
        raise SlurmRefused("a job script must start with #!", hint="put `#!/bin/bash` in its first line")
    lines = job.script.split("\n")
    for at, line in enumerate(lines):
        if line.strip() and not line.startswith("#"):
            break  # sbatch looks no further
        if _DIRECTIVE.match(line):
            lines[at] = "#" + line
    return "\n".join(lines).encode()


def environment(job: Submission) -> bytes:
    """The job's whole environment for `--export-file`: who it runs as, a plain PATH, and what the submission adds."""
    who = account(job.user) or pwd.getpwuid(os.getuid())
    base: Mapping[str, str] = {
        "PATH": PATH,
        "HOME": who.pw_dir,
        "USER": who.pw_name,
        "LOGNAME": who.pw_name,
        "SHELL": who.pw_shell or "/bin/sh",
        "LANG": "C.UTF-8",
    }
    merged = {**base, **job.environment}
    for name, value in merged.items():
        if not _NAME.fullmatch(name) or "\0" in value:
            raise SlurmRefused(
                f"{name!r} cannot stand in a job's environment", hint="use letters, digits and _ in names"
            )
    return b"".join(f"{name}={value}\0".encode() for name, value in merged.items())


def account(user: str | None) -> pwd.struct_passwd | None:
    """The user to submit as; None: nobody else but the caller. Raises `SlurmRefused` where that is not possible."""
    if user is None:
        return None
    try:
        who = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise SlurmRefused(
            f"user {user!r} does not exist on this host", hint="use a name that `getent passwd` shows"
        ) from None
    if who.pw_uid != os.getuid() and os.getuid() != 0:
        raise SlurmRefused(f"only root may submit jobs as {user}", hint="run colocd as root, or submit as its own user")
    return who


def _check_option(option: str) -> None:
    found = _OPTION.fullmatch(option)
    if found is None:
        raise SlurmRefused(
            f"sbatch option {option!r} is not allowed", hint="write it as one word, `--name` or `--name=value`"
        )
    if any(reserved.startswith(found[1]) for reserved in _RESERVED):
        raise SlurmRefused(f"sbatch option --{found[1]} is set by coloc itself", hint="remove it from the options")


def _plain(what: str, text: str) -> str:
    if not _WORD.fullmatch(text):
        raise SlurmRefused(f"{text!r} is no name of a {what}", hint="use letters, digits, `.`, `_` and `-`")
    return text
