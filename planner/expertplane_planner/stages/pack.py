"""Packing: share weighted items out to equally many places in every pack."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch


if TYPE_CHECKING:
    from torch import Tensor


class Packing(NamedTuple):
    """Where each item of every row went."""

    pack: Tensor
    """[num_rows, num_items] int64, pack of each item."""

    place: Tensor
    """[num_rows, num_items] int64, place inside the pack, in order of arrival from 0."""


def pack_lpt(weight: Tensor, num_packs: int) -> Packing:
    """Return a packing with evenly loaded packs of num_items / num_packs items each.

    Longest processing time first: items by descending weight, each into the least loaded pack
    that has a place left. Equal weights go by item index, equal packs by pack index. With one
    place per pack nothing can be balanced and item i stays in pack i.

    Takes num_items steps, each O(num_rows * num_packs). Does not mutate its input.

    Args:
        weight: [num_rows, num_items] floating point, load per item, finite and non-negative. Pack
            loads add up in this dtype.
        num_packs: Packs per row, divides num_items.
    """
    num_rows, num_items = weight.shape
    assert weight.is_floating_point()
    assert num_items % num_packs == 0
    capacity = num_items // num_packs
    if capacity == 1:
        pack = torch.arange(num_items, device=weight.device).repeat(num_rows, 1)
        return Packing(pack, torch.zeros_like(pack))

    descending, order = weight.sort(dim=1, descending=True, stable=True)
    pack_load = weight.new_zeros(num_rows, num_packs)
    num_filled = torch.zeros_like(pack_load, dtype=torch.int64)
    packs, places = [], []
    for item_weight in descending.unsqueeze(2).unbind(1):
        load, pack = pack_load.min(dim=1, keepdim=True)
        place = num_filled.gather(1, pack)
        packs.append(pack)
        places.append(place)
        num_filled.scatter_(1, pack, place + 1)
        # A full pack weighs infinitely much, so that it is never the lightest again.
        load = (load + item_weight).masked_fill_(place == capacity - 1, torch.inf)
        pack_load.scatter_(1, pack, load)
    return Packing(
        torch.empty_like(order).scatter_(1, order, torch.cat(packs, dim=1)),
        torch.empty_like(order).scatter_(1, order, torch.cat(places, dim=1)),
    )
