"""One policy at several degrees of redundancy and spill. Needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from expertplane_planner import rank_load
from expertplane_planner.errors import InvalidInputError

from .problem import problem_from, soft_foreign_replicas, solve_problem, warm_up


if TYPE_CHECKING:
    from collections.abc import Sequence

    from expertplane_client.console import ProblemOptions
    from expertplane_client.formats import Recording
    from expertplane_planner import BalanceReport, ExpertLoad, Mode, Placement, Plan

    from .progress import Announce


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """What so many redundant experts and foreign replicas buy, and what they cost."""

    redundancy: int
    """Redundant slots per layer, over all ranks."""

    spill: int | None
    """Foreign replicas per layer that were allowed; None outside soft mode."""

    foreign_replicas: int | None
    """The most that a layer really has; None outside soft mode."""

    num_slots: int
    """Slots per layer, over all ranks."""

    slots_per_rank: int
    """Slots of one rank in one layer."""

    mode: Mode
    """The mode that was solved in."""

    balance: BalanceReport
    """Balance under the load."""

    relative_step_time: float
    """Load of the most loaded ranks, summed over layers, over that of the first row."""

    marginal_gain: float | None
    """Relative step time saved against the next lower redundancy of the same spill, per slot that
    each rank has more; None at the lowest."""

    marginal_gain_per_foreign: float | None
    """Relative step time saved against the next lower spill of the same redundancy, per foreign
    replica that is allowed more; None at the lowest and outside soft mode."""

    extra_slots_per_rank: float
    """Redundant slots of one rank in one layer, on average."""

    extra_bytes_per_rank: float | None
    """Memory for them over all layers, in bytes; None when the size of an expert is not known."""

    solve_s: float
    """Time of the solve, in seconds."""


def check_redundancies(
    redundancies: Sequence[int], *, num_logical_experts: int, num_ranks: int
) -> None:
    """Check that every rank gets equally many slots.

    Raises:
        InvalidInputError: A redundancy does not divide; the message names the nearest that do.
    """
    for redundancy in redundancies:
        surplus = (num_logical_experts + redundancy) % num_ranks
        if surplus:
            below, above = redundancy - surplus, redundancy - surplus + num_ranks
            nearest = f"{below} and {above}" if below >= 0 else f"{above}"
            raise InvalidInputError(
                "redundancy",
                f"Expected {num_logical_experts} experts and --redundancy to be a multiple of "
                f"{num_ranks} ranks, got {redundancy}; nearest: {nearest}.",
            )


def sweep_problems(
    problems: Sequence[ProblemOptions],
    recording: Recording,
    policy: str,
    redundancies: Sequence[int],
    *,
    bytes_per_expert: int | None,
    announce: Announce,
) -> tuple[SweepRow, ...]:
    """Return a row per redundancy and problem, redundancy by redundancy.

    Args:
        problems: The machine, and how to plan; they differ in nothing but their spill, ascending.
        recording: The load.
        policy: Name of the policy.
        redundancies: Redundant slots per layer, ascending.
        bytes_per_expert: Size of the weights of one expert in one layer, if known.
        announce: Told of every solve.

    Raises:
        PlannerError: A solve failed.
    """
    plans: list[list[Plan]] = []
    times: list[list[float]] = []
    for redundancy in redundancies:
        num_slots = recording.num_logical_experts + redundancy
        plans.append([])
        times.append([])
        for options in problems:
            with_spill = "" if options.spill is None else f", spill {options.spill}"
            announce(f"{policy}, redundancy {redundancy}{with_spill}")
            problem = problem_from(options, recording, num_slots=num_slots)
            if not plans[0]:
                warm_up(problem, policy)
            plan = solve_problem(problem, policy)
            plans[-1].append(plan)
            times[-1].append(_step_time(plan.placement, problem.load))
    bytes_per_slot = None if bytes_per_expert is None else recording.num_layers * bytes_per_expert
    spills = [options.spill for options in problems]
    first = times[0][0]
    relative = [[time / first if first else 1.0 for time in same] for same in times]
    return _rows(plans, relative, redundancies, spills, bytes_per_slot)


def _step_time(placement: Placement, load: ExpertLoad) -> float:
    """Return the load of the most loaded ranks, summed over layers."""
    return float(rank_load(placement, load.total()).amax(dim=-1).sum())


def _extra_slots(placement: Placement) -> float:
    """Return the slots of one active rank beyond its share of the experts."""
    topology = placement.topology
    return (topology.num_active_slots - placement.num_logical_experts) / topology.num_active_ranks


def _rows(
    plans: Sequence[Sequence[Plan]],
    times: Sequence[Sequence[float]],
    redundancies: Sequence[int],
    spills: Sequence[int | None],
    bytes_per_slot: int | None,
) -> tuple[SweepRow, ...]:
    extra_slots = [_extra_slots(same[0].placement) for same in plans]
    allowed = [spill or 0 for spill in spills]
    rows: list[SweepRow] = []
    for i, same_redundancy in enumerate(plans):
        for j, plan in enumerate(same_redundancy):
            foreign = soft_foreign_replicas(plan)
            topology, time = plan.placement.topology, times[i][j]
            more_slots = extra_slots[i] - extra_slots[i - 1]
            more_spill = allowed[j] - allowed[j - 1]
            rows.append(
                SweepRow(
                    redundancy=redundancies[i],
                    spill=spills[j],
                    foreign_replicas=None if foreign is None else max(foreign),
                    num_slots=topology.num_slots,
                    slots_per_rank=topology.slots_per_rank,
                    mode=plan.mode,
                    balance=plan.balance,
                    relative_step_time=time,
                    marginal_gain=(times[i - 1][j] - time) / more_slots if i else None,
                    marginal_gain_per_foreign=(
                        (times[i][j - 1] - time) / more_spill if j else None
                    ),
                    extra_slots_per_rank=extra_slots[i],
                    extra_bytes_per_rank=(
                        None if bytes_per_slot is None else extra_slots[i] * bytes_per_slot
                    ),
                    solve_s=plan.seconds,
                )
            )
    return tuple(rows)
