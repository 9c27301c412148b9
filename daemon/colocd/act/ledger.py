"""Intent, call, outcome: every changing call to Slurm goes through here, so that a crash at any instruction is readable."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from colocd.clock import Clock
from colocd.errors import SlurmRefused, SlurmUnknown, SlurmUnreachable
from colocd.store.port import Store
from colocd.store.records import Intent, Outcome

T = TypeVar("T")
log = logging.getLogger(__name__)


class Result(msgspec.Struct, Generic[T], frozen=True):
    """How a call ended; `value` is its answer when DONE, `detail` Slurm's words otherwise."""

    outcome: Outcome
    value: T | None = None
    detail: str | None = None

    @property
    def done(self) -> bool:
        """The call was carried out."""
        return self.outcome is Outcome.DONE


class Ledger:
    """Writes an intent before each call and its outcome after it. A key is used once: see `do`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock

    def do(
        self,
        key: str,
        kind: str,
        subject: str,
        call: Callable[[], T],
        *,
        payload: Mapping[str, Any] | None = None,
        handover: int | None = None,
    ) -> Result[T]:
        """Carry out `call` under `key`. A key that exists already is not called again: its outcome is returned.

        An intent that is still open then (a crash came between) counts as UNKNOWN. `StoreUnavailable` before the call means
        that nothing was called; after it, the intent stays open and counts as UNKNOWN from then on.
        """
        intent = Intent(
            key=key, kind=kind, subject=subject, at=self.clock.now(), payload=dict(payload or {}), handover=handover
        )
        if not self.store.intend(intent):
            known = self.store.intent(key)
            outcome = Outcome.UNKNOWN if known is None or known.outcome is Outcome.OPEN else known.outcome
            return Result(outcome, None, known.detail if known is not None else None)
        value: T | None = None
        detail: str | None = None
        try:
            value = call()
            outcome = Outcome.DONE
            detail = value if isinstance(value, str) else None
        except SlurmRefused as error:
            outcome, detail = Outcome.REFUSED, str(error)
        except SlurmUnreachable as error:
            outcome, detail = Outcome.UNREACHABLE, str(error)
        except SlurmUnknown as error:
            outcome, detail = Outcome.UNKNOWN, str(error)
        self.store.settle(key, outcome, self.clock.now(), detail)
        if outcome is not Outcome.DONE:
            log.warning("%s %s: %s (%s)", kind, subject, outcome.value, detail)
        return Result(outcome, value, detail)

    def settle_leftovers(self) -> tuple[Intent, ...]:
        """At start: intents that a crash left open become UNKNOWN; the caller then asks Slurm what happened."""
        left = tuple(i for i in self.store.intents(unsettled=True) if i.outcome is Outcome.OPEN)
        for intent in left:
            self.store.settle(intent.key, Outcome.UNKNOWN, self.clock.now(), "colocd ended during the call")
        return left
