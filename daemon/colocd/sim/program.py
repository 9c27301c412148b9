"""What a virtual job does: how long it runs, how it answers signals, and how much work it did, saved and lost."""

from dataclasses import dataclass, field

import msgspec

from colocd.core.comment import parse_comment, with_checkpoint
from colocd.core.view import Checkpoint

HARMLESS = frozenset({"CONT", "CHLD", "URG", "WINCH"})
"""Signals whose default action does not end a process."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A job's behaviour; all times in seconds. The default works for ever and dies of any signal, at once of TERM.

    `duration` is the work to be done (None: endless); it ends with `exit_code`. `signal` sent to one of `reacts_to` is
    trapped: with `ignores` nothing happens; with `acks_after` the state is saved that much later and the comment gets
    `saved` and `yielded`, then the program waits (for `resumes_after`; None: for ever) or, with `exits_on_signal`, ends.
    TERM ends it after `dies_after`; with `saves_on_term` the state is saved if that is before the KILL.
    `checkpoint_every` saves by itself (comment: `saved`), standing still for `checkpoint_cost`. `startup` passes without
    work after each start. A program that is started again goes on from what it saved last.
    """

    duration: float | None = None
    exit_code: int = 0
    signal: str = "USR1"
    reacts_to: tuple[str, ...] = ("batch", "all")
    ignores: bool = False
    acks_after: float | None = None
    exits_on_signal: bool = False
    resumes_after: float | None = None
    dies_after: float = 0.0
    saves_on_term: bool = False
    checkpoint_every: float | None = None
    checkpoint_cost: float = 0.0
    startup: float = 0.0

    @property
    def traps(self) -> bool:
        """Whether `signal` is handled in any way; if not, it kills."""
        return self.ignores or self.acks_after is not None or self.exits_on_signal


ENDLESS = Program()


@dataclass(slots=True)
class Work:
    """Seconds of work of one job over all its runs: `done` counts what would be there if it ended now.

    `worked` = `done` + `lost`. `saved` <= `done` is what a restart goes on from.
    """

    done: float = 0.0
    saved: float = 0.0
    lost: float = 0.0
    rate: int = 0
    """1 while it works, 0 while it does not."""
    at: float = field(default=0.0, repr=False)
    """Time up to which `done` counts."""

    @property
    def worked(self) -> float:
        """All work ever done, lost work included."""
        return self.done + self.lost

    def turn(self, rate: int, at: float) -> None:
        """Count up to `at`, then go on at `rate`."""
        self.done += self.rate * (at - self.at)
        self.rate, self.at = rate, at

    def save(self) -> None:
        """All that is done so far is saved."""
        self.saved = self.done

    def killed(self, at: float) -> None:
        """The program is gone: what was not saved is lost."""
        self.turn(0, at)
        self.lost += self.done - self.saved
        self.done = self.saved


def marked(comment: str, *, saved: float | None = None, yielded: float | None = None) -> str:
    """The job's comment after it has written these facts (Unix seconds; None leaves one as it is)."""
    facts = parse_comment(comment) or Checkpoint()
    if saved is not None:
        facts = msgspec.structs.replace(facts, saved=saved)
    if yielded is not None:
        facts = msgspec.structs.replace(facts, yielded=yielded)
    return with_checkpoint(comment, facts)
