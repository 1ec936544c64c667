"""Filling packs: replicas for the items that need them, and all of them packed.

One kernel where the device has one, `kernels.fuses`; else a replication and a packing, with the
same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from expertplane_planner import kernels
from expertplane_planner.kernels import Starts

from .distinct import pack_distinct
from .replicate import replicate_greedy


if TYPE_CHECKING:
    from torch import Tensor


def fill_distinct(
    weight: Tensor,
    expert: Tensor,
    num_slots: int,
    num_packs: int,
    *,
    max_count: int,
    max_swaps: int,
    tolerance: float,
) -> Tensor:
    """Return which expert each slot holds: `replicate_greedy`, then `pack_distinct`.

    Args:
        weight: [num_rows, num_experts] float64, load per expert.
        expert: [num_rows, num_experts] int64, logical ids of the experts of each row.
        num_slots: Replicas per row, at least num_experts.
        num_packs: Packs per row, divides num_slots.
        max_count: Replicas per expert, at most; enough for all slots.
        max_swaps: Swaps per row, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.

    Returns:
        [num_rows, num_slots] int64, logical ids, pack by pack.
    """
    search: dict[str, Any] = {"max_swaps": max_swaps, "tolerance": tolerance}
    if kernels.fuses(weight.device, weight.shape[1], num_slots, num_packs):
        return kernels.fill_distinct(
            weight, expert, num_slots, num_packs, max_count=max_count, **search
        )
    replicas = replicate_greedy(weight, num_slots, max_count=max_count)
    held = expert.gather(1, replicas.item)
    packing = pack_distinct(replicas.load(weight), held, num_packs, **search)
    return held.gather(1, packing.contents(num_packs))


class Uncertainty(NamedTuple):
    """What is known of the experts of each layer."""

    mean: Tensor
    """[num_layers, num_experts] float64, expected tokens, or shares of them."""

    covariance: Tensor
    """[num_layers, num_experts, num_experts] float32 or float64 of the same."""


def fill_by_risk(
    known: Uncertainty,
    weight: Tensor,
    expert: Tensor,
    slowness: Tensor,
    starts: Starts,
    *,
    risk: float,
    max_count: int,
    max_swaps: int,
    tolerance: float,
) -> Tensor:
    """Return which expert each slot holds, of several packings the one whose worst pack is best.

    `replicate_greedy`, then `pack_by_risk` from each start; of equally good ones the first.

    Args:
        known: What to expect.
        weight: [num_rows, num_items] float64, what replicas are given by.
        expert: [num_rows, num_items] int64, logical ids; equally many rows a layer, layer by
            layer, none of which share an expert.
        slowness: [num_rows, num_packs] float64, as from `relative_slowness`.
        starts: Where to start, for all slots of a row; num_packs divides their number.
        risk: Standard deviations that count, at least 0.
        max_count: Replicas per expert, at most; enough for all slots.
        max_swaps: Swaps per packing, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.

    Returns:
        [num_rows, num_slots] int64, logical ids, pack by pack.
    """
    num_starts, num_slots = starts.noise.shape
    num_experts, num_packs = known.mean.shape[1], slowness.shape[1]
    search: dict[str, Any] = {"risk": risk, "max_swaps": max_swaps, "tolerance": tolerance}
    if kernels.fuses(weight.device, num_experts, num_slots, num_packs):
        held, peak = kernels.fill_by_risk(
            *known, weight, expert, slowness, starts, max_count=max_count, **search
        )
    else:
        replicas = replicate_greedy(weight, num_slots, max_count=max_count)
        key = replicas.load(weight).unsqueeze(1) * starts.noise
        counts = torch.ones_like(known.mean, dtype=torch.int64)
        of_layer = expert.reshape(len(counts), -1)
        counts.scatter_(1, of_layer, replicas.counts.view_as(of_layer))
        held, peak = kernels.pack_by_risk(
            *known,
            counts,
            expert.gather(1, replicas.item).repeat_interleave(num_starts, dim=0),
            key.flatten(0, 1),
            slowness.repeat_interleave(num_starts, dim=0),
            starts.greedy_risk.repeat(len(weight)),
            **search,
        )
    best = peak.view(-1, num_starts).argmin(dim=1)
    row = torch.arange(len(best), device=best.device) * num_starts + best
    return held[row]


def diverse_starts(
    num_starts: int, num_slots: int, *, risk: float, spread: float, seed: int, like: Tensor
) -> Starts:
    """Return starts that lead to different packings; the first is that of `pack_by_risk` alone.

    The others order replicas by their load times a factor in [1 - spread, 1 + spread), and weigh
    the risk by something between 0 and twice as much until all are packed. Drawn on the host, so
    that a seed means the same on every device, and the same for every row.

    Args:
        num_starts: At least 1.
        num_slots: Slots of a row.
        risk: Standard deviations that count in the end.
        spread: At most 1.
        seed: Of the noise.
        like: A tensor on the device where starts are wanted.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(num_starts, num_slots, generator=generator, dtype=torch.float64)
    noise = 1.0 + spread * (2.0 * noise - 1.0)
    noise[0] = 1.0
    greedy_risk = torch.linspace(0.0, 2.0 * risk, max(1, num_starts - 1), dtype=torch.float64)
    greedy_risk = torch.cat([torch.full((1,), risk, dtype=torch.float64), greedy_risk])
    # Not to wait until the device has done all that it was given so far.
    return Starts(
        *(part.to(like.device, non_blocking=True) for part in (noise, greedy_risk[:num_starts]))
    )
