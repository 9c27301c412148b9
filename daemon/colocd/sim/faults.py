"""Faults, hooks and a journal around the calls of a fake port."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import Any, Literal, NamedTuple, TypeVar

from colocd.clock import Clock
from colocd.errors import ColocError, SlurmUnknown, SlurmUnreachable

T = TypeVar("T")
Effect = Literal["before", "after", "lost"]
Hook = Callable[[str, tuple[Any, ...]], None]


class Call(NamedTuple):
    """One changing call as it was tried; `at` in Unix seconds."""

    name: str
    args: tuple[Any, ...]
    at: float


@dataclass
class Fault:
    """A fault that waits for its call; `left` counts down."""

    call: str
    error: type[ColocError] | ColocError
    effect: Effect
    left: int
    when: Callable[[tuple[Any, ...]], bool] | None

    def hits(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether this call is to fail; counts."""
        if self.left < 1 or self.call != name or (self.when is not None and not self.when(args)):
            return False
        self.left -= 1
        return True

    def throw(self) -> None:
        """Raise the error."""
        raise self.error if isinstance(self.error, ColocError) else self.error("fault asked for by the test")


class Faulty:
    """Base of the virtual cluster. All calls are serialised by one lock.

    `calls`: journal of the changing calls, tried ones included. `down`: every call raises `SlurmUnreachable` while the
    cluster goes on. `on_call(name, args)` is called before and `after_call` after the effect of each changing call; what
    they raise goes to the caller.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = RLock()
        self._faults: list[Fault] = []
        self.calls: list[Call] = []
        self.down = False
        self.on_call: Hook | None = None
        self.after_call: Hook | None = None

    def fault(
        self,
        call: str,
        error: type[ColocError] | ColocError = SlurmUnknown,
        effect: Effect = "before",
        times: int = 1,
        when: Callable[[tuple[Any, ...]], bool] | None = None,
    ) -> None:
        """Let the next `times` calls of that name (for which `when(args)` holds) raise `error`.

        `effect`: `before`, nothing is done; `after`, it is done and then raised; `lost`, nothing is done nor raised (as
        a signal that does not arrive). Reading calls can only fail `before`.
        """
        self._faults.append(Fault(call, error, effect, times, when))

    def _hit(self, name: str, args: tuple[Any, ...]) -> Fault | None:
        return next((f for f in self._faults if f.hits(name, args)), None)

    def _read(self, name: str, args: tuple[Any, ...], answer: Callable[[], T]) -> T:
        with self._lock:
            if self.down:
                raise SlurmUnreachable("the virtual slurmctld is down")
            fault = self._hit(name, args)
            if fault is not None:
                fault.throw()
            return answer()

    def _change(self, name: str, args: tuple[Any, ...], effect: Callable[[], T], lost: T) -> T:
        with self._lock:
            self.calls.append(Call(name, args, self._clock.now()))
            if self.on_call is not None:
                self.on_call(name, args)
            if self.down:
                raise SlurmUnreachable("the virtual slurmctld is down")
            fault = self._hit(name, args)
            if fault is not None and fault.effect == "before":
                fault.throw()
            result = lost if fault is not None and fault.effect == "lost" else effect()
            if self.after_call is not None:
                self.after_call(name, args)
            if fault is not None and fault.effect == "after":
                fault.throw()
            return result
