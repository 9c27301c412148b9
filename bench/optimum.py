"""The joint problem as an integer programme for OR-tools CP-SAT: what the planner is compared with.

Two readings: `executable` keeps the planner's rule of one handover a node at a time (all victims of a node make room for one
replica there, others wait for what comes free without further victims); `free` lets every replica on a node have its own.
"""

from itertools import combinations
from typing import NamedTuple

from ortools.sat.python import cp_model

from coloc_topology.fit import fit_table
from coloc_topology.shape import bits, mask_of
from colocd.core.ground import Ground
from colocd.core.service import Mode, ServiceSpec

MILLI = 1000


class Answer(NamedTuple):
    """Least cost in GPU-seconds, and the seconds CP-SAT took to prove it once the model was built."""

    cost: float
    solving: float


def optimum(land: Ground, specs: list[tuple[ServiceSpec, int]], executable: bool, seconds: float) -> Answer | None:
    """The cheapest way to place all; None: it cannot be done. Raises `TimeoutError` when not proven in time."""
    model = cp_model.CpModel()
    view, victims = land.view, land.victims
    evicted = {ref: model.new_bool_var(f"v{ref}") for ref in victims}
    payers: dict[str, list[cp_model.IntVar]] = {ref: [] for ref in victims}
    on_gpu: dict[tuple[str, int], list[cp_model.IntVar]] = {}
    served: list[list[cp_model.IntVar]] = [[] for _ in specs]
    for node in view.nodes:
        table = fit_table(view.shapes[node.shape or ""])
        free = land.free[node.name]
        holders = {ref: job.gpus[node.name] for ref, job in victims.items() if job.gpus and node.name in job.gpus}
        reach = free
        for mask in holders.values():
            reach |= mask
        actives: list[cp_model.IntVar] = []
        for at, (spec, _) in enumerate(specs):
            assert spec.mode is Mode.GUARANTEED
            for members in combinations(bits(reach), spec.gpus_per_replica):
                gpus = mask_of(members)
                if table.level_of(gpus) < spec.level:
                    continue
                needs = [ref for ref, mask in holders.items() if mask & gpus & ~free]
                kinds = ("pays", "waits") if executable else ("both",)
                for kind in kinds:
                    here = model.new_bool_var(f"{node.name}-{gpus}-{at}-{kind}")
                    served[at].append(here)
                    for gpu in members:
                        on_gpu.setdefault((node.name, gpu), []).append(here)
                    for ref in needs:
                        model.add_implication(here, evicted[ref])
                        if kind == "pays":
                            payers[ref].append(here)
                    if kind == "pays":
                        actives.append(here)
        if executable and actives:
            model.add(sum(actives) <= 1)
    for ref, var in evicted.items():
        if executable:
            model.add(sum(payers[ref]) == var)
    for group in on_gpu.values():
        model.add(sum(group) <= 1)
    for found, (_, many) in zip(served, specs, strict=True):
        model.add(sum(found) == many)
    model.minimize(sum(round(land.costs[ref] * MILLI) * var for ref, var in evicted.items()))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status != cp_model.OPTIMAL:
        raise TimeoutError
    return Answer(solver.objective_value / MILLI, solver.wall_time)
