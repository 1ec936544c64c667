"""Candidates: several packings of each row, of which the best is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .pack import Packing, pack_load, pack_lpt


if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def pack_best_start(
    weight: Tensor,
    num_packs: int,
    *,
    keys: Tensor,
    refine: Callable[[Tensor, Packing, int], Packing],
    score: Callable[[Tensor], Tensor],
) -> Packing:
    """Return for each row the best of several greedy packings, each refined.

    Args:
        weight: [num_rows, num_items] floating point, load per item. Not mutated.
        num_packs: Packs per row, divides num_items.
        keys: [num_rows * num_candidates, num_items], what each greedy packing orders items by, see
            `noisy_keys`.
        refine: Takes weight, packing and num_packs of all candidates and returns better packings.
        score: Takes the loads of the packs, [num_rows * num_candidates, num_packs], and returns
            one number a candidate, the lower the better.
    """
    num_candidates = len(keys) // len(weight)
    weight = weight.repeat_interleave(num_candidates, dim=0)
    packing = refine(weight, pack_lpt(weight, num_packs, order_by=keys), num_packs)
    return keep_best(packing, score(pack_load(weight, packing, num_packs)), num_candidates)


def noisy_keys(
    weight: Tensor, *, num_candidates: int, seed: int, low: float, high: float
) -> Tensor:
    """Return each row several times, all but the first time under multiplicative noise.

    The factors are uniform in [low, high) and drawn on the host, so that a seed means the same on
    every device.

    Args:
        weight: [num_rows, num_items] floating point. Not mutated.
        num_candidates: Times that each row is repeated.
        seed: Seed of the noise.
        low: Smallest factor.
        high: Largest factor.

    Returns:
        [num_rows * num_candidates, num_items], the candidates of a row next to each other.
    """
    generator = torch.Generator().manual_seed(seed)
    num_rows, num_items = weight.shape
    noise = torch.rand(num_rows, num_candidates, num_items, generator=generator)
    factor = low + (high - low) * noise
    factor[:, 0] = 1.0
    return (weight.unsqueeze(1) * factor.to(weight)).flatten(0, 1)


def keep_best(packing: Packing, score: Tensor, num_candidates: int) -> Packing:
    """Return for each row the packing of its best candidate, the first of equally good ones.

    Args:
        packing: Packings of [num_rows * num_candidates, num_items].
        score: [num_rows * num_candidates], the lower the better.
        num_candidates: Candidates per row, next to each other.
    """
    best = score.view(-1, num_candidates).argmin(dim=1)
    row = torch.arange(len(best), device=best.device) * num_candidates + best
    return Packing(packing.pack[row], packing.place[row])
