"""Policies side by side on one problem. Needs torch."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expertplane_planner import BalanceReport, Mode, Placement, PlannerError, report

from .problem import soft_foreign_replicas, solve_problem


if TYPE_CHECKING:
    from collections.abc import Sequence

    from expertplane_planner.policies import PlacementRequest

    from .progress import Announce


INITIAL = "initial"
INCUMBENT = "incumbent"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """A placement and how it does under the load."""

    name: str
    """The policy that made it, or what it is."""

    placement: Placement
    """The placement."""

    balance: BalanceReport
    """Its balance under the load."""

    num_duplicates: int
    """Slots, over all layers, whose expert their rank holds already."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome(Entry):
    """What a policy made of the problem."""

    solve_s: float
    """Median time of its solves, in seconds."""

    moved_slots: tuple[int, ...] | None
    """Slots of each layer whose rank has to fetch an expert; None without an incumbent."""

    foreign_replicas: tuple[int, ...] | None
    """Replicas of each layer away from their group's node; None outside soft mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A policy that made nothing of the problem."""

    name: str
    """The policy."""

    message: str
    """Why."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """What all policies made of the problem, and what there would be without them."""

    mode: Mode
    """The mode that all solved in."""

    baseline: Entry
    """The incumbent; without one, the placement that needs no load."""

    results: tuple[Outcome | Failure, ...]
    """A result per policy, in the order in which they were asked for."""

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Results of the policies that did not fail."""
        return tuple(result for result in self.results if isinstance(result, Outcome))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Results of those that did."""
        return tuple(result for result in self.results if isinstance(result, Failure))

    @property
    def best(self) -> Outcome | None:
        """The first outcome of the highest balancedness; None where all failed."""
        return max(self.outcomes, key=lambda it: it.balance.balancedness, default=None)


def compare_policies(
    problem: PlacementRequest,
    policies: Sequence[str],
    *,
    incumbent: Placement | None,
    num_repeats: int,
    announce: Announce,
) -> Comparison:
    """Return what each policy makes of a problem; one that fails does not stop the others.

    Every policy solves once before it is timed, so that what only a first call pays for (imports,
    compilation, threads) is not counted.

    Args:
        problem: What to solve.
        policies: Names of policies.
        incumbent: The placement in force, on the same topology.
        num_repeats: Timed solves per policy.
        announce: Told of every solve, one more than num_repeats a policy.
    """
    if incumbent is None:
        initial = Placement.initial(
            problem.load.num_layers, problem.load.num_logical_experts, problem.topology
        )
        baseline = _entry(INITIAL, initial, problem)
    else:
        baseline = _entry(INCUMBENT, incumbent, problem)
    results: list[Outcome | Failure] = []
    for policy in policies:
        try:
            results.append(_outcome(policy, problem, incumbent, num_repeats, announce))
        except PlannerError as error:
            results.append(Failure(name=policy, message=str(error)))
        except Exception as error:  # an installed policy may raise whatever it likes
            results.append(Failure(name=policy, message=f"{type(error).__name__}: {error}"))
    return Comparison(mode=problem.mode, baseline=baseline, results=tuple(results))


def _outcome(
    policy: str,
    problem: PlacementRequest,
    incumbent: Placement | None,
    num_repeats: int,
    announce: Announce,
) -> Outcome:
    announce(policy)
    plan = solve_problem(problem, policy)
    seconds = []
    for _ in range(num_repeats):
        announce(policy)
        seconds.append(solve_problem(problem, policy).seconds)
    entry = _entry(policy, plan.placement, problem)
    return Outcome(
        name=entry.name,
        placement=entry.placement,
        balance=entry.balance,
        num_duplicates=entry.num_duplicates,
        solve_s=statistics.median(seconds),
        moved_slots=(
            None if incumbent is None else tuple(plan.placement.moved_slots(incumbent).tolist())
        ),
        foreign_replicas=soft_foreign_replicas(plan),
    )


def _entry(name: str, placement: Placement, problem: PlacementRequest) -> Entry:
    return Entry(
        name=name,
        placement=placement,
        balance=report(placement, problem.load),
        num_duplicates=int(placement.num_duplicates().sum()),
    )
