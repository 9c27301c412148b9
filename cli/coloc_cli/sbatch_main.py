"""Entry point of `coloc-sbatch` (and of `coloc sbatch`): sbatch, for jobs in coloc's care. Imports no command framework."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from coloc_cli import output, sbatch_room, settings
from coloc_cli.sbatch_submit import Submission, prepare
from colocd.clock import SystemClock
from colocd.errors import BadFile, ColocError, SlurmUnreachable

HELP = """coloc sbatch: submit a batch job that coloc starts on idle GPUs and may requeue after a checkpoint.
Every option of sbatch is taken unchanged. --signal=[B:]SIG[@SECONDS] also says how coloc asks the job to save.

coloc's own options, also in the script as `#COLOC --coloc-…` lines (times in seconds, or 90s, 5m, 2h):
      --coloc-preset=NAME     all of this for a library: `coloc presets` lists them
      --coloc-signal=SIGNAL   what asks the program to save (else the signal in --signal)
      --coloc-to=program|batch|steps|step:N|all   who gets it (else by the B: in --signal)
      --coloc-checkpoint=COMMAND   a command that saves from outside
      --coloc-ack=KIND        how the end of the save is heard: report (`coloc checkpointed --yield` in the job), exit,
                              exit:CODE, file:PATTERN, requeue (the job requeues itself), command
      --coloc-files=PATTERN   checkpoint files; a new complete one counts as saved
      --coloc-resume=COMMAND  run instead of the script after a requeue, if anything was saved
      --coloc-resume-arg=WORDS   added to the script's arguments after a requeue
      --coloc-interval=TIME   the job saves by itself this often
      --coloc-cost=TIME       how long one save takes
      --coloc-restart=TIME    how long it takes to get going again
      --coloc-grace=TIME      time it needs after the signal (else the time in --signal)
      --coloc-deadline=TIME   when it should have ended: a date, or a time from now on
      --coloc-class=NAME      class of batch work, where the site has some
      --coloc-dry-run         print what would be submitted, and submit nothing

sbatch's own help:
"""


def run(words: Sequence[str], environ: Mapping[str, str], *, config: str | None = None) -> int:
    """Submit as sbatch would. Does not return when sbatch was found: sbatch takes over this process.

    `config`: configuration file instead of the usual one. Raises `ColocError`; returns 0 after a dry run.
    """
    table = settings.find_table(config, environ, must_open=False)
    job = prepare(
        words,
        environ,
        batch_partitions(table, environ),
        os.getcwd(),
        _read_stdin,
        now=SystemClock().now(),
        slurm=slurm_folder(environ, table),
    )
    for remark in job.remarks:
        output.warn(f"coloc: {output.clean(remark)}")
    if job.dry:
        _show(job)
        return 0
    program = find_sbatch(environ, table)
    if job.question is not None and (said := _refusal(job, job.question, program, environ)) is not None:
        sys.stderr.buffer.write(said)
        return 1
    _become_sbatch(job, program, environ)
    return 0


def _refusal(job: Submission, question: sbatch_room.Question, program: str, environ: Mapping[str, str]) -> bytes | None:
    try:
        return sbatch_room.refusal(question, job.script, program, environ)
    except sbatch_room.Leftover as left:
        text = f"coloc: job {left.ref} only asked Slurm whether a node is large enough, and could not be taken back"
        output.warn(f"{text}: `scancel {left.ref}`")
        return None


def batch_partitions(table: Mapping[str, object], environ: Mapping[str, str]) -> tuple[str, ...]:
    """coloc's batch partitions: from the configuration where there is one, else COLOC_BATCH_PARTITION, else `batch`."""
    if table:
        policy = table.get("policy")
        names = policy.get("batch_partitions") if isinstance(policy, dict) else None
        return tuple(map(str, names)) if isinstance(names, list) and names else ("batch",)
    return (environ.get("COLOC_BATCH_PARTITION") or "batch",)


def slurm_folder(environ: Mapping[str, str], table: Mapping[str, object]) -> str:
    """Where Slurm's commands are; `/usr/bin` when none is found here."""
    try:
        return os.path.dirname(os.path.abspath(find_sbatch(environ, table)))
    except SlurmUnreachable:
        return "/usr/bin"


def find_sbatch(environ: Mapping[str, str], table: Mapping[str, object]) -> str:
    """Slurm's sbatch: on PATH, else in slurm.bin_dir; never this program, which a site may have installed as `sbatch`."""
    folders = environ.get("PATH", os.defpath).split(":")
    slurm = table.get("slurm")
    if isinstance(slurm, dict) and isinstance(slurm.get("bin_dir"), str):
        folders.append(slurm["bin_dir"])
    ours = {os.path.realpath(sys.argv[0])}
    for folder in folders:
        path = os.path.join(folder or ".", "sbatch")
        real = os.path.realpath(path)
        if (
            os.path.isfile(path)
            and os.access(path, os.X_OK)
            and real not in ours
            and not real.endswith("/coloc-sbatch")
        ):
            return path
    raise SlurmUnreachable("sbatch is not on PATH", "load Slurm's module, or add its folder to PATH")


def _become_sbatch(job: Submission, program: str, environ: Mapping[str, str]) -> None:
    if job.informs and any(word in ("-h", "--help") for word in job.words):
        output.raw(HELP.encode())
    os.execve(program, _with_script(job), dict(environ))


def _read_stdin() -> bytes:
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise BadFile(f"the script on stdin cannot be read: {error.strerror}", "name a script file") from None


def _with_script(job: Submission) -> list[str]:
    """sbatch's words; a script that was read already is handed on in memory, as stdin or under a new name."""
    if job.script is None:
        return job.words
    memory = os.memfd_create("script")
    with open(memory, "wb", closefd=False) as file:
        file.write(job.script)
    os.lseek(memory, 0, os.SEEK_SET)
    if job.stream_at is None:
        os.dup2(memory, 0)
        return job.words
    os.set_inheritable(memory, True)
    words = list(job.words)
    words[job.stream_at] = f"/proc/self/fd/{memory}"
    return words


def _show(job: Submission) -> None:
    output.raw(os.fsencode(shlex.join(job.words)) + b"\n")
    if job.shown is not None:
        output.raw(b"# --- the script ---\n" + job.shown)


def main() -> NoReturn:
    """Console script `coloc-sbatch`."""
    try:
        sys.exit(run(sys.argv[1:], os.environ))
    except ColocError as error:
        output.complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
