"""The search from the placement in force: the moves that lower the peak most per moved slot.

Steps are found layer by layer (`kernels.improving`), those of many layers at once; how many of
them each layer takes is decided over all layers of a task, so that a budget goes where it gains
most.

Legend: L layers, E logical experts, P slots, R ranks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from expertplane_planner.kernels.host_tables import Bounds
from expertplane_planner.kernels.improving import improve_by_risk
from expertplane_planner.model.budget import MoveBudget
from expertplane_planner.stages.risk import relative_slowness

from .spending import Option, spend


if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from expertplane_planner.forecast import Prediction
    from expertplane_planner.kernels.host_tables import Search
    from expertplane_planner.model.topology import Topology

    Integers: TypeAlias = NDArray[np.int64]


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
    """What the search knows about layers and ranks; tensors on the prediction's device.

    Attributes:
        topology: Ranks and nodes; none is masked.
        mean: [L, E] float64, expected shares.
        covariance: [L, E, E] float32 or float64, of the same.
        scale: [L] float64, tokens of a step.
        slowness: [R] float64, what loads are multiplied with.
        node: [R] int64, node of each rank.
        home: [L, E] int64, node that an expert is tied to, -1 for none.
    """

    topology: Topology
    mean: Tensor
    covariance: Tensor
    scale: Tensor
    slowness: Tensor
    node: Tensor
    home: Tensor

    @classmethod
    def of(cls, prediction: Prediction, topology: Topology, home: Tensor | None) -> Terrain:
        """Return the terrain of a prediction on a topology without masked ranks.

        Args:
            prediction: What to expect.
            topology: Ranks and nodes.
            home: [L, E] int64, node of each expert; None where experts are free.
        """
        mean, device = prediction.mean, prediction.device
        if home is None:
            home = torch.full(mean.shape, -1, dtype=torch.int64, device=device)
        # Worked out on the host, so that it does not depend on the device.
        capacity = torch.tensor([topology.capacities], dtype=torch.float64)
        node = torch.arange(topology.num_ranks) // topology.ranks_per_node
        return cls(
            topology,
            mean.contiguous(),
            prediction.dense_covariance().contiguous(),
            prediction.scale,
            relative_slowness(capacity)[0].to(device),
            node.to(device),
            home.to(device).contiguous(),
        )

    def peaks(self, phy2log: Tensor, risk: float) -> Tensor:
        """Return each layer's worst rank by mean + risk * deviation, [L] float64, in tokens.

        Args:
            phy2log: [L, P] int64, every expert has a slot.
            risk: Standard deviations that count.

        Returns:
            On the host.
        """
        effort = Effort(risk=risk, max_steps=0, max_count=1, tolerance=0.0)
        nowhere = _Walk(SearchTask(self, phy2log, phy2log, MoveBudget(), effort), 0)
        _walk_on([nowhere], 0)
        peak = torch.tensor([of_layer[0] for of_layer in nowhere.peak], dtype=torch.float64)
        return peak * self.scale.cpu()


@dataclass(frozen=True, slots=True, eq=False)
class SearchTask:
    """One deployment's search.

    Attributes:
        terrain: What is known about layers and ranks.
        start: [L, P] int64, where to start; every expert has a slot.
        origin: [L, P] int64, the placement that moves are counted from; -1 holds nothing.
        budget: Moved slots, at most; those between origin and start count.
        effort: How far to go.
    """

    terrain: Terrain
    start: Tensor
    origin: Tensor
    budget: MoveBudget
    effort: Effort


def search_moves(
    terrain: Terrain, start: Tensor, origin: Tensor, budget: MoveBudget, effort: Effort
) -> Tensor:
    """Return a placement within the budget whose peaks are as low as the search gets them.

    Layers without a step that gains stay as they are. Each layer takes its steps in their order;
    how many, is what gains most tokens over all layers within the total.

    Args:
        terrain: See `SearchTask`, as for the others.
        start: Where to start.
        origin: What moves are counted from.
        budget: Moved slots, at most.
        effort: How far to go.

    Returns:
        [L, P] int64 on the device of the start.
    """
    return search_all([SearchTask(terrain, start, origin, budget, effort)])[0]


def search_all(tasks: Sequence[SearchTask]) -> list[Tensor]:
    """Return what `search_moves` finds for each task, in their order.

    Tasks on equal machines that are searched alike share a launch, unless they look at the clock:
    their layers are searched as those of one.
    """
    walks = [_walks_of(task) for task in tasks]
    groups: dict[Hashable, list[_Walk]] = {}
    for number, task in enumerate(tasks):
        groups.setdefault(_kind(task, number), []).extend(walks[number])
    for group in groups.values():
        effort = group[0].task.effort
        if effort.deadline_s is None:
            _walk_on(group, effort.max_steps)
            continue
        for walk in group:
            _walk_until(walk, effort.deadline_s)
    return [_spent(task, of_task) for task, of_task in zip(tasks, walks, strict=True)]


def _walks_of(task: SearchTask) -> list[_Walk]:
    budget, (num_layers, num_slots) = task.budget, task.start.shape
    per_layer = num_slots  # more cannot move, and a kernel counts in int32
    if budget.slots_per_layer is not None:
        per_layer = min(per_layer, budget.slots_per_layer)
    limits, total = [per_layer], budget.total_slots
    if total is not None and total // num_layers < per_layer:
        # A search that knows of little room takes cheaper steps than the first of a long one.
        limits.append(total // num_layers)
    return [_Walk(task, limit) for limit in limits]


def _kind(task: SearchTask, number: int) -> Hashable:
    """Return what tasks that share a launch have in common."""
    terrain, effort = task.terrain, task.effort
    return (
        # Priced layer by layer. Whoever looks at the clock walks alone.
        (effort.risk, effort.max_steps, effort.max_count, effort.tolerance),
        None if effort.deadline_s is None else number,
        (terrain.topology.num_ranks, terrain.topology.num_nodes, terrain.topology.capacities),
        (terrain.mean.shape[1], task.start.shape[1]),
        (terrain.mean.device, terrain.covariance.dtype),
    )


def _walk_until(walk: _Walk, deadline_s: float) -> None:
    """Walk until no step is left, or no time."""
    max_steps = walk.task.effort.max_steps
    for num_taken in range(0, max(1, max_steps), _STEPS_BETWEEN_LOOKS):
        goes_on = _walk_on([walk], min(_STEPS_BETWEEN_LOOKS, max_steps - num_taken))
        if not goes_on or time.perf_counter() >= deadline_s:
            break


def _walk_on(walks: Sequence[_Walk], max_steps: int) -> bool:
    """Take further steps in all layers of all walks, and return whether there were any."""
    terrains = [*dict.fromkeys(walk.task.terrain for walk in walks)]
    first, effort = terrains[0], walks[0].task.effort
    ends = np.cumsum([len(terrain.mean) for terrain in terrains]).tolist()
    layers = {
        terrain: np.arange(end - len(terrain.mean), end)
        for terrain, end in zip(terrains, ends, strict=True)
    }
    on_device = [
        torch.from_numpy(np.concatenate(parts)).to(first.mean.device)
        for parts in (
            [walk.held for walk in walks],
            [walk.origin for walk in walks],
            [layers[walk.task.terrain] for walk in walks],
        )
    ]
    max_moved = [np.full(len(walk.held), walk.max_moved, np.int64) for walk in walks]
    price = [np.full(len(walk.held), walk.task.effort.price, np.float64) for walk in walks]
    found = improve_by_risk(
        _stacked([terrain.mean for terrain in terrains]),
        _stacked([terrain.covariance for terrain in terrains]),
        _stacked([terrain.home for terrain in terrains]),
        first.slowness,
        first.node,
        *on_device,
        risk=effort.risk,
        max_steps=max_steps,
        bounds=Bounds(
            max_moved=np.concatenate(max_moved),
            max_count=effort.max_count,
            tolerance=effort.tolerance,
            price=np.concatenate(price),
        ),
    )
    start = 0
    for walk in walks:
        walk.take(found, start)
        start += len(walk.held)
    return bool(found.num_steps.any())


def _stacked(parts: list[Tensor]) -> Tensor:
    """Return all in one, and of one not a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _spent(task: SearchTask, walks: Sequence[_Walk]) -> Tensor:
    """Return the placement after the steps that the budget goes to."""
    total = task.budget.total_slots
    least = sum(moved[0] for moved in walks[0].moved)
    left = None if total is None else max(0, total - least)
    options = [
        [option for number, walk in enumerate(walks) for option in walk.options(number, layer)]
        for layer in range(len(task.start))
    ]
    result = task.start.cpu().numpy().copy()
    for layer, option in enumerate(spend(options, left)):
        for slots, experts in walks[option.walk].steps[layer][: option.num_steps]:
            _fill(result[layer], slots, experts)
    return torch.from_numpy(result).to(task.start.device)


class _Walk:
    """The steps of all layers of a task so far, under one limit.

    Attributes:
        held: [L, P], what slots hold after them.
        steps: per layer, (slots, experts) of each step.
        peak: per layer, the peak before the first step and after each, as a share.
        moved: per layer, moved slots before the first step and after each.
    """

    def __init__(self, task: SearchTask, max_moved: int) -> None:
        self.task, self.max_moved = task, max_moved
        self.held: Integers = task.start.cpu().numpy().copy()
        self.origin: Integers = task.origin.cpu().numpy()
        self._scale = task.terrain.scale.tolist()
        self.steps: list[list[tuple[Integers, Integers]]] = [[] for _ in self.held]
        self.peak: list[list[float]] = [[] for _ in self.held]
        self.moved: list[list[int]] = [[] for _ in self.held]

    def take(self, found: Search, start: int) -> None:
        """Take the steps that were found; the first layer's are those at `start`."""
        counts = found.num_steps[start : start + len(self.held)].tolist()
        for layer, count in enumerate(counts):
            row, first = start + layer, 1 if self.peak[layer] else 0
            self.peak[layer] += found.peak[row, first : count + 1].tolist()
            self.moved[layer] += found.moved[row, first : count + 1].tolist()
            for step in range(count):
                slots, experts = found.slots[row, step], found.experts[row, step]
                self.steps[layer].append((slots, experts))
                _fill(self.held[layer], slots, experts)

    def options(self, number: int, layer: int) -> list[Option]:
        """Return what a layer may do: take none of the steps, the first, the first two, ..."""
        peak, moved = self.peak[layer], self.moved[layer]
        return [
            Option(max(0, now - moved[0]), (peak[0] - value) * self._scale[layer], number, taken)
            for taken, (value, now) in enumerate(zip(peak, moved, strict=True))
        ]


def _fill(held: Integers, slots: Integers, experts: Integers) -> None:
    held[slots[0]] = experts[0]
    if slots[1] >= 0:
        held[slots[1]] = experts[1]
