"""What the user said, as the planner understands it. Needs torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from expertplane_client.formats import engine_profile
from expertplane_planner import (
    EngineRules,
    ExpertLoad,
    Incumbent,
    Mode,
    MoveBudget,
    Placement,
    Topology,
    solve,
)
from expertplane_planner.model import resolve_mode
from expertplane_planner.policies import PlacementRequest


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from expertplane_client.console import MoveOptions, ProblemOptions
    from expertplane_client.formats import Recording
    from expertplane_planner import Plan, Policy


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
        num_nodes=options.num_nodes,
        num_ranks=options.num_ranks,
        num_slots=num_slots,
        masked_ranks=options.masked_ranks or (),
        rank_capacities=options.rank_capacities,
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


def incumbent_from(
    moves: MoveOptions, phy2log: NDArray[Any] | None, problem: PlacementRequest
) -> Incumbent | None:
    """Return the placement in force and the budget against it; None if there is none.

    Args:
        moves: The budget.
        phy2log: [num_layers, num_slots] integers, -1 in slots of ranks that were masked.
        problem: What is to be solved.

    Raises:
        InvalidInputError: It is no placement of the problem's experts.
    """
    if phy2log is None:
        return None
    held = torch.tensor(phy2log.astype("int64"))
    num_experts = problem.load.num_logical_experts
    return Incumbent(
        placement=Placement.as_held(held, num_experts, problem.topology),
        budget=MoveBudget(slots_per_layer=moves.max_moved_slots_per_layer),
    )


def rules_of(engine: str | None) -> EngineRules:
    """Return the rules that an engine binds a solve by; none without an engine."""
    if engine is None:
        return EngineRules()
    profile = engine_profile(engine)
    return EngineRules(
        forbid_duplicates=profile.is_duplicate_refused,
        max_replicas_per_expert=profile.max_replicas,
    )


def warm_up(
    problem: PlacementRequest, policy: str | Policy, incumbent: Incumbent | None = None
) -> None:
    """Solve the first layer alone, so that compilation does not pass for solving.

    The library's own warm-up compiles what every policy needs, which takes twice as long.

    Raises:
        PlannerError: As for `solve_problem`.
    """
    layer = ExpertLoad(problem.load.samples[:, :1].contiguous())
    if incumbent is not None:
        placement = incumbent.placement
        first = Placement(placement.phy2log[:1], placement.num_logical_experts, placement.topology)
        incumbent = replace(incumbent, placement=first)
    solve_problem(replace(problem, load=layer), policy, incumbent)


def solve_problem(
    problem: PlacementRequest, policy: str | Policy, incumbent: Incumbent | None = None
) -> Plan:
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
        incumbent=incumbent,
        rules=problem.rules,
        seed=problem.seed,
    )


def soft_foreign_replicas(plan: Plan) -> tuple[int, ...] | None:
    """Return the foreign replicas of each layer; None in modes in which there can be none."""
    return plan.foreign_replicas if plan.mode is Mode.SOFT_HIERARCHICAL else None
