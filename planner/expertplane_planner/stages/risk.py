"""Packing for a load that is not known yet, only what to expect of it."""

from __future__ import annotations

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
    num_packs: int,
    *,
    risk: float,
    max_swaps: int,
    tolerance: float,
) -> Packing:
    """Return a packing whose worst pack, by mean + risk * standard deviation, is good.

    Greedy by descending weight among the packs that lack the expert, then swaps that lower the
    worst pack; see `kernels.pack_by_risk` for the rules. Does not mutate its input.

    Args:
        mean: [num_layers, num_experts] float64, expected tokens, or shares of them.
        covariance: [num_layers, num_experts, num_experts] float32 or float64 of the same.
        weight: [num_rows, num_items] floating point, what items are ordered by.
        expert: [num_rows, num_items] int64, logical expert of each item; equally many rows a
            layer, layer by layer, together all replicas of the layer.
        num_packs: Packs per row, divides num_items.
        risk: Standard deviations that count, at least 0.
        max_swaps: Swaps per row, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.
    """
    of_layer = expert.reshape(len(mean), -1)
    counts = torch.zeros_like(mean, dtype=torch.int64)
    counts = counts.scatter_add(1, of_layer, torch.ones_like(of_layer))
    held = kernels.pack_by_risk(
        mean,
        covariance,
        # An expert without replicas is in no row; its share is never asked for.
        counts.clamp(min=1),
        expert,
        weight,
        num_packs,
        risk=risk,
        max_swaps=max_swaps,
        tolerance=tolerance,
    )
    # Replicas of an expert are alike: which of them lies where is settled in order of the items.
    contents = torch.empty_like(held).scatter_(
        1, held.argsort(dim=1, stable=True), expert.argsort(dim=1, stable=True)
    )
    return Packing.from_contents(contents, num_packs)
