"""How a planner goes on from what the store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_server.core.intake import LoadIntake
from expertplane_server.core.journal import Journal
from expertplane_server.core.members import Membership
from expertplane_server.core.placements import without_masked
from expertplane_server.core.plan import PlanState, Reason
from expertplane_server.core.state import State


if TYPE_CHECKING:
    from expertplane_server.core.recovered import Recovered


def state_from(recovered: Recovered, epoch: int, heartbeat_interval_s: float) -> State:
    """Returns the state of a deployment whose members have yet to come back."""
    deployment = recovered.deployment
    spec = deployment.spec
    intake = LoadIntake(spec)
    plans = sorted(recovered.plans, key=lambda plan: plan.version)
    fitting = [
        plan
        for plan in plans
        if plan.phy2log.shape == spec.map_shape
        and plan.draft.solution.num_logical_experts == spec.num_logical_experts
    ]
    for plan in fitting:
        if plan.state not in (PlanState.STAGING, PlanState.ABORTED):
            intake.learn_plan(plan)
    # A plan of an earlier generation is still what the ranks serve with, where it has their shape.
    latest = next((plan for plan in reversed(fitting) if plan.state.is_in_force), None)
    is_current = latest is not None and latest.draft.generation == deployment.generation
    in_force = intake.initial
    if latest is not None:
        in_force = latest.phy2log if is_current else without_masked(latest.phy2log, spec.topology)
    state = State(
        deployment=deployment,
        epoch=epoch,
        heartbeat_interval_s=heartbeat_interval_s,
        members=Membership(recovered.parked, recovered.superseded),
        intake=intake,
        journal=Journal(recovered.decisions),
        in_force=in_force,
        committed=latest if is_current else None,
    )
    for plan in plans:
        state.note(plan)
    return state


def recovered_age_s(recovered: Recovered, wall_s: float) -> tuple[float | None, float | None]:
    """Returns the age of the latest publication, and of the latest that holds others down still.

    A clock that was set back makes either as young as can be.

    Returns:
        Seconds, each None where there is no such publication in the journal.
    """
    published = [
        decision
        for decision in recovered.decisions
        if decision.plan_version and decision.reason is not Reason.FAILED_ROLLOUT
    ]
    # What was given up, or is to be, holds nothing down.
    burned = {plan.version for plan in recovered.plans if plan.state is PlanState.STAGING}
    burned.update(
        decision.plan_version
        for decision in recovered.decisions
        if decision.reason is Reason.FAILED_ROLLOUT
    )
    held = [
        decision
        for decision in published
        if decision.reason.holds_down and decision.plan_version not in burned
    ]
    ages = [
        max(0.0, wall_s - decisions[-1].decided_at_s) if decisions else None
        for decisions in (published, held)
    ]
    return ages[0], ages[1]
