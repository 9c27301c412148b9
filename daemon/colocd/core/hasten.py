"""Handovers that wait for their victims' own moments, and that are not to wait any longer. Pure."""

from collections.abc import Sequence

from colocd.core.actions import Hasten, Need
from colocd.core.need import at_once, needed_for_sure
from colocd.core.view import ServiceView, View


def hasten(view: View, services: Sequence[ServiceView], needs: Sequence[Need], lacking: Sequence[str]) -> list[Hasten]:
    """Those whose replica is needed now, oldest first; all, when a service lacks a place: each fences a node.

    `lacking`: services that need a replica now for which there is no place, not even a coming one.
    """
    waiting = sorted((h for h in view.handovers if h.waits_until is not None), key=lambda h: h.id)
    found: list[Hasten] = []
    for service, wanted in zip(services, needs, strict=True):
        mine = [h for h in waiting if h.service == wanted.service]
        others = wanted.have - len(mine)
        short, hurry = needed_for_sure(service, view) - others, at_once(service, view) - others
        for number, h in enumerate(mine):
            if number < short:
                why = f"its replica is needed now: {wanted.why}"
            elif lacking:
                why = f"{', '.join(lacking)} lacks a place, and it keeps a node fenced"
            else:
                break
            found.append(Hasten(service=h.service, slot=h.slot, why=why, emergency=number < hurry))
    return found
