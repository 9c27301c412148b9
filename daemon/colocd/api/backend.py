"""What the API and the CLI can ask of a running daemon. `colocd.app` implements it; answers are JSON-ready values."""

from typing import Any, Protocol


class Backend(Protocol):
    """Calls may raise any `ColocError`; the API sends its sentence, hint and exit code on."""

    def status(self) -> dict[str, Any]:
        """`mode, paused, slurm, cycle{at,seconds,sentence,problems}, gpus{total,serving,batch,free,other,unknown}, services[…],

        handovers[…], version`.
        """
        ...

    def view(self) -> bytes:
        """The last view as canonical JSON (`coloc snapshot`)."""
        ...

    def plan(self) -> bytes:
        """What would happen now, as canonical JSON."""
        ...

    def explain(self, subject: str) -> dict[str, Any]:
        """`subject` is a job ref, `service:NAME`, `handover:N`, or a bare service name: `{subject, now, decisions[…]}`."""
        ...

    def endpoints(self, name: str) -> dict[str, Any]:
        """Replicas of a service that take requests: `{service, at, endpoints[{slot, address, port, node, job, target}]}`."""
        ...

    def valleys(self, hours: int) -> dict[str, Any]:
        """GPUs that no service needs in the next hours: `at, step, quantile, gpus, blind[…], slots[…], valleys[…]`."""
        ...

    def forecast(self, name: str) -> dict[str, Any]:
        """A service's recent load and what is foreseen: `service, at, history[…], points[…], basis, records[…], carried, …`."""
        ...

    def history(self, limit: int) -> list[dict[str, Any]]:
        """Newest decisions and handovers."""
        ...

    def queue(self) -> list[dict[str, Any]]:
        """coloc's batch jobs: `ref, user, name, state, gpus, reason, evictions, saved, expected, foreseen_until`."""
        ...

    def services(self) -> list[dict[str, Any]]:
        """Services with replicas, load and need."""
        ...

    def report(self, month: str | None, user: str | None) -> list[dict[str, Any]]:
        """GPU-hours of batch jobs: `month, user, jobs, runs, evictions, used, saved, lost, lost_by_eviction`."""
        ...

    def override(self, name: str, reason: str) -> dict[str, Any]:
        """Let the next replica of a service be placed whatever the budgets say, once; returns `{name, override}`."""
        ...

    def apply_service(self, text: str, filename: str) -> dict[str, Any]:
        """Apply a service file's text; raises `BadFile` with the line; nothing changed then. Returns `{name, changed}`."""
        ...

    def remove_service(self, name: str) -> dict[str, Any]:
        """Remove a service: its replicas are drained."""
        ...

    def pause(self, reason: str) -> dict[str, Any]:
        """Stop acting after the current step; open handovers are finished or rolled back first."""
        ...

    def resume(self) -> dict[str, Any]:
        """Act again."""
        ...

    def hides_jobs(self) -> str | None:
        """None: everybody may see all jobs. Else the site hides them, but from this group (empty: from all but root)."""
        ...

    def owner(self, ref: str) -> str | None:
        """The user of a job that coloc knows; None: it knows none of that id."""
        ...

    def metrics(self) -> bytes:
        """Prometheus text."""
        ...
