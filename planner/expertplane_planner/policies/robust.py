"""Robust: even in the steps to come, not only on the load that has been.

A step waits for its most loaded rank, and the load of a step to come is known up to a mean and a
covariance. For R ranks of roughly normal load the expected maximum is about mean + z * standard
deviation, with z the expected maximum of R standard normal numbers; so the policy minimises the
largest mean + risk * deviation of a rank, and gives replicas to experts by their mean +
replication_risk * deviation: what is uncertain deserves them as well as what is hot.

On ranks of unequal capacity the load of a rank is what it is over the rank's capacity. Expert
groups go to nodes by the sum of their ranks' capacities.

From a placement in force the policy also goes on step by step, see `migration.search`.

Source: our own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from expertplane_planner.forecast import Prediction
from expertplane_planner.migration.search import Effort, Terrain, search_moves
from expertplane_planner.model.budget import MoveBudget
from expertplane_planner.model.homes import home_of_experts
from expertplane_planner.model.placement import Placement
from expertplane_planner.stages.distinct import pack_distinct
from expertplane_planner.stages.replicate import Replication, max_copies, replicate_greedy
from expertplane_planner.stages.risk import (
    expected_maximum,
    pack_by_risk,
    relative_slowness,
)

from .base import check_params
from .pipeline import Pipeline


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.model.topology import Topology
    from expertplane_planner.stages.pack import Packing

    from .base import Departure, PlacementRequest


_NOISE = 1e-12
"""Gain, as a share of the mean rank load, that may be rounding: no reason to move weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustParams:
    """How careful a plan is, and how hard it is worked on.

    Raises:
        InvalidInputError: A parameter is too small; the field is `policy.params.<name>`.
    """

    risk: float = 1.25
    """Standard deviations of a rank's load that count, as a multiple of the expected maximum of
    as many standard normal numbers as there are ranks: 2.6 in all for 32 ranks."""

    replication_risk: float = 2.5
    """Standard deviations of an expert's tokens that count when replicas are given away."""

    max_swaps: int = 256
    """Swaps that refine each packing, at most; steps per layer from a placement in force."""

    tolerance: float = 1e-5
    """Smallest gain of a swap or step, as a share of the mean rank load."""

    time_limit_s: float = 0.0
    """Seconds after which a search ends with the best placement so far; the clock is looked at
    every few steps. A plan from scratch then comes from the search that otherwise starts at a
    placement in force. What surrounds a search (forecast, relabelling, schedule) is not timed.
    With 0 the end is that of `max_swaps` and `tolerance` alone, so that the same input gives the
    same plan."""

    def __post_init__(self) -> None:
        check_params(
            self,
            lowest={
                "risk": 0.0,
                "replication_risk": 0.0,
                "max_swaps": 0,
                "tolerance": 0.0,
                "time_limit_s": 0.0,
            },
        )


@dataclass(frozen=True, slots=True)
class RobustPolicy:
    """Plans on what to expect of the next window, and how far it may be off."""

    weighs_ranks: ClassVar[bool] = True

    params: RobustParams = field(default_factory=RobustParams)

    @property
    def name(self) -> str:
        """Name by which the policy is asked for."""
        return "robust"

    def place(self, request: PlacementRequest) -> Tensor:
        """Return which logical expert each slot holds.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """
        params, deadline_s = self.params, self._deadline_s()
        prediction = request.prediction or Prediction.of_window(request.load)
        mean, covariance = prediction.mean, prediction.dense_covariance()
        deviation = prediction.variance().to(torch.float64).clamp(min=0.0).sqrt()
        capacity = torch.tensor(request.topology.capacities, dtype=torch.float64)
        max_swaps = params.max_swaps if deadline_s is None else 0
        most = request.rules.max_replicas_per_expert

        def replicate(weight: Tensor, num_replicas: int, num_packs: int) -> Replication:
            bound = max_copies(weight.shape[1], num_replicas, num_packs)
            bound = bound if most is None else min(bound, most)
            return replicate_greedy(weight, num_replicas, max_count=bound)

        def pack_groups(weight: Tensor, group: Tensor, num_packs: int) -> Packing:
            return _pack_groups(weight, group, request.topology, params)

        def pack(weight: Tensor, expert: Tensor, num_packs: int) -> Packing:
            return pack_by_risk(
                mean,
                covariance,
                weight,
                expert,
                _slowness(capacity.view(-1, num_packs), weight),
                risk=self._risk(request),
                max_swaps=max_swaps,
                tolerance=params.tolerance,
            )

        pipeline = Pipeline(
            pack_groups=pack_groups, replicate=replicate, pack=pack, dtype=torch.float64
        )
        phy2log = pipeline.place(request, mean + params.replication_risk * deviation)
        if deadline_s is None:
            return phy2log
        home = _homes(phy2log, request)
        terrain = Terrain.of(prediction, request.topology, home)
        effort = self._effort(request, deadline_s=deadline_s)
        return search_moves(terrain, phy2log, phy2log, MoveBudget(), effort)

    def improve(
        self, request: PlacementRequest, departure: Departure, budget: MoveBudget, *, price: float
    ) -> Tensor:
        """Return a placement within a budget, see `ImprovingPolicy.improve`."""
        prediction = request.prediction or Prediction.of_window(request.load)
        terrain = Terrain.of(prediction, request.topology, departure.home)
        effort = self._effort(request, price=price, deadline_s=self._deadline_s())
        return search_moves(terrain, departure.start, departure.origin, budget, effort)

    def peaks(self, request: PlacementRequest, phy2log: Tensor) -> Tensor:
        """Return each layer's worst rank by mean + risk * deviation, see `ImprovingPolicy`."""
        prediction = request.prediction or Prediction.of_window(request.load)
        terrain = Terrain.of(prediction, request.topology, None)
        return terrain.peaks(phy2log, self._risk(request))

    def _risk(self, request: PlacementRequest) -> float:
        return self.params.risk * expected_maximum(request.topology.num_ranks)

    def _deadline_s(self) -> float | None:
        limit_s = self.params.time_limit_s
        return time.perf_counter() + limit_s if limit_s else None

    def _effort(
        self, request: PlacementRequest, *, price: float = 0.0, deadline_s: float | None
    ) -> Effort:
        params, topology = self.params, request.topology
        most = request.rules.max_replicas_per_expert or topology.num_ranks
        return Effort(
            risk=self._risk(request),
            max_steps=params.max_swaps,
            max_count=min(most, topology.num_ranks),
            tolerance=max(params.tolerance, _NOISE),
            price=price,
            deadline_s=deadline_s,
        )


def _homes(phy2log: Tensor, request: PlacementRequest) -> Tensor | None:
    if not request.mode.is_by_node:
        return None
    placement = Placement(phy2log, request.load.num_logical_experts, request.topology)
    return home_of_experts(placement, request.num_expert_groups)


def _pack_groups(
    weight: Tensor, group: Tensor, topology: Topology, params: RobustParams
) -> Packing:
    """Return expert groups packed to nodes, each by the sum of its ranks' capacities."""
    per_node = topology.ranks_per_node
    starts = range(0, topology.num_ranks, per_node)
    nodes = [sum(topology.capacities[start : start + per_node]) for start in starts]
    if len({*nodes}) == 1:
        return pack_distinct(
            weight,
            group,
            topology.num_nodes,
            max_swaps=params.max_swaps,
            tolerance=params.tolerance,
        )
    return pack_by_risk(
        weight,
        weight.new_zeros(*weight.shape, weight.shape[1]),
        weight,
        group,
        _slowness(torch.tensor([nodes], dtype=torch.float64), weight),
        risk=0.0,
        max_swaps=params.max_swaps,
        tolerance=params.tolerance,
    )


def _slowness(capacity: Tensor, weight: Tensor) -> Tensor:
    """Return the slowness of each pack of each row, where all layers have the same machine."""
    # On the host first, so that it does not depend on the device.
    slowness = relative_slowness(capacity).repeat(len(weight) // len(capacity), 1)
    return slowness.to(weight.device)
