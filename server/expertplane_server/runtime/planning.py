"""One job, planned for with the planning library. Imports torch: for the solver process alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from expertplane_planner import (
    Basis,
    BenefitTerms,
    EngineRules,
    ExpertLoad,
    Incumbent,
    InvalidInputError,
    InvalidPlacementError,
    InvalidTopologyError,
    LinkSpeed,
    Mode,
    MoveBudget,
    Placement,
    Topology,
    get_policy,
    solve,
)
from expertplane_planner.balance import rank_load, step_report
from expertplane_planner.kernels.threads import single_threaded_ops
from expertplane_planner.migration.schedule import schedule_transfers
from expertplane_server.core import spec as core
from expertplane_server.core.limits import MAX_TRANSFERS
from expertplane_server.core.plan import Balance, Evaluation, Necessity, Solution, Transfers
from expertplane_server.runtime.jobs import Expected, Scheduled


if TYPE_CHECKING:
    from expertplane_planner import Forecast, Plan, Prediction, TransferSchedule
    from expertplane_server.core.parameters import MigrationParameters
    from expertplane_server.core.spec import TopologySpec
    from expertplane_server.runtime.jobs import ForecastStatus, ScheduleJob, SolveJob

_KEEP_BACK_FROM = 8
"""Samples below which keeping some back would cost the plan more than the honesty is worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """What a solve may know, and what it is judged by.

    Attributes:
        shown: [K, num_layers, num_logical_experts] tokens.
        held_out: further samples, kept back; None when there are too few.
        prediction: what to expect of the coming steps; None leaves it to the policy.
        judged: [J, num_layers, num_logical_experts] tokens, what balance is measured on.
    """

    shown: torch.Tensor
    held_out: torch.Tensor | None
    prediction: Prediction | None
    judged: torch.Tensor


def learn(forecast: Forecast, samples: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    """Shows a window to a forecast.

    Raises:
        InvalidInputError: the samples break a rule of the planner.
    """
    with single_threaded_ops():
        forecast.observe(torch.from_numpy(samples.copy()))


def run(job: SolveJob, device: torch.device, forecast: Forecast | None) -> Solution:
    """Solves one job and measures the answer.

    Args:
        job: what to plan for.
        device: where to plan.
        forecast: of a deployment's load; it learns the job's samples if the job teaches, also
            when the solve fails. None plans for the samples alone.

    Raises:
        InvalidInputError: the job breaks a rule of the planner.
    """
    start_s = time.perf_counter()
    samples = torch.from_numpy(job.samples.copy())
    with single_threaded_ops():
        evidence = _evidence(job, samples, forecast)
    topology = topology_of(job.topology)
    in_force = _in_force(job, topology)
    plan = solve(
        ExpertLoad(evidence.shown),
        topology,
        num_expert_groups=job.num_expert_groups,
        mode=Mode(job.policy.mode),
        policy=get_policy(job.policy.name, dict(job.policy.parameters)),
        spill=job.policy.spill,
        prediction=evidence.prediction,
        incumbent=None if in_force is None else _incumbent(job, in_force, evidence),
        rules=_rules(job),
        seed=job.policy.seed,
        device=device,
    )
    return _solution(job, plan, in_force, evidence, start_s)


def expect(forecast: Forecast, status: ForecastStatus) -> Expected:
    """Writes down what a forecast that knows a window expects of the next samples."""
    with single_threaded_ops():
        prediction = forecast.predict()
        tokens = prediction.scale.unsqueeze(-1)
        deviation = prediction.variance().to(torch.float64).clamp_min(0.0).sqrt()
        mean, spread = prediction.mean * tokens, deviation * tokens
    return Expected(
        mean=mean.to("cpu", torch.float32).numpy(),
        standard_deviation=spread.to("cpu", torch.float32).numpy(),
        forecast=status,
    )


def schedule(job: ScheduleJob) -> Scheduled:
    """Schedules the way from one placement to another, neither of which need fill the topology.

    Raises:
        InvalidInputError: one of them is no placement.
    """
    topology = topology_of(job.topology)
    held = []
    for name, phy2log in (("from_version", job.before), ("to_version", job.after)):
        try:
            held.append(
                Placement.as_held(
                    torch.from_numpy(phy2log.astype(np.int64)), job.num_logical_experts, topology
                )
            )
        except (InvalidPlacementError, InvalidTopologyError) as error:
            raise InvalidInputError(name, error.message) from error
    before, after = held
    return Scheduled(_transfers(schedule_transfers(after, before), job.migration))


def _evidence(job: SolveJob, samples: torch.Tensor, forecast: Forecast | None) -> _Evidence:
    """Returns what a solve may know, and lets the forecast learn the samples where it should."""
    if forecast is None:
        return _of_load(samples)
    return _of_window(samples, forecast) if job.teaches else _of_known(samples, forecast)


def _of_load(samples: torch.Tensor) -> _Evidence:
    """Returns the evidence of a load that belongs to no deployment: all there is.

    It is judged as a whole, as its sender summed it.
    """
    judged = samples.sum(dim=0, keepdim=True)
    return _Evidence(shown=samples, held_out=None, prediction=None, judged=judged)


def _of_known(samples: torch.Tensor, forecast: Forecast) -> _Evidence:
    """Returns the evidence of samples that the forecast has been shown: none to keep back.

    A forecast that has lost them is not taught them again; a copy of it is.
    """
    if not forecast.num_windows:
        forecast = forecast.clone()
        forecast.observe(samples)
    return _as_predicted(samples, forecast)


def _as_predicted(samples: torch.Tensor, forecast: Forecast) -> _Evidence:
    """Returns evidence that is judged by what the forecast expects."""
    prediction = forecast.predict()
    judged = (prediction.mean * prediction.scale.unsqueeze(-1)).unsqueeze(0).cpu()
    return _Evidence(shown=samples, held_out=None, prediction=prediction, judged=judged)


def _of_window(samples: torch.Tensor, forecast: Forecast) -> _Evidence:
    """Lets the forecast learn a window, and returns what its solve may know of it."""
    if len(samples) < _KEEP_BACK_FROM:
        forecast.observe(samples)
        return _as_predicted(samples, forecast)
    is_kept_back = torch.zeros(len(samples), dtype=torch.bool)
    is_kept_back[3::4] = True
    shown, held_out = samples[~is_kept_back], samples[is_kept_back]
    partial = forecast.clone()
    partial.observe(shown)
    prediction = partial.predict()
    forecast.observe(samples)
    return _Evidence(shown=shown, held_out=held_out, prediction=prediction, judged=held_out)


def topology_of(spec: TopologySpec) -> Topology:
    """Returns the planner's topology."""
    return Topology(
        num_nodes=spec.num_nodes,
        num_ranks=spec.num_ranks,
        num_slots=spec.num_slots,
        masked_ranks=spec.masked_ranks,
        rank_capacities=spec.rank_capacities or None,
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


def _what_serves(in_force: Placement, topology: Topology) -> Placement | None:
    """Returns what is left of a placement on the active ranks; None where experts were lost."""
    left = in_force.phy2log_on(topology)
    try:
        return Placement.as_held(left, in_force.num_logical_experts, topology)
    except (InvalidPlacementError, InvalidTopologyError):
        return None


def _incumbent(job: SolveJob, in_force: Placement, evidence: _Evidence) -> Incumbent:
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
        link_speed=_link_speed(migration),
    )


def _link_speed(migration: MigrationParameters) -> LinkSpeed:
    """Returns what the links carry."""
    return LinkSpeed(
        same_node_bytes_per_s=migration.intra_node_bytes_per_s,
        cross_node_bytes_per_s=migration.inter_node_bytes_per_s,
    )


def _rules(job: SolveJob) -> EngineRules:
    """Returns what the engine does not take."""
    return EngineRules(
        forbid_duplicates=job.rules.forbids_duplicates,
        max_replicas_per_expert=job.rules.max_replicas or None,
    )


def _solution(
    job: SolveJob, plan: Plan, in_force: Placement | None, evidence: _Evidence, start_s: float
) -> Solution:
    """Writes down a plan as the service knows it."""
    benefit = plan.benefit
    is_held_out = benefit is not None and benefit.basis is Basis.HELD_OUT
    if is_held_out:
        evaluation = Evaluation.HELD_OUT
    else:
        has_forecast = evidence.prediction is not None
        evaluation = Evaluation.PREDICTIVE if has_forecast else Evaluation.IN_SAMPLE
    moved = plan.moved_slots or ()
    necessity = None
    if benefit is not None and benefit.necessity is not None:
        necessity = Necessity(benefit.necessity)
    before = None if in_force is None else _what_serves(in_force, plan.placement.topology)
    return Solution(
        phy2log=plan.placement.phy2log.to("cpu", torch.int32).numpy(),
        digest=plan.digest,
        policy=plan.policy,
        mode=core.Mode(plan.mode),
        seed=plan.seed,
        num_logical_experts=plan.placement.num_logical_experts,
        balance=_measure(plan.placement, evidence.judged),
        balance_before=None if before is None else _measure(before, evidence.judged),
        gain=0.0 if benefit is None else benefit.gain,
        moved_slots=sum(moved),
        evaluation=evaluation,
        solve_s=time.perf_counter() - start_s,
        spill=plan.spill,
        parameters=job.policy.parameters,
        gain_s=0.0 if benefit is None else benefit.gain_s,
        cost_s=0.0 if benefit is None else benefit.cost_s,
        most_moved_slots=max(moved, default=0),
        transfers=None if plan.transfers is None else _transfers(plan.transfers, job.migration),
        necessity=necessity,
    )


def _transfers(schedule: TransferSchedule, migration: MigrationParameters) -> Transfers | None:
    """Writes down a migration; None when it is too long to be handed around."""
    if schedule.num_transfers > MAX_TRANSFERS:
        return None
    columns = (
        schedule.layer,
        schedule.expert,
        np.maximum(schedule.source_slot, 0),  # -1 where storage is the source
        schedule.target_slot,
        schedule.round,
        schedule.link_class,
    )
    size = migration.bytes_per_expert
    return Transfers(
        table=np.stack(columns, axis=1).astype(np.int32),
        total_bytes=schedule.total_bytes(size),
        estimated_s=schedule.estimated_s(size, _link_speed(migration)),
    )


def _measure(placement: Placement, samples: torch.Tensor) -> Balance:
    """Returns the balance, sample by sample."""
    found = step_report(rank_load(placement, samples))
    return Balance(
        balancedness=found.balancedness,
        mean=found.mean,
        minimum=found.minimum,
        per_layer=found.per_layer,
    )
