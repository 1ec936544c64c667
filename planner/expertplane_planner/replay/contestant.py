"""One row of a replay: plans, carries the incumbent forward, keeps the score."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from expertplane_planner.balance import balancedness, layer_balancedness, rank_load
from expertplane_planner.migration import relabel
from expertplane_planner.model.budget import MoveBudget
from expertplane_planner.model.incumbent import Incumbent
from expertplane_planner.policies import ImprovingPolicy
from expertplane_planner.solving import solve

from .report import ReplayRow


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.model.mode import Mode
    from expertplane_planner.model.placement import Placement
    from expertplane_planner.model.topology import Topology
    from expertplane_planner.policies import Policy

    from .past import Knowledge


@dataclass(frozen=True, slots=True)
class Setting:
    """What all plans of a replay have in common."""

    topology: Topology
    """Where experts go."""

    num_expert_groups: int
    """Routing groups of consecutive experts."""

    mode: Mode
    """How nodes and expert groups are treated; resolved."""

    spill: int
    """Foreign replicas per layer, at most."""

    seed: int
    """For policies that draw random numbers."""

    move_budget: int | None = None
    """Slots of each layer that a re-plan of an `ImprovingPolicy` may move; None plans from scratch
    each time."""


@dataclass(slots=True, eq=False)
class Contestant:
    """A policy, what it has placed, and what that was worth."""

    name: str
    policy: Policy
    setting: Setting
    placement: Placement | None = None
    moved: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)
    layers: list[Tensor] = field(default_factory=list)

    def plan(self, known: Knowledge) -> None:
        """Make a plan and put it in force, on the ranks where it moves least.

        Raises:
            PlannerError: The solve failed.
        """
        setting, before = self.setting, self.placement
        moves_on = setting.move_budget is not None and isinstance(self.policy, ImprovingPolicy)
        # Policies that plan on means take the sum of the load, and leave the prediction alone.
        plan = solve(
            known.load,
            setting.topology,
            num_expert_groups=setting.num_expert_groups,
            mode=setting.mode,
            policy=self.policy,
            spill=setting.spill,
            prediction=known.prediction,
            incumbent=(
                Incumbent(placement=before, budget=MoveBudget(slots_per_layer=setting.move_budget))
                if moves_on and before is not None
                else None
            ),
            seed=setting.seed,
        )
        self.seconds.append(plan.seconds)
        placement = plan.placement
        if before is not None:
            if not moves_on:
                placement = relabel(placement, before, by_node=setting.mode.is_by_node)
            self.moved.append(placement.moved_slots(before))
        self.placement = placement

    def keep_first_of(self, other: Contestant) -> None:
        """Put the only plan that another has made in force, for ever."""
        self.placement, self.seconds = other.placement, other.seconds[:1]

    def score(self, block: Tensor) -> None:
        """Score the placement in force on steps that have come.

        Args:
            block: [num_samples, num_layers, num_logical_experts], tokens.
        """
        assert self.placement is not None
        tokens = rank_load(self.placement, block)
        self.steps.append(balancedness(tokens).cpu())
        self.layers.append(layer_balancedness(tokens).cpu())

    def row(self, num_samples: int, bounds: tuple[float, float] | None) -> ReplayRow:
        """Return what came of it.

        Args:
            num_samples: Steps of a window.
            bounds: Balancedness of which 0 and 1 of the gap are closed, if there is a gap.
        """
        steps, layers = torch.cat(self.steps), torch.cat(self.layers)
        overall = float(steps.mean())
        by_window = layers.view(-1, num_samples, layers.shape[1]).mean(dim=1)
        per_layer: list[float] = by_window.mean(dim=0).tolist()
        moved = torch.stack(self.moved).to(torch.float64) if self.moved else 0 * by_window
        by_layer: list[float] = moved.mean(dim=0).tolist()
        return ReplayRow(
            name=self.name,
            balancedness=overall,
            per_window=tuple(steps.view(-1, num_samples).mean(dim=1).tolist()),
            per_layer=tuple(per_layer),
            per_layer_minimum=tuple(by_window.amin(dim=0).tolist()),
            mean=statistics.fmean(per_layer),
            minimum=min(per_layer),
            num_plans=len(self.seconds),
            moved_by_layer=tuple(by_layer),
            moved_slots_per_layer=statistics.fmean(by_layer),
            seconds_median=statistics.median(self.seconds),
            gap_closed=(
                None if bounds is None else (overall - bounds[0]) / (bounds[1] - bounds[0])
            ),
        )
