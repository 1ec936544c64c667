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
from expertplane_planner.kernels import num_idle_starts
from expertplane_planner.migration.search import (
    Effort,
    SearchTask,
    Terrain,
    search_all,
    search_moves,
)
from expertplane_planner.model.budget import MoveBudget
from expertplane_planner.model.homes import home_of_experts
from expertplane_planner.model.placement import Placement
from expertplane_planner.stages.distinct import pack_distinct
from expertplane_planner.stages.fill import Uncertainty, diverse_starts, fill_by_risk
from expertplane_planner.stages.replicate import max_copies
from expertplane_planner.stages.risk import (
    expected_maximum,
    pack_by_risk,
    relative_slowness,
)

from .base import Improvement, check_params
from .pipeline import Pipeline


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from expertplane_planner.kernels import Starts
    from expertplane_planner.model.topology import Topology
    from expertplane_planner.stages.pack import Packing

    from .base import Departure, PlacementRequest


_MAX_STARTS = 64
"""They are packed side by side: memory grows with them, and what they gain hardly does."""
_MAX_IDLE_STARTS = 16

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

    num_starts: int = 0
    """Packings that are tried per row, of which the best by the objective is taken. 0 is as many
    as the device has idle multiprocessors for, up to 16: 1 on a CPU, and fewer where more layers
    or deployments are planned at a time. At most 64."""

    noise: float = 0.05
    """All starts but the first order replicas by load times a factor in [1 - noise, 1 + noise);
    at most 1."""

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
                "num_starts": 0,
                "noise": 0.0,
                "time_limit_s": 0.0,
            },
            highest={"num_starts": _MAX_STARTS, "noise": 1.0},
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

    @property
    def plans_layers_alone(self) -> bool:
        """Whether no layer's plan depends on other layers, see `Policy`; time is shared."""
        return not self.params.time_limit_s

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

        def fill(weight: Tensor, expert: Tensor, num_slots: int, num_packs: int) -> Tensor:
            bound = max_copies(weight.shape[1], num_slots, num_packs)
            return fill_by_risk(
                Uncertainty(mean, covariance),
                weight,
                expert,
                _slowness(capacity.view(-1, num_packs), weight),
                self._starts(request, len(weight), num_slots, num_packs),
                risk=self._risk(request),
                max_count=bound if most is None else min(bound, most),
                max_swaps=max_swaps,
                tolerance=params.tolerance,
            )

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

        pipeline = Pipeline(pack_groups=pack_groups, pack=pack, fill=fill, dtype=torch.float64)
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
        case = Improvement(request=request, departure=departure, budget=budget, price=price)
        return self.improve_all([case])[0]

    def improve_all(self, cases: Sequence[Improvement]) -> list[Tensor]:
        """Return a placement for each, see `JointlyImprovingPolicy.improve_all`."""
        if self.params.time_limit_s:  # of each
            return [search_all([self._task(case)])[0] for case in cases]
        return search_all([self._task(case) for case in cases])

    def peaks(self, request: PlacementRequest, phy2log: Tensor) -> Tensor:
        """Return each layer's worst rank by mean + risk * deviation, see `ImprovingPolicy`."""
        prediction = request.prediction or Prediction.of_window(request.load)
        terrain = Terrain.of(prediction, request.topology, None)
        return terrain.peaks(phy2log, self._risk(request))

    def _task(self, case: Improvement) -> SearchTask:
        request, departure = case.request, case.departure
        prediction = request.prediction or Prediction.of_window(request.load)
        return SearchTask(
            Terrain.of(prediction, request.topology, departure.home),
            departure.start,
            departure.origin,
            case.budget,
            self._effort(request, price=case.price, deadline_s=self._deadline_s()),
        )

    def _starts(
        self, request: PlacementRequest, num_rows: int, num_slots: int, num_packs: int
    ) -> Starts:
        device, num_experts = request.load.samples.device, request.load.num_logical_experts
        num_idle = num_idle_starts(device, num_rows, num_experts, num_slots, num_packs)
        num_starts = self.params.num_starts or min(num_idle, _MAX_IDLE_STARTS)
        return diverse_starts(
            num_starts,
            num_slots,
            risk=self._risk(request),
            spread=self.params.noise,
            seed=request.seed,
            like=request.load.samples,
        )

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
    return slowness.to(weight.device, non_blocking=True)
