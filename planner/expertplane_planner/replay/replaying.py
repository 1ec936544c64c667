"""The replay itself: window by window, plan from the past, score on the next, then learn it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from expertplane_planner.errors import InvalidInputError
from expertplane_planner.model.load import ExpertLoad
from expertplane_planner.model.mode import Mode, resolve_mode
from expertplane_planner.policies import get_policy
from expertplane_planner.solving import warm_up

from .contestant import Contestant, Setting
from .past import Past, foreknowledge
from .report import ReplayReport


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from expertplane_planner.model.topology import Topology
    from expertplane_planner.policies import Policy

    from .report import ReplayRow


STATIC = "static"
"""The first plan of the policy that is named first, kept for ever."""

ORACLE = "oracle"
"""`robust`, told the mean and covariance of the window that it plans for."""


def replay(
    trace: Tensor,
    topology: Topology,
    policies: Sequence[str | Policy],
    *,
    warmup_windows: int,
    mode: Mode = Mode.AUTO,
    num_expert_groups: int = 1,
    spill: int = 0,
    seed: int = 0,
    every: int | None = None,
    move_budget: int | None = None,
    announce: Callable[[int], object] | None = None,
) -> ReplayReport:
    """Return how the plans of policies fare in windows that come after them.

    Each policy plans from what came before a window, then every step of the window is scored. All
    are given the samples of the window before and a `Forecast` of all so far; policies that plan
    on means use the sum of the former. What a plan moves is counted after relabelling. `STATIC`
    and `ORACLE` always take part; the oracle plans once a window, whatever `every` says.

    Args:
        trace: [num_windows, num_samples, num_layers, num_logical_experts], tokens, with the dtypes
            and bounds of `ExpertLoad`; planning takes place where it is. Not mutated.
        topology: Where experts go.
        policies: Names, or policies with parameters of their own; their names must differ.
        warmup_windows: Windows before the first that is scored, at least 1.
        mode: As for `solve`, like the next three.
        num_expert_groups: Routing groups of consecutive logical experts.
        spill: Foreign replicas per layer, at most.
        seed: Seed for policies that draw random numbers.
        every: Steps from one re-plan to the next; divides the steps of a window. All by default.
        move_budget: Slots of each layer that a re-plan may move, at most; for policies that can go
            on from what is in force (`ImprovingPolicy`). Others, and the oracle, start anew.
        announce: Told the index of each window that is planned for.

    Raises:
        PlannerError: The arguments do not fit together, or a solve failed.
    """
    num_samples, num_experts = _check_trace(trace, warmup_windows, every)
    chosen = _checked_policies(policies)
    resolved = resolve_mode(mode, topology, num_experts, num_expert_groups)
    setting = Setting(topology, num_expert_groups, resolved, spill, seed, move_budget)
    field = _Field.of(chosen, setting)
    warm_up(trace.device)  # or compilation would pass for the first solve
    period = every or num_samples
    past = Past(num_samples // period)
    for index, window in enumerate(trace):
        if index >= warmup_windows and announce is not None:
            announce(index)
        field.play(window, past, period=period, is_scored=index >= warmup_windows)
    return ReplayReport(
        num_windows=len(trace),
        warmup_windows=warmup_windows,
        num_samples=num_samples,
        every=period,
        move_budget=move_budget,
        mode=resolved,
        rows=field.rows(num_samples),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """All who take part."""

    static: Contestant
    rivals: tuple[Contestant, ...]
    oracle: Contestant

    @classmethod
    def of(cls, policies: Sequence[Policy], setting: Setting) -> _Field:
        return cls(
            static=Contestant(STATIC, policies[0], setting),
            rivals=tuple(Contestant(policy.name, policy, setting) for policy in policies),
            oracle=Contestant(ORACLE, get_policy("robust"), replace(setting, move_budget=None)),
        )

    def play(self, window: Tensor, past: Past, *, period: int, is_scored: bool) -> None:
        """Plan for a window block by block, score it, and let it become part of the past."""
        if is_scored:
            self.oracle.plan(foreknowledge(window))
        for block in torch.split(window, period):
            if is_scored:
                self._plan(past)
                for contestant in (self.static, *self.rivals, self.oracle):
                    contestant.score(block)
            past.observe(block)

    def rows(self, num_samples: int) -> tuple[ReplayRow, ...]:
        bounds = _bounds(self.rivals, self.oracle)
        everybody = (self.static, *self.rivals, self.oracle)
        return tuple(each.row(num_samples, bounds) for each in everybody)

    def _plan(self, past: Past) -> None:
        known = past.knowledge()
        for rival in self.rivals:
            rival.plan(known)
        if self.static.placement is None:
            self.static.keep_first_of(self.rivals[0])


def _bounds(rivals: Sequence[Contestant], oracle: Contestant) -> tuple[float, float] | None:
    """Return the balancedness of `balanced` and of the oracle, if that is higher."""
    for rival in rivals:
        if rival.name == "balanced":
            low, high = (float(torch.cat(each.steps).mean()) for each in (rival, oracle))
            return (low, high) if low < high else None
    return None


def _check_trace(trace: Tensor, warmup_windows: int, every: int | None) -> tuple[int, int]:
    """Return the samples of a window and the experts of a layer."""
    if trace.dim() != 4 or not trace.shape[0]:
        raise InvalidInputError(
            "trace",
            "Expected a trace of shape [num_windows, num_samples, num_layers, "
            f"num_logical_experts], got {list(trace.shape)}.",
        )
    for index, window in enumerate(trace):
        try:
            ExpertLoad(window)
        except InvalidInputError as error:
            raise InvalidInputError("trace", f"Window {index}: {error.message}") from error
    _check_counts(trace.shape[0], trace.shape[1], warmup_windows, every)
    return trace.shape[1], trace.shape[3]


def _check_counts(
    num_windows: int, num_samples: int, warmup_windows: int, every: int | None
) -> None:
    if not 1 <= warmup_windows < num_windows:
        raise InvalidInputError(
            "warmup_windows",
            f"Expected at least one window of warm-up and one of {num_windows} left to score, "
            f"got {warmup_windows}.",
        )
    if every is not None and (every < 1 or num_samples % every):
        raise InvalidInputError(
            "every",
            f"Expected steps between re-plans to divide the {num_samples} of a window, "
            f"got {every}.",
        )


def _checked_policies(policies: Sequence[str | Policy]) -> list[Policy]:
    chosen = [get_policy(each) if isinstance(each, str) else each for each in policies]
    names = [policy.name for policy in chosen]
    is_taken = {STATIC, ORACLE} & {*names}
    if not names or len({*names}) < len(names) or is_taken:
        raise InvalidInputError(
            "policies",
            f"Expected policies of different names, none of them '{STATIC}' or '{ORACLE}', "
            f"got {names}.",
        )
    return chosen
