"""Solve jobs, made into tasks of the planning library and their plans into solutions.

A solve has three steps, so that the middle one can be taken for many at once: `prepare`, the
library's `solve_many`, `finish`. Imports torch: for the solver process alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from expertplane_planner import (
    BenefitTerms,
    EngineRules,
    ExpertLoad,
    Incumbent,
    InvalidInputError,
    InvalidPlacementError,
    InvalidTopologyError,
    Mode,
    MoveBudget,
    Placement,
    PlannerError,
    SolveTask,
    Topology,
    get_policy,
)
from expertplane_server.runtime.evidence import Evidence, evidence_of
from expertplane_server.runtime.jobs import Phase
from expertplane_server.runtime.solutions import link_speed, solution_of, topology_of


if TYPE_CHECKING:
    from collections.abc import Sequence

    from expertplane_planner import Forecast, Plan
    from expertplane_server.core.parameters import PlacementRules
    from expertplane_server.core.plan import Solution
    from expertplane_server.runtime.jobs import SolveJob, WarmJob


class SolveMany(Protocol):
    """The library's `solve_many`, or what stands for it."""

    def __call__(
        self, tasks: Sequence[SolveTask], *, device: torch.device
    ) -> Sequence[Plan | PlannerError]:
        """Returns the plan for each task, or why there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A job that can be planned for.

    Attributes:
        job: what to plan for.
        task: the same for the library.
        in_force: the placement in force.
        evidence: what the solve may know, and what it is judged by.
        forecast_s: seconds that the forecast took.
    """

    job: SolveJob
    task: SolveTask
    in_force: Placement | None
    evidence: Evidence
    forecast_s: float


def warm(job: WarmJob, solve_many: SolveMany, device: torch.device) -> None:
    """Plans something of a shape, from scratch and from a placement in force.

    Raises:
        InvalidInputError: the job breaks a rule of the planner.
    """
    counts = torch.arange(1, job.num_logical_experts + 1)
    task = SolveTask(
        load=ExpertLoad(torch.stack([counts, counts.flip(0)]).unsqueeze(1)),
        topology=topology_of(job.topology),
        num_expert_groups=job.num_expert_groups,
        mode=Mode(job.policy.mode),
        policy=get_policy(job.policy.name, dict(job.policy.parameters)),
        spill=job.policy.spill,
        rules=_rules(job.rules),
        seed=job.policy.seed,
    )
    (plan,) = solve_many([task], device=device)
    if not isinstance(plan, PlannerError):
        solve_many([replace(task, incumbent=plan.placement)], device=device)


def prepare(job: SolveJob, forecast: Forecast | None) -> Prepared:
    """Gathers what a solve may know.

    Args:
        job: what to plan for.
        forecast: of a deployment's load; it learns the job's samples if the job teaches, also
            when the solve fails. None plans for the samples alone.

    Raises:
        InvalidInputError: the job breaks a rule of the planner.
    """
    start_s = time.perf_counter()
    evidence = evidence_of(job, forecast)
    forecast_s = time.perf_counter() - start_s
    topology = topology_of(job.topology)
    in_force = _in_force(job, topology)
    task = SolveTask(
        load=ExpertLoad(evidence.shown),
        topology=topology,
        num_expert_groups=job.num_expert_groups,
        mode=Mode(job.policy.mode),
        policy=get_policy(job.policy.name, dict(job.policy.parameters)),
        spill=job.policy.spill,
        prediction=evidence.prediction,
        incumbent=None if in_force is None else _incumbent(job, in_force, evidence),
        rules=_rules(job.rules),
        seed=job.policy.seed,
    )
    return Prepared(
        job=job, task=task, in_force=in_force, evidence=evidence, forecast_s=forecast_s
    )


def finish(
    prepared: Prepared, plan: Plan, *, plan_s: float
) -> tuple[Solution, tuple[tuple[Phase, float], ...]]:
    """Judges a plan and writes it down.

    Args:
        prepared: what was planned for.
        plan: the library's.
        plan_s: seconds that it took, those of others that were made with it included.

    Returns:
        The solution, and what its time went to.
    """
    start_s = time.perf_counter()
    spent_s = prepared.forecast_s + plan_s
    solution = solution_of(
        prepared.job, plan, prepared.in_force, prepared.evidence, spent_s=spent_s
    )
    measure_s = time.perf_counter() - start_s
    return solution, (
        (Phase.FORECAST, prepared.forecast_s),
        (Phase.PLAN, plan_s),
        (Phase.MEASURE, measure_s),
    )


def _in_force(job: SolveJob, topology: Topology) -> Placement | None:
    """Returns the placement in force, which may be from before a rank was lost.

    Raises:
        InvalidInputError: it is none.
    """
    if job.incumbent is None:
        return None
    phy2log = torch.from_numpy(job.incumbent.astype(np.int64))
    try:
        return Placement.as_held(phy2log, job.samples.shape[2], topology)
    except (InvalidPlacementError, InvalidTopologyError) as error:
        raise InvalidInputError("incumbent_phy2log", error.message) from error


def _incumbent(job: SolveJob, in_force: Placement, evidence: Evidence) -> Incumbent:
    """Returns what the plan is to be measured against."""
    held_out = evidence.held_out
    return Incumbent(
        placement=in_force,
        budget=MoveBudget(slots_per_layer=job.policy.max_moved_slots),
        held_out=None if held_out is None else ExpertLoad(held_out),
        terms=_terms(job),
    )


def _terms(job: SolveJob) -> BenefitTerms:
    """Returns what time is worth and what moving costs."""
    trigger, migration = job.trigger, job.migration
    return BenefitTerms(
        horizon_s=trigger.horizon_s,
        moe_time_fraction=trigger.moe_time_fraction,
        stall_fraction=trigger.stall_fraction,
        safety=trigger.safety,
        min_gain=trigger.min_gain,
        bytes_per_expert=migration.bytes_per_expert,
        link_speed=link_speed(migration),
    )


def _rules(rules: PlacementRules) -> EngineRules:
    """Returns what the engine does not take."""
    return EngineRules(
        forbid_duplicates=rules.forbids_duplicates,
        max_replicas_per_expert=rules.max_replicas or None,
    )
