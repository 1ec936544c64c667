"""Packing for a load that is not known yet, only what to expect of it."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import torch

from expertplane_planner import kernels

from .pack import Packing


if TYPE_CHECKING:
    from torch import Tensor


def pack_by_risk(
    mean: Tensor,
    covariance: Tensor,
    weight: Tensor,
    expert: Tensor,
    slowness: Tensor,
    *,
    risk: float,
    max_swaps: int,
    tolerance: float,
) -> Packing:
    """Return a packing whose worst pack, by (mean + risk * deviation) * slowness, is good.

    Greedy by descending weight among the packs that lack the expert, then swaps that lower the
    worst pack; see `kernels.pack_by_risk` for the rules. Does not mutate its input.

    Args:
        mean: [num_layers, num_experts] float64, expected tokens, or shares of them.
        covariance: [num_layers, num_experts, num_experts] float32 or float64 of the same.
        weight: [num_rows, num_items] floating point, what items are ordered by.
        expert: [num_rows, num_items] int64, logical expert of each item; equally many rows a
            layer, layer by layer, together all replicas of the layer.
        slowness: [num_rows, num_packs] float64, as from `relative_slowness`; num_packs divides
            num_items.
        risk: Standard deviations that count, at least 0.
        max_swaps: Swaps per row, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.
    """
    of_layer = expert.reshape(len(mean), -1)
    counts = torch.zeros_like(mean, dtype=torch.int64)
    counts = counts.scatter_add(1, of_layer, torch.ones_like(of_layer))
    held, _ = kernels.pack_by_risk(
        mean,
        covariance,
        # An expert without replicas is in no row; its share is never asked for.
        counts.clamp(min=1),
        expert,
        weight,
        slowness,
        slowness.new_full((len(expert),), risk),
        risk=risk,
        max_swaps=max_swaps,
        tolerance=tolerance,
    )
    # Replicas of an expert are alike: which of them lies where is settled in order of the items.
    contents = torch.empty_like(held).scatter_(
        1, held.argsort(dim=1, stable=True), expert.argsort(dim=1, stable=True)
    )
    return Packing.from_contents(contents, slowness.shape[1])


def relative_slowness(capacity: Tensor) -> Tensor:
    """Return the mean capacity of each row over each capacity.

    So the load of a pack in proportion to its capacity, times its slowness, is the mean load; and
    where all capacities of a row are equal, its slowness is exactly 1.

    Args:
        capacity: [num_rows, num_packs] float64, above 0.
    """
    ratio = capacity / capacity[:, :1]
    return ratio.sum(dim=1, keepdim=True) / ratio.shape[1] / ratio


def expected_maximum(count: int) -> float:
    """Return the expected maximum of `count` standard normal numbers, by Blom's formula.

    Source: G. Blom, Statistical Estimates and Transformed Beta-Variables, 1958.
    """
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))
