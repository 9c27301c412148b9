"""The mark of a job that `coloc sbatch` submits: what colocd has to know, at the end of the job's comment."""

import msgspec

from coloc_cli.sbatch_wishes import Wishes
from colocd.core.comment import asks_for_place, with_checkpoint
from colocd.core.view import Checkpoint
from colocd.errors import BadRequest

LONGEST_COMMENT = 1024
"""Bytes of a comment that Slurm accepts."""
ASK = "USR1"
"""What colocd sends to the program around a wrapped script, which sends on what the job wants."""


def mark(wishes: Wishes, *, held: bool) -> Checkpoint:
    """The facts for colocd; `held`: the user gave a hold of their own."""
    return Checkpoint(
        signal=ASK if wishes.wrapped else wishes.signal,
        to="batch" if wishes.wrapped else wishes.to,
        interval=wishes.interval,
        cost=wishes.cost,
        restart=wishes.restart,
        grace=wishes.grace,
        deadline=wishes.deadline,
        rank=wishes.rank,
        hold="user" if held else None,
    )


def comment(users: str, facts: Checkpoint) -> str:
    """The user's comment with the mark behind it; raises `BadRequest` when Slurm would not take it, now or later.

    A batch job that asks for a place is refused, too: it would be placed like any other.
    """
    if asks_for_place(users):
        raise BadRequest(
            "a batch job goes where coloc puts it, and its comment asks for a place",
            "submit it with plain sbatch into an online partition, or take [coloc-place …] out of --comment",
        )
    later = msgspec.structs.replace(facts, saved=9999999999.0, yielded=9999999999.0)
    longest = with_checkpoint(users, later)
    over = len(longest.encode(errors="surrogateescape")) - LONGEST_COMMENT
    if over > 0:
        raise BadRequest(f"the comment is {over} bytes too long to keep coloc's mark behind it", "shorten --comment")
    return with_checkpoint(users, facts)
