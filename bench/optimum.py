"""The joint problem as an integer programme for OR-tools CP-SAT: what the planner is compared with.

Two readings: `executable` keeps the planner's rule of one handover a node at a time (all victims of a node make room for one
replica there, others wait for what comes free without further victims); `free` lets every replica on a node have its own.
"""

from itertools import combinations
from time import process_time
from typing import NamedTuple

from ortools.sat.python import cp_model

from coloc_topology.fit import fit_table
from coloc_topology.shape import bits, mask_of
from colocd.core.ground import Ground
from colocd.core.service import Mode, ServiceSpec

MILLI = 1000


class Answer(NamedTuple):
    """Least cost in GPU-seconds, and the seconds CP-SAT took to prove it once the model was built.

    `cost` None: not proven within the limit, so `solving` (the process's own time) says only how long it takes at least.
    """

    cost: float | None
    solving: float


def optimum(
    land: Ground, specs: list[tuple[ServiceSpec, int]], executable: bool, seconds: float, known: float | None = None
) -> Answer | None:
    """The cheapest way to place all; None: it cannot be done. `known`: what a plan costs; only cheaper ones are looked for."""
    model = cp_model.CpModel()
    view, victims, free_by_name, costs = land.view, land.victims, land.free, land.costs
    held: dict[str, dict[str, int]] = {}
    for ref, job in victims.items():
        for name, mask in (job.gpus or {}).items():
            held.setdefault(name, {})[ref] = mask
    evicted = {ref: model.new_bool_var(f"v{ref}") for ref in victims}
    payers: dict[str, list[cp_model.IntVar]] = {ref: [] for ref in victims}
    on_gpu: dict[tuple[str, int], list[cp_model.IntVar]] = {}
    served: list[list[cp_model.IntVar]] = [[] for _ in specs]
    for node in view.nodes:
        table = fit_table(view.shapes[node.shape or ""])
        free, holders = free_by_name[node.name], held.get(node.name, {})
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
    return _solved(model, sum(round(costs[ref] * MILLI) * var for ref, var in evicted.items()), seconds, known)


def optimum_group(
    land: Ground, spec: ServiceSpec, nodes: int, domains: dict[str, str], seconds: float, known: float | None = None
) -> Answer | None:
    """The cheapest way to place one replica on so many nodes of one domain (`domains`: by node); None: it cannot be done.

    `known`: see `optimum`.
    """
    model = cp_model.CpModel()
    victims, free_by_name, costs = land.victims, land.free, land.costs
    evicted = {ref: model.new_bool_var(f"v{ref}") for ref in victims}
    chosen = {name: model.new_bool_var(f"d{name}") for name in sorted(set(domains.values()))}
    held: dict[str, dict[str, int]] = {}
    for ref, job in victims.items():
        for name, mask in (job.gpus or {}).items():
            held.setdefault(name, {})[ref] = mask
    inside: dict[str, list[cp_model.IntVar]] = {name: [] for name in chosen}
    for node in land.view.nodes:
        table, free = fit_table(land.view.shapes[node.shape or ""]), free_by_name[node.name]
        holders = held.get(node.name, {})
        reach = free
        for mask in holders.values():
            reach |= mask
        here: list[cp_model.IntVar] = []
        for members in combinations(bits(reach), spec.gpus_per_replica):
            gpus = mask_of(members)
            if table.level_of(gpus) >= spec.level:
                here.append(model.new_bool_var(f"{node.name}-{gpus}"))
                for ref, mask in holders.items():
                    if mask & gpus & ~free:
                        model.add_implication(here[-1], evicted[ref])
        model.add(sum(here) <= 1)
        inside[domains[node.name]] += here
    for name, var in chosen.items():
        model.add(sum(inside[name]) == nodes * var)
    model.add(sum(chosen.values()) == 1)
    return _solved(model, sum(round(costs[ref] * MILLI) * var for ref, var in evicted.items()), seconds, known)


def _solved(model: cp_model.CpModel, total: cp_model.LinearExprT, seconds: float, known: float | None) -> Answer | None:
    """The answer for the least `total`."""
    model.minimize(total)
    if known is not None:
        model.add(total < round(known * MILLI))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    began = process_time()
    status = solver.solve(model)
    taken = process_time() - began
    if status == cp_model.INFEASIBLE:
        return None if known is None else Answer(known, taken)
    return Answer(solver.objective_value / MILLI if status == cp_model.OPTIMAL else None, taken)
