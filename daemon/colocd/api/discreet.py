"""What others may see where a site hides people's jobs from each other (Slurm's `PrivateData=jobs`)."""

from typing import Any

from colocd.api.backend import Backend
from colocd.api.peer import peer
from colocd.errors import NotAllowed, NotFound

MOST = 10_000
_HIDDEN = "this site hides other people's jobs (PrivateData)"


class Discreet:
    """The readable part of a backend for callers of the public socket; everything where the site hides nothing."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def _user(self) -> str | None:
        """Whose jobs alone may be shown; None: everybody's."""
        who, group = peer(), self._backend.hides_jobs()
        if who is None or group is None or who.sees_all(group or None):
            return None
        return who.name

    def view(self) -> bytes:
        """See `Backend.view`. Raises `NotAllowed` where jobs are hidden: a view is all of them."""
        self._refuse()
        return self._backend.view()

    def plan(self) -> bytes:
        """See `Backend.plan`. Raises `NotAllowed` as `view` does."""
        self._refuse()
        return self._backend.plan()

    def queue(self) -> list[dict[str, Any]]:
        """See `Backend.queue`; the caller's own rows."""
        user, rows = self._user(), self._backend.queue()
        return rows if user is None else [row for row in rows if row["user"] == user]

    def report(self, month: str | None, user: str | None) -> list[dict[str, Any]]:
        """See `Backend.report`; the caller's own hours."""
        me = self._user()
        if me is not None and user not in (None, me):
            return []
        return self._backend.report(month, user if me is None else me)

    def explain(self, subject: str) -> dict[str, Any]:
        """See `Backend.explain`. Somebody else's job is as unknown as one that does not exist."""
        user = self._user()
        told = self._backend.explain(subject)
        kind, _, ref = str(told["subject"]).partition(":")
        if user is not None and kind == "job" and self._backend.owner(ref) != user:
            raise NotFound(f"coloc knows nothing of {ref}")
        return told

    def history(self, limit: int) -> list[dict[str, Any]]:
        """See `Backend.history`; without decisions on other people's jobs."""
        user = self._user()
        if user is None:
            return self._backend.history(limit)
        rows = self._backend.history(MOST)
        mine = [row for row in rows if not row["subject"].startswith("job:") or self._mine(row["subject"], user)]
        return mine[:limit]

    def _mine(self, subject: str, user: str) -> bool:
        return self._backend.owner(subject.partition(":")[2]) == user

    def _refuse(self) -> None:
        if self._user() is not None:
            raise NotAllowed(_HIDDEN, "ask an operator; `coloc queue` and `coloc explain JOB` show your own jobs")
