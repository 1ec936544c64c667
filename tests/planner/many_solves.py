"""Tasks to solve in one call, and how to tell that each comes out as it does alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from expertplane_planner import (
    ExpertLoad,
    Placement,
    Plan,
    PlannerError,
    SolveTask,
    Topology,
    solve,
    solve_many,
)


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


MACHINE = Topology(num_nodes=2, num_ranks=4, num_slots=16)
NUM_EXPERTS = 8
START = Placement.initial(2, NUM_EXPERTS, MACHINE)
"""In force; far from good, so that a re-plan improves and then tries from scratch as well."""


def samples(seed: int, num_samples: int = 4, num_layers: int = 2) -> Tensor:
    """Return samples of skewed counts, [num_samples, num_layers, 8]."""
    generator = torch.Generator().manual_seed(seed)
    skew = torch.randn(num_layers, NUM_EXPERTS, generator=generator).exp()
    noise = torch.rand(num_samples, num_layers, NUM_EXPERTS, generator=generator)
    return (1000 * skew * (0.5 + noise)).to(torch.int64)


def load(seed: int, num_samples: int = 4, num_layers: int = 2) -> ExpertLoad:
    """Return the load of `samples`."""
    return ExpertLoad(samples(seed, num_samples, num_layers))


def task(number: int = 0, **arguments: Any) -> SolveTask:
    """Return a task on the machine of these tests, each number with another load."""
    usual: dict[str, Any] = {"load": load(number), "topology": MACHINE}
    return SolveTask(**(usual | arguments))


def alone(each: SolveTask) -> Plan | PlannerError:
    """Return what `solve` does with the arguments of a task."""
    arguments = {part.name: getattr(each, part.name) for part in dataclasses.fields(each)}
    try:
        return solve(**arguments)
    except PlannerError as error:
        return error


def facts(result: Plan | PlannerError) -> dict[str, object]:
    """Return all there is to a result, in a form that can be compared, save its duration."""
    if isinstance(result, PlannerError):
        return {"error": (type(result), result.args)}
    of_plan = {part.name: getattr(result, part.name) for part in dataclasses.fields(result)}
    of_plan |= {"placement": result.placement.phy2log.tolist(), "seconds": None}
    of_plan["topology"] = result.placement.topology
    if result.transfers is not None:
        moves = {
            part.name: getattr(result.transfers, part.name)
            for part in dataclasses.fields(result.transfers)
        }
        of_plan["transfers"] = {
            name: value.tolist() if hasattr(value, "tolist") else value
            for name, value in moves.items()
        }
    return of_plan


def assert_each_is_what_it_is_alone(tasks: Sequence[SolveTask]) -> list[Plan | PlannerError]:
    """Return the results of one call, once they are those of one call each."""
    together = solve_many(tasks)

    assert [facts(result) for result in together] == [facts(alone(each)) for each in tasks]
    return together
