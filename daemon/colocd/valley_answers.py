"""What the API says of valleys, in words that programs and people can use."""

from typing import Any

from coloc_topology.shape import idx
from colocd.core.tide import tide
from colocd.core.view import View

STEP = 1800.0


class Valleys:
    """Answers for one view after the other; the last answer is kept while its view is the last."""

    def __init__(self) -> None:
        self._last: tuple[float, int, dict[str, Any]] | None = None

    def of(self, view: View, hours: int) -> dict[str, Any]:
        """See `Backend.valleys`."""
        last = self._last
        if last is not None and last[:2] == (view.at, hours):
            return last[2]
        found = tide(view, hours * 3600.0, STEP)
        told = {
            "at": found.at,
            "step": found.step,
            "quantile": found.quantile,
            "gpus": found.gpus,
            "blind": list(found.blind),
            "slots": [{"at": s.at, "free": s.free, "needs": s.needs} for s in found.slots],
            "valleys": [
                {
                    "node": v.node,
                    "island": idx(v.island),
                    "gpus": idx(v.gpus),
                    "count": v.gpus.bit_count(),
                    "start": v.start,
                    "end": v.end,
                }
                for v in found.valleys
            ],
        }
        self._last = (view.at, hours, told)
        return told
