"""What the user said, as the planner understands it. Needs torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from expertplane_planner import ExpertLoad, Mode, Topology, solve
from expertplane_planner.model import resolve_mode
from expertplane_planner.policies import PlacementRequest


if TYPE_CHECKING:
    from expertplane_client.console import ProblemOptions
    from expertplane_client.formats import Recording
    from expertplane_planner import Plan


def problem_from(
    options: ProblemOptions, recording: Recording, *, num_slots: int
) -> PlacementRequest:
    """Return what is to be solved, checked before any policy is asked.

    Args:
        options: The machine, and how to plan.
        recording: The load.
        num_slots: Slots per layer over all ranks.

    Raises:
        InvalidInputError: The options do not fit together or do not fit the load.
    """
    topology = Topology(
        num_nodes=options.num_nodes, num_ranks=options.num_ranks, num_slots=num_slots
    )
    return PlacementRequest(
        load=ExpertLoad(torch.tensor(recording.samples)),
        topology=topology,
        num_expert_groups=options.num_expert_groups,
        mode=resolve_mode(
            Mode(options.mode),
            topology,
            recording.num_logical_experts,
            options.num_expert_groups,
        ),
        spill=options.spill or 0,
        seed=options.seed,
    )


def warm_up(problem: PlacementRequest, policy: str) -> None:
    """Solve the first layer alone, so that compilation does not pass for solving.

    The library's own warm-up compiles what every policy needs, which takes twice as long.

    Raises:
        PlannerError: As for `solve_problem`.
    """
    layer = ExpertLoad(problem.load.samples[:, :1].contiguous())
    solve_problem(replace(problem, load=layer), policy)


def solve_problem(problem: PlacementRequest, policy: str) -> Plan:
    """Return the verified plan of a policy.

    Raises:
        PlannerError: There is no such policy, or it failed.
    """
    return solve(
        problem.load,
        problem.topology,
        num_expert_groups=problem.num_expert_groups,
        mode=problem.mode,
        policy=policy,
        spill=problem.spill,
        seed=problem.seed,
    )


def soft_foreign_replicas(plan: Plan) -> tuple[int, ...] | None:
    """Return the foreign replicas of each layer; None in modes in which there can be none."""
    return plan.foreign_replicas if plan.mode is Mode.SOFT_HIERARCHICAL else None
