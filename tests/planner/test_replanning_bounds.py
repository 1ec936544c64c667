"""From a placement in force to a better one: in time, and on the largest machine."""

from __future__ import annotations

from typing import Any

import torch

from expertplane_planner import (
    ExpertLoad,
    Mode,
    MoveBudget,
    Placement,
    Topology,
    get_policy,
    solve,
)

from ..support import builders
from .policies.table import ROWS
from .re_plans import Task


(ROBUST,) = (row for row in ROWS if row.name == "robust")


def test_a_time_limit_ends_the_search_with_a_plan() -> None:
    """Hardly any time, from scratch and from a placement in force: valid, and no worse."""
    chosen = get_policy("robust", {"time_limit_s": "1e-9"})
    topology = Topology(num_nodes=2, num_ranks=4, num_slots=24)
    load = builders.load(tuple(range(1, 13)), tuple(range(12, 0, -1)))
    old = Placement.initial(2, 12, topology)
    for mode in (Mode.GLOBAL, Mode.HIERARCHICAL, Mode.SOFT_HIERARCHICAL):
        spill = 2 if mode is Mode.SOFT_HIERARCHICAL else 0
        arguments: dict[str, Any] = {"num_expert_groups": 4, "mode": mode, "spill": spill}
        scratch = solve(load, topology, policy=chosen, **arguments)
        again = solve(load, topology, policy=chosen, incumbent=scratch.placement, **arguments)
        assert scratch.foreign_replicas is None or max(scratch.foreign_replicas) <= spill
        assert again.benefit is not None
        assert again.benefit.gain >= 0
    task = Task(load=load, topology=topology, incumbent=old)
    plan = solve(load, topology, policy=chosen, incumbent=old)
    assert (
        task.objective(ROBUST, plan.placement) <= task.objective(ROBUST, old) * (1 + 1e-9)
    ).all()


def test_the_largest_machine() -> None:
    """94 layers of 512 experts on 256 ranks under a budget: a plan no worse, within it."""
    generator = torch.Generator().manual_seed(0)
    tokens = (torch.randn(8, 94, 512, generator=generator).mul(0.3).exp() * 4000).long()
    topology = Topology(num_nodes=32, num_ranks=256, num_slots=768)
    old = Placement.initial(94, 512, topology)
    task = Task(load=ExpertLoad(tokens), topology=topology, incumbent=old)
    plan = task.solve(ROBUST, MoveBudget(slots_per_layer=16))

    assert max(plan.moved_slots or ()) <= 16
    assert plan.benefit is not None
    assert plan.benefit.gain > 0
