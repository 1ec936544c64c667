"""The search from the placement in force: the moves that lower the peak most per moved slot.

Steps are found layer by layer (`kernels.host_improve`); how many of them each layer takes is
decided over all layers at once, so that a budget goes where it gains most.

Legend: L layers, E logical experts, P slots, R ranks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from expertplane_planner.kernels.host_improve import improve_by_risk
from expertplane_planner.kernels.host_tables import Bounds
from expertplane_planner.stages.risk import relative_slowness

from .spending import Option, spend


if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from expertplane_planner.forecast import Prediction
    from expertplane_planner.kernels.host_tables import Search
    from expertplane_planner.model.budget import MoveBudget
    from expertplane_planner.model.topology import Topology

    Integers: TypeAlias = NDArray[np.int64]
    Reals: TypeAlias = NDArray[np.float64]


_STEPS_BETWEEN_LOOKS = 16  # at the clock, where there is a time limit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effort:
    """How far the search goes.

    Attributes:
        risk: Standard deviations of a rank's load that count.
        max_steps: Steps per layer, at most.
        max_count: Replicas of an expert, at most.
        tolerance: Smallest gain of a step, as a share of the mean rank load.
        price: Smallest gain per moved slot, as a share of the mean rank load.
        deadline_s: When to stop, on the clock of `time.perf_counter`; None is never.
    """

    risk: float
    max_steps: int
    max_count: int
    tolerance: float
    price: float = 0.0
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Terrain:
    """What the search knows about layers and ranks, in host memory.

    Attributes:
        mean: [L, E] float64, expected shares.
        covariance: [L, E, E], of the same.
        scale: [L] float64, tokens of a step.
        slowness: [R] float64, what loads are multiplied with.
        node: [R] int64, node of each rank.
        home: [L, E] int64, node that an expert is tied to, -1 for none.
    """

    mean: Reals
    covariance: NDArray[np.float32] | Reals
    scale: Reals
    slowness: Reals
    node: Integers
    home: Integers

    @classmethod
    def of(cls, prediction: Prediction, topology: Topology, home: Tensor | None) -> Terrain:
        """Return the terrain of a prediction on a topology without masked ranks.

        Args:
            prediction: What to expect.
            topology: Ranks and nodes.
            home: [L, E] int64, node of each expert; None where experts are free.
        """
        shape = tuple(prediction.mean.shape)
        capacity = torch.tensor([topology.capacities], dtype=torch.float64)
        return cls(
            mean=np.ascontiguousarray(prediction.mean.cpu().numpy()),
            covariance=np.ascontiguousarray(prediction.dense_covariance().cpu().numpy()),
            scale=prediction.scale.cpu().numpy(),
            slowness=relative_slowness(capacity)[0].numpy(),
            node=np.arange(topology.num_ranks) // topology.ranks_per_node,
            home=(
                np.full(shape, -1, dtype=np.int64)
                if home is None
                else np.ascontiguousarray(home.cpu().numpy())
            ),
        )

    def peaks(self, phy2log: Tensor, risk: float) -> Tensor:
        """Return each layer's worst rank by mean + risk * deviation, [L] float64, in tokens.

        Args:
            phy2log: [L, P] int64, every expert has a slot.
            risk: Standard deviations that count.
        """
        held = np.ascontiguousarray(phy2log.cpu().numpy())
        effort = Effort(risk=risk, max_steps=0, max_count=1, tolerance=0.0)
        peak = _Walk(self, held, held).search(effort, 0, 0).peak[:, 0]
        return torch.from_numpy(peak * self.scale)


def search_moves(
    terrain: Terrain, start: Tensor, origin: Tensor, budget: MoveBudget, effort: Effort
) -> Tensor:
    """Return a placement within the budget whose peaks are as low as the search gets them.

    Layers without a step that gains stay as they are. Each layer takes its steps in their order;
    how many, is what gains most tokens over all layers within the total.

    Args:
        terrain: What is known about layers and ranks.
        start: [L, P] int64, where to start; every expert has a slot.
        origin: [L, P] int64, the placement that moves are counted from; -1 holds nothing.
        budget: Moved slots, at most; those between origin and start count.
        effort: How far to go.

    Returns:
        [L, P] int64 on the device of the start.
    """
    held = np.ascontiguousarray(start.cpu().numpy())
    before = np.ascontiguousarray(origin.cpu().numpy())
    per_layer = held.shape[1] if budget.slots_per_layer is None else budget.slots_per_layer
    limits, total = [per_layer], budget.total_slots
    if total is not None and total // len(held) < per_layer:
        # A search that knows of little room takes cheaper steps than the first of a long one.
        limits.append(total // len(held))
    walks = [_walked(_Walk(terrain, held, before), effort, limit) for limit in limits]
    least = sum(moved[0] for moved in walks[0].moved)
    left = None if total is None else max(0, total - least)
    options = [
        [option for number, walk in enumerate(walks) for option in walk.options(number, layer)]
        for layer in range(len(held))
    ]
    result = held.copy()
    for layer, option in enumerate(spend(options, left)):
        for slots, experts in walks[option.walk].steps[layer][: option.num_steps]:
            _fill(result[layer], slots, experts)
    return torch.from_numpy(result).to(start.device)


def _walked(walk: _Walk, effort: Effort, max_moved: int) -> _Walk:
    """Return the walk at its end: no step is left, or no time."""
    chunk = effort.max_steps if effort.deadline_s is None else _STEPS_BETWEEN_LOOKS
    for num_taken in range(0, max(1, effort.max_steps), max(1, chunk)):
        goes_on = walk.go_on(effort, max_moved, min(chunk, effort.max_steps - num_taken))
        is_late = effort.deadline_s is not None and time.perf_counter() >= effort.deadline_s
        if is_late or not goes_on:
            break
    return walk


class _Walk:
    """The steps of all layers so far.

    Attributes:
        steps: per layer, (slots, experts) of each step.
        peak: per layer, the peak before the first step and after each, as a share.
        moved: per layer, moved slots before the first step and after each.
    """

    def __init__(self, terrain: Terrain, start: Integers, origin: Integers) -> None:
        self._terrain, self._origin = terrain, origin
        self._held = start.copy()
        self.steps: list[list[tuple[Integers, Integers]]] = [[] for _ in start]
        self.peak: list[list[float]] = [[] for _ in start]
        self.moved: list[list[int]] = [[] for _ in start]

    def search(self, effort: Effort, max_moved: int, max_steps: int) -> Search:
        """Return further steps, without taking them."""
        terrain = self._terrain
        return improve_by_risk(
            terrain.mean,
            terrain.covariance,
            self._held,
            self._origin,
            terrain.slowness,
            terrain.node,
            terrain.home,
            risk=effort.risk,
            max_steps=max_steps,
            bounds=Bounds(max_moved, effort.max_count, effort.tolerance, effort.price),
        )

    def go_on(self, effort: Effort, max_moved: int, max_steps: int) -> bool:
        """Take further steps and return whether there were any."""
        found = self.search(effort, max_moved, max_steps)
        for layer, count in enumerate(found.num_steps.tolist()):
            first = 1 if self.peak[layer] else 0
            self.peak[layer] += found.peak[layer, first : count + 1].tolist()
            self.moved[layer] += found.moved[layer, first : count + 1].tolist()
            for step in range(count):
                slots, experts = found.slots[layer, step], found.experts[layer, step]
                self.steps[layer].append((slots, experts))
                _fill(self._held[layer], slots, experts)
        return bool(found.num_steps.any())

    def options(self, number: int, layer: int) -> list[Option]:
        """Return what a layer may do: take none of the steps, the first, the first two, ..."""
        peak, moved = self.peak[layer], self.moved[layer]
        scale = float(self._terrain.scale[layer])
        return [
            Option(max(0, now - moved[0]), (peak[0] - value) * scale, number, num_steps)
            for num_steps, (value, now) in enumerate(zip(peak, moved, strict=True))
        ]


def _fill(held: Integers, slots: Integers, experts: Integers) -> None:
    held[slots[0]] = experts[0]
    if slots[1] >= 0:
        held[slots[1]] = experts[1]
