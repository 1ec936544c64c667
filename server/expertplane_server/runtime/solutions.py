"""Plans and migrations, written down as the service knows them. Imports torch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from expertplane_planner import (
    Basis,
    InvalidInputError,
    InvalidPlacementError,
    InvalidTopologyError,
    LinkSpeed,
    Placement,
    Topology,
)
from expertplane_planner.balance import rank_load, step_report
from expertplane_planner.migration.schedule import schedule_transfers
from expertplane_server.core import spec as core
from expertplane_server.core.limits import MAX_TRANSFERS
from expertplane_server.core.plan import Balance, Evaluation, Necessity, Solution, Transfers
from expertplane_server.runtime.jobs import Scheduled


if TYPE_CHECKING:
    from expertplane_planner import Plan, TransferSchedule
    from expertplane_server.core.parameters import MigrationParameters
    from expertplane_server.core.spec import TopologySpec
    from expertplane_server.runtime.evidence import Evidence
    from expertplane_server.runtime.jobs import ScheduleJob, SolveJob


def solution_of(
    job: SolveJob, plan: Plan, in_force: Placement | None, evidence: Evidence, *, spent_s: float
) -> Solution:
    """Writes down a plan as the service knows it, `spent_s` seconds after its solve began."""
    start_s = time.perf_counter()
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
        solve_s=spent_s + time.perf_counter() - start_s,
        spill=plan.spill,
        parameters=job.policy.parameters,
        gain_s=0.0 if benefit is None else benefit.gain_s,
        cost_s=0.0 if benefit is None else benefit.cost_s,
        most_moved_slots=max(moved, default=0),
        transfers=None if plan.transfers is None else _transfers(plan.transfers, job.migration),
        necessity=necessity,
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


def topology_of(spec: TopologySpec) -> Topology:
    """Returns the planner's topology."""
    return Topology(
        num_nodes=spec.num_nodes,
        num_ranks=spec.num_ranks,
        num_slots=spec.num_slots,
        masked_ranks=spec.masked_ranks,
        rank_capacities=spec.rank_capacities or None,
    )


def link_speed(migration: MigrationParameters) -> LinkSpeed:
    """Returns what the links carry."""
    return LinkSpeed(
        same_node_bytes_per_s=migration.intra_node_bytes_per_s,
        cross_node_bytes_per_s=migration.inter_node_bytes_per_s,
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
        estimated_s=schedule.estimated_s(size, link_speed(migration)),
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


def _what_serves(in_force: Placement, topology: Topology) -> Placement | None:
    """Returns what is left of a placement on the active ranks; None where experts were lost."""
    left = in_force.phy2log_on(topology)
    try:
        return Placement.as_held(left, in_force.num_logical_experts, topology)
    except (InvalidPlacementError, InvalidTopologyError):
        return None
