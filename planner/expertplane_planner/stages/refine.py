"""Refinement: better packings by swapping items between packs.

Every search starts from a packing and swaps at most one pair of items per row and step. A row
that has nothing left to swap stays as it is for the remaining steps: to stop early the host would
have to wait for the device. Ties go to the lowest index; in `refine_half_gap`, of equally good
swaps, to the one of the lightest item given. Inputs are not mutated.

Legend: H heaviest packs looked at, M packs, K places per pack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .pack import Packing


if TYPE_CHECKING:
    from torch import Tensor


_NEGLIGIBLE_GAP = 1e-6
"""Tokens; loads this close count as equal."""


def refine_half_gap(
    weight: Tensor, packing: Packing, num_packs: int, *, num_steps: int, num_heaviest: int
) -> Packing:
    """Return a packing whose heaviest packs have given load to the lightest that could take it.

    Each step goes through the heaviest packs, heaviest first, and through their partners, lightest
    first, to the first pair of packs with a swap that narrows their gap: of its swaps with
    0 < difference < gap it takes the one whose difference is nearest to half the gap.

    Takes num_steps steps, each O(num_rows * H * M * K * log K).

    Args:
        weight: [num_rows, num_items] floating point, load per item.
        packing: Where to start.
        num_packs: Packs per row, divides num_items.
        num_steps: Swaps per row, at most.
        num_heaviest: Heaviest packs that each step looks at.
    """
    if num_packs == 1:
        return packing
    contents = packing.contents(num_packs)
    for _ in range(num_steps):
        contents = _half_gap_step(weight, contents, num_packs, num_heaviest)
    return Packing.from_contents(contents, num_packs)


def refine_squares(weight: Tensor, packing: Packing, num_packs: int, *, num_steps: int) -> Packing:
    """Return a packing with a smaller sum of squared pack loads.

    Each step makes the swap between the heaviest and the lightest pack that lowers the sum of
    squares most, where one lowers it by more than 1e-5.

    Takes num_steps steps, each O(num_rows * K^2).

    Args:
        weight: [num_rows, num_items] floating point, load per item.
        packing: Where to start.
        num_packs: Packs per row, divides num_items.
        num_steps: Swaps per row, at most.
    """
    contents = packing.contents(num_packs)
    for _ in range(num_steps):
        heavy, light, gap, difference = _extremes(weight, contents, num_packs)
        change = 2 * difference * (difference - gap.unsqueeze(2))
        best, pair = change.flatten(1).min(dim=1, keepdim=True)
        contents = _swapped(contents, heavy, light, pair, best < -1e-5, num_packs)
    return Packing.from_contents(contents, num_packs)


def refine_gap(weight: Tensor, packing: Packing, num_packs: int, *, num_steps: int) -> Packing:
    """Return a packing whose heaviest and lightest packs are closer together.

    Each step makes the swap between the heaviest and the lightest pack that leaves the smallest
    gap between the two, where one narrows it by more than 1e-9.

    Takes num_steps steps, each O(num_rows * K^2).

    Args:
        weight: [num_rows, num_items] floating point, load per item.
        packing: Where to start.
        num_packs: Packs per row, divides num_items.
        num_steps: Swaps per row, at most.
    """
    contents = packing.contents(num_packs)
    for _ in range(num_steps):
        heavy, light, gap, difference = _extremes(weight, contents, num_packs)
        new_gap = (gap.unsqueeze(2) - 2 * difference).abs()
        best, pair = new_gap.flatten(1).min(dim=1, keepdim=True)
        contents = _swapped(contents, heavy, light, pair, best < gap - 1e-9, num_packs)
    return Packing.from_contents(contents, num_packs)


def refine_peak(weight: Tensor, packing: Packing, num_packs: int, *, num_steps: int) -> Packing:
    """Return a packing with a lower heaviest pack.

    Each step makes the swap between the heaviest pack and any other that lowers the heavier of
    the two most, where one lowers it by more than 1e-6. Items inside a pack end up heaviest first.

    Takes num_steps steps, each O(num_rows * num_items * K).

    Args:
        weight: [num_rows, num_items] floating point, load per item.
        packing: Where to start.
        num_packs: Packs per row, divides num_items.
        num_steps: Swaps per row, at most.
    """
    # In order of weight, so that the first of equally good swaps is one of the heaviest items.
    descending, order = weight.sort(dim=1, descending=True, stable=True)
    pack = packing.pack.gather(1, order)
    for _ in range(num_steps):
        pack = _peak_step(descending, pack, num_packs)
    contents = order.gather(1, pack.argsort(dim=1, stable=True))
    return Packing.from_contents(contents, num_packs)


def _extremes(
    weight: Tensor, contents: Tensor, num_packs: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the heaviest and the lightest pack, their gap, and what each swap would move.

    Returns:
        heavy [num_rows, 1] int64, light [num_rows, 1] int64, gap [num_rows, 1], and difference
        [num_rows, K, K], weight of an item of the heavy pack minus that of one of the light pack.
    """
    held = weight.gather(1, contents).view(len(weight), num_packs, -1)
    load = held.sum(dim=2)
    heavy_load, heavy = load.max(dim=1, keepdim=True)
    light_load, light = load.min(dim=1, keepdim=True)
    difference = _items_of(held, heavy).unsqueeze(2) - _items_of(held, light).unsqueeze(1)
    return heavy, light, heavy_load - light_load, difference


def _half_gap_step(weight: Tensor, contents: Tensor, num_packs: int, num_heaviest: int) -> Tensor:
    """Return the contents after one step of `refine_half_gap`, [num_rows, num_items] int64."""
    num_rows = len(weight)
    held = weight.gather(1, contents).view(num_rows, num_packs, -1)
    # Sorted inside each pack, the nearest item to any target is one of two neighbours.
    held, place = held.sort(dim=2, stable=True)
    contents = contents.view(num_rows, num_packs, -1).gather(2, place)
    capacity = held.shape[2]
    load = held.sum(dim=2)

    heavies = load.argsort(dim=1, descending=True, stable=True)[:, :num_heaviest]
    gap = load.gather(1, heavies).unsqueeze(2) - load.unsqueeze(1)  # [rows, H, M]
    given = _items_of(held, heavies)  # [rows, H * K]
    # [rows, M, H * K]: the item whose return for `given` would leave both packs equal.
    ideal = given.unsqueeze(1) - gap.transpose(1, 2).repeat_interleave(capacity, dim=2) / 2
    above = torch.searchsorted(held, ideal).clamp_(max=capacity - 1)
    neighbours = torch.stack([above, (above - 1).clamp_(min=0)], dim=3)  # [rows, M, H * K, 2]
    taken = held.gather(2, neighbours.flatten(2)).view_as(neighbours)
    # [rows, H, M, K * 2] from here on.
    by_heavy = (num_rows, num_packs, heavies.shape[1], capacity, 2)
    difference = (given.view(num_rows, 1, -1, 1) - taken).view(by_heavy).transpose(1, 2).flatten(3)
    width = gap.unsqueeze(3)
    fits = (difference > 0) & (difference < width) & (width >= _NEGLIGIBLE_GAP)
    miss = (difference - width / 2).abs().masked_fill_(~fits, torch.inf)
    least_miss, choice = miss.min(dim=3)  # [rows, H, M]

    partner_load = load.unsqueeze(1).expand_as(gap).masked_fill(least_miss.isinf(), torch.inf)
    lightest, partner = partner_load.min(dim=2)  # [rows, H]
    is_found = lightest.isfinite()
    turn = is_found.to(torch.int8).argmax(dim=1, keepdim=True)  # the first that found a partner
    heavy, partner = heavies.gather(1, turn), partner.gather(1, turn)
    choice = choice.flatten(1).gather(1, turn * num_packs + partner)
    flat_neighbours = neighbours.view(by_heavy).transpose(1, 2).flatten(1)
    index = (turn * num_packs + partner) * (2 * capacity) + choice
    pair = choice // 2 * capacity + flat_neighbours.gather(1, index)
    is_better = is_found.gather(1, turn)
    return _swapped(contents.flatten(1), heavy, partner, pair, is_better, num_packs)


def _peak_step(descending: Tensor, pack: Tensor, num_packs: int) -> Tensor:
    """Return the pack of each item after one step of `refine_peak`, [num_rows, num_items]."""
    num_items = pack.shape[1]
    capacity = num_items // num_packs
    # Gathered and summed, since scatter-add on CUDA adds in no fixed order.
    held = descending.gather(1, pack.argsort(dim=1, stable=True))
    load = held.view(len(pack), num_packs, capacity).sum(dim=2)
    peak, heavy = load.max(dim=1, keepdim=True)
    is_heavy = pack == heavy
    given = is_heavy.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :capacity]
    difference = descending.gather(1, given).unsqueeze(2) - descending.unsqueeze(1)
    room = (peak - load.gather(1, pack)).unsqueeze(1) - difference
    is_swap = (difference > 0) & ~is_heavy.unsqueeze(1)
    gain = torch.minimum(difference, room).masked_fill_(~is_swap, -torch.inf)
    best, pair = gain.flatten(1).max(dim=1, keepdim=True)
    positions = torch.cat([given.gather(1, pair // num_items), pair % num_items], dim=1)
    packs = pack.gather(1, positions)
    return pack.scatter(1, positions, torch.where(best > _NEGLIGIBLE_GAP, packs.flip(1), packs))


def _items_of(held: Tensor, packs: Tensor) -> Tensor:
    """Return what some packs hold, pack by pack, [num_rows, num chosen packs * K].

    Args:
        held: [num_rows, M, K], anything about the items of each pack.
        packs: [num_rows, num chosen packs] int64.
    """
    return held.gather(1, packs.unsqueeze(2).expand(-1, -1, held.shape[2])).flatten(1)


def _swapped(
    contents: Tensor,
    first: Tensor,
    second: Tensor,
    pair: Tensor,
    is_better: Tensor,
    num_packs: int,
) -> Tensor:
    """Return the contents with one item of one pack and one of another exchanged.

    Args:
        contents: [num_rows, num_items] int64.
        first: [num_rows, 1] int64, a pack.
        second: [num_rows, 1] int64, another pack.
        pair: [num_rows, 1] int64, K * place in the first + place in the second.
        is_better: [num_rows, 1] bool, rows to do this in.
        num_packs: Packs per row.
    """
    capacity = contents.shape[1] // num_packs
    positions = torch.cat(
        [first * capacity + pair // capacity, second * capacity + pair % capacity], dim=1
    )
    items = contents.gather(1, positions)
    return contents.scatter(1, positions, torch.where(is_better, items.flip(1), items))
