"""How the embedded program speaks to coloc: by the mark in its own job's comment, with Slurm's own commands.

Slurm lets only the job's owner (and operators) change the comment; no port is needed, and coloc need not be installed.
"""

import os
import re
import shlex
import subprocess
import sys
import time

_MARK = re.compile(r"\s*\[coloc v=1((?: [a-z]+=[^\s\[\]=]+)*)\]")
_PAUSES = (0.5, 1.0, 2.0, 0.0)


def say(text: str) -> None:
    """A line in the job's error output."""
    sys.stderr.write(f"coloc: {text}\n")
    sys.stderr.flush()


def job_ref() -> str:
    """The job as Slurm's commands take it; a task of an array is `17_3`, since its number may be that of the whole array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return array + "_" + task if array and task else os.environ["SLURM_JOB_ID"]


class OwnJob:
    """This job, through Slurm's commands. `folder`: where these are if not on PATH."""

    def __init__(self, folder: str) -> None:
        self.ref = job_ref()
        self.env = dict(os.environ)
        self.env["PATH"] = os.pathsep.join([self.env.get("PATH", os.defpath), folder, "/usr/bin", "/usr/local/bin"])

    def run(self, *words: str) -> "str | None":
        """What a command printed; None when it failed, after some tries."""
        said = ""
        for pause in _PAUSES:
            try:
                done = subprocess.run(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    timeout=10,
                    env=self.env,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                said = str(error)
            else:
                if done.returncode == 0:
                    return done.stdout.decode(errors="surrogateescape")
                said = done.stderr.decode(errors="replace").strip()
            time.sleep(pause)
        say(f"{words[0]} failed: {said}")
        return None

    def comment(self) -> "str | None":
        """The job's comment; None when Slurm does not tell."""
        end = f"<{os.urandom(8).hex()}>"  # squeue pads to the width: only a suffix of our own surely ends the comment
        text = self.run("squeue", "-h", "-j", self.ref, "-O", "Comment:2000" + end)
        return text.partition(end)[0].rstrip(" ") if text is not None and end in text else None

    def facts(self) -> "dict[str, str] | None":
        """The words of the job's mark; None: it has none, or Slurm does not tell."""
        found = _MARK.search(self.comment() or "")
        return None if found is None else dict(word.split("=", 1) for word in found.group(1).split())

    def record(self, **facts: int) -> bool:
        """Set words of the mark and look whether they stand (two writers can undo each other); the rest of the comment stays.

        False: the job has no mark, or Slurm did not take it.
        """
        for _ in range(3):
            comment = self.comment()
            found = _MARK.search(comment or "")
            if comment is None or found is None:
                return False
            words = [w for w in found.group(1).split() if w.partition("=")[0] not in facts]
            words += [f"{key}={value}" for key, value in sorted(facts.items())]
            text = f"{_MARK.sub('', comment).strip()} [coloc v=1 {' '.join(words)}]"
            self.run("scontrol", "update", "jobid=" + self.ref, "comment=" + text.strip())
            now = self.facts()
            if now is not None and all(now.get(key) == str(value) for key, value in facts.items()):
                return True
        return False


def checkpointed(words: "list[str]", folder: str) -> int:
    """`coloc checkpointed [--yield]`, where coloc is not installed."""
    if not words or words[0] != "checkpointed" or words[1:] not in ([], ["--yield"]):
        say("only `coloc checkpointed [--yield]` works inside of a job on a node without coloc")
        return 64
    now = int(time.time())
    facts = {"saved": now, "yielded": now} if words[1:] else {"saved": now}
    return 0 if OwnJob(folder).record(**facts) else 69


def script_environment(program: str, folder: str) -> "dict[str, str]":
    """The job's environment, with `program` (the embedded one) as the last `coloc` on PATH. `folder`: Slurm's commands."""
    place = os.path.join(os.path.dirname(program), "bin")
    try:
        os.mkdir(place)
        with open(os.path.join(place, "coloc"), "w") as file:
            words = [sys.executable, "-I", program]
            file.write(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, words))} "$@"\n')
        os.chmod(file.name, 0o700)
    except OSError as error:
        say(f"no `coloc` for the script: {error}")
    return dict(os.environ, PATH=os.environ.get("PATH", os.defpath) + ":" + place, COLOC_SLURM_BIN=folder)
