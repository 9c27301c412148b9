"""Runs one Slurm client command at a time: argument lists only, a clean environment, a time-out, and one of three errors."""

import logging
import os
import re
import subprocess
import threading
from collections.abc import Sequence

from colocd.clock import Clock
from colocd.config import SlurmConfig
from colocd.errors import ColocError, SlurmRefused, SlurmUnknown, SlurmUnreachable
from colocd.slurm.governor import Governor

log = logging.getLogger(__name__)

# The request never left this machine. scontrol hides a connect failure behind "Unexpected message received", which it
# also prints after a lost answer; so that one is in the second list.
NOT_SENT = re.compile(
    r"Munge encode failed|connect failure|standby mode|establish a configuration source|Unable to process configuration"
    r"|error while loading shared libraries",
    re.IGNORECASE,
)
# The request may have been carried out, only the answer is missing.
MAYBE_SENT = re.compile(
    r"Unexpected message received|timed out|(?:receive|send|shutdown) failure|Zero Bytes were transmitted"
    r"|Unable to contact slurm controller|Connection (?:reset|refused)|Transport endpoint|Communication connection failure"
    r"|Protocol authentication error|Munge decode failed|Invalid authentication credential",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"^[a-z]+: (?:error|fatal): ")


class Shell:
    """The client commands of one cluster. Thread-safe; one command runs at a time."""

    def __init__(self, config: SlurmConfig, clock: Clock) -> None:
        self._clock = clock
        self.governor = Governor(clock, config.calls_per_minute)
        self._bin_dir = config.bin_dir
        self._timeout = config.timeout
        self._conf = config.conf
        self._lock = threading.Lock()
        conf = config.conf or os.environ.get("SLURM_CONF")
        self._environment = {
            "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "TZ": "UTC",
            "LC_ALL": "C",
            "SLURM_TIME_FORMAT": "standard",
            **({"SLURM_CONF": conf} if conf else {}),
        }

    def ask(self, *argv: str) -> str:
        """Run a command that reads; its standard output. Raises `SlurmUnreachable` or `SlurmRefused`."""
        return self._run(argv, b"", (), changing=False)

    def tell(self, *argv: str, script: bytes = b"", files: Sequence[int] = ()) -> str:
        """Run a command that changes something. Raises `SlurmRefused`, `SlurmUnreachable` or `SlurmUnknown`."""
        return self._run(argv, script, files, changing=True)

    def _run(self, argv: Sequence[str], text: bytes, files: Sequence[int], *, changing: bool) -> str:
        name = argv[0]
        program = os.path.join(self._bin_dir, name) if self._bin_dir else name
        if self._conf is not None and not os.access(self._conf, os.R_OK):
            # Without this the commands would look for a configuration server in the network, for 10 s and more.
            hint = "correct `slurm.conf` in the configuration, or remove it where Slurm finds its own"
            raise SlurmUnreachable(f"{self._conf} cannot be read", hint=hint)
        with self._lock:
            if not changing:
                self.governor.wait()
            begun = self._clock.monotonic()
            try:
                done = subprocess.run(
                    [program, *argv[1:]],
                    input=text,
                    capture_output=True,
                    check=False,
                    env=self._environment,
                    cwd="/",
                    timeout=self._timeout,
                    pass_fds=files,
                )
            except OSError as error:
                hint = "install Slurm's client commands, or set `slurm.bin_dir` in the configuration"
                raise SlurmUnreachable(f"{program} cannot be run: {error.strerror}", hint=hint) from None
            except ValueError:
                raise SlurmRefused(f"{name} was given a text with a NUL byte") from None
            except subprocess.TimeoutExpired:
                kind = SlurmUnknown if changing else SlurmUnreachable
                raise kind(f"{name} did not answer in {self._timeout:g} s") from None
            finally:
                self.governor.made(name, self._clock.monotonic() - begun)
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        if done.returncode == 0:
            if err.strip():
                log.debug("%s says: %s", name, err.strip())
            return out
        raise failure(name, done.returncode, err.strip() or out.strip(), changing=changing)


def failure(name: str, code: int, said: str, *, changing: bool) -> ColocError:
    """The error for a command that ended with `code` and said this."""
    lines = [_PREFIX.sub("", line.strip()) for line in said.splitlines() if line.strip()]
    message = f"{name}: {'; '.join(lines[-3:])[:400] or f'exit code {code}, no message'}"
    if code < 0:
        return (SlurmUnknown if changing else SlurmUnreachable)(f"{name} was killed by signal {-code}")
    if NOT_SENT.search(said):
        return SlurmUnreachable(message)
    if MAYBE_SENT.search(said):
        return (SlurmUnknown if changing else SlurmUnreachable)(message)
    return SlurmRefused(message)
