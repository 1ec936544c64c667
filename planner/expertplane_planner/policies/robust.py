"""Robust: even in the steps to come, not only on the load that has been.

A step waits for its most loaded rank, and the load of a step to come is known up to a mean and a
covariance. For R ranks of roughly normal load the expected maximum is about mean + z * standard
deviation, with z the expected maximum of R standard normal numbers; so the policy minimises the
largest mean + risk * deviation of a rank, and gives replicas to experts by their mean +
replication_risk * deviation: what is uncertain deserves them as well as what is hot.

Source: our own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch

from expertplane_planner.forecast import Prediction
from expertplane_planner.stages.distinct import pack_distinct
from expertplane_planner.stages.replicate import Replication, max_copies, replicate_greedy
from expertplane_planner.stages.risk import pack_by_risk

from .base import check_params
from .pipeline import Pipeline


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.stages.pack import Packing

    from .base import PlacementRequest


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
    """Swaps that refine each packing, at most."""

    tolerance: float = 1e-5
    """Smallest gain of a swap, as a share of the mean rank load."""

    def __post_init__(self) -> None:
        check_params(
            self, lowest={"risk": 0.0, "replication_risk": 0.0, "max_swaps": 0, "tolerance": 0.0}
        )


@dataclass(frozen=True, slots=True)
class RobustPolicy:
    """Plans on what to expect of the next window, and how far it may be off."""

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
        params = self.params
        prediction = request.prediction or Prediction.of_window(request.load)
        mean, covariance = prediction.mean, prediction.dense_covariance()
        deviation = prediction.variance().to(torch.float64).clamp(min=0.0).sqrt()
        risk = params.risk * expected_maximum(request.topology.num_ranks)

        def pack_groups(weight: Tensor, group: Tensor, num_packs: int) -> Packing:
            return pack_distinct(
                weight, group, num_packs, max_swaps=params.max_swaps, tolerance=params.tolerance
            )

        def pack(weight: Tensor, expert: Tensor, num_packs: int) -> Packing:
            return pack_by_risk(
                mean,
                covariance,
                weight,
                expert,
                num_packs,
                risk=risk,
                max_swaps=params.max_swaps,
                tolerance=params.tolerance,
            )

        pipeline = Pipeline(
            pack_groups=pack_groups, replicate=_replicate, pack=pack, dtype=torch.float64
        )
        return pipeline.place(request, mean + params.replication_risk * deviation)


def expected_maximum(count: int) -> float:
    """Return the expected maximum of `count` standard normal numbers, by Blom's formula.

    Source: G. Blom, Statistical Estimates and Transformed Beta-Variables, 1958.
    """
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def _replicate(weight: Tensor, num_replicas: int, num_packs: int) -> Replication:
    bound = max_copies(weight.shape[1], num_replicas, num_packs)
    return replicate_greedy(weight, num_replicas, max_count=bound)
