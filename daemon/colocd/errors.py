"""Every error coloc shows to a person: one sentence, the next step, an exit code.

Exit codes are documented in docs/exit-codes.md; a test walks all subclasses of `ColocError` and checks that.
"""


class ColocError(Exception):
    """Base of all errors that end a command or fail an action; `str(error)` is one sentence."""

    exit_code = 70
    hint = "run the command again with --verbose and report what it prints"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class BadRequest(ColocError):
    """The command line or an API call asks for something that does not exist or does not make sense."""

    exit_code = 64
    hint = "see the command's --help"


class BadFile(ColocError):
    """A configuration, service, topology or view file cannot be read; the message names file and line."""

    exit_code = 65
    hint = "correct the line named above; nothing was changed"


class NotFound(ColocError):
    """The named job, service, handover or node is unknown to coloc."""

    exit_code = 66
    hint = "look at `coloc status` and `coloc queue` for the names coloc knows"


class SlurmUnreachable(ColocError):
    """slurmctld or munge does not answer; nothing was done."""

    exit_code = 69
    hint = "check `scontrol ping` and the munge service on this host"


class SlurmRefused(ColocError):
    """Slurm answered and said no; nothing was done."""

    exit_code = 71
    hint = "read Slurm's own message above; `scontrol show job` may tell more"


class SlurmUnknown(ColocError):
    """A call to Slurm timed out after it was sent: it may or may not have been carried out."""

    exit_code = 75
    hint = "coloc asks Slurm what happened before it acts again; wait for one cycle"


class StoreUnavailable(ColocError):
    """The database does not answer or is locked; nothing was written."""

    exit_code = 74
    hint = "check the database server, or free space and rights of the SQLite file"


class SchemaOutdated(ColocError):
    """The database schema is not at the revision this release needs."""

    exit_code = 76
    hint = "run `coloc db upgrade` and start colocd again"


class DaemonUnreachable(ColocError):
    """colocd does not answer on its socket."""

    exit_code = 72
    hint = "check `systemctl status colocd`, or give --config if it listens elsewhere"


class NotAllowed(ColocError):
    """The caller has no right to do this."""

    exit_code = 77
    hint = "ask an operator, or run the command as root"


class BadConfig(ColocError):
    """The configuration file is missing, unreadable or inconsistent."""

    exit_code = 78
    hint = "run `coloc config check` after correcting the file"
