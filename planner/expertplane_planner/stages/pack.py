"""Packing: share weighted items out to equally many places in every pack."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from .permutation import inverse_permutation


if TYPE_CHECKING:
    from torch import Tensor


class Packing(NamedTuple):
    """Where each item of every row went; all packs have num_items / num_packs places."""

    pack: Tensor
    """[num_rows, num_items] int64, pack of each item."""

    place: Tensor
    """[num_rows, num_items] int64, place inside the pack, from 0."""

    def contents(self, num_packs: int) -> Tensor:
        """Return the items pack by pack and place by place, [num_rows, num_items] int64."""
        capacity = self.pack.shape[1] // num_packs
        return inverse_permutation(self.pack * capacity + self.place)

    @classmethod
    def from_contents(cls, contents: Tensor, num_packs: int) -> Packing:
        """Return the packing whose `contents` these are, [num_rows, num_items] int64."""
        capacity = contents.shape[1] // num_packs
        position = inverse_permutation(contents)
        return cls(position // capacity, position % capacity)


def pack_lpt(weight: Tensor, num_packs: int, *, order_by: Tensor | None = None) -> Packing:
    """Return a packing with evenly loaded packs of num_items / num_packs items each.

    Longest processing time first: items by descending weight, each into the least loaded pack
    that has a place left. Equal weights go by item index, equal packs by pack index, and places
    fill in order of arrival. With one place per pack nothing can be balanced and item i stays in
    pack i.

    Takes num_items steps, each O(num_rows * num_packs). Does not mutate its input.

    Args:
        weight: [num_rows, num_items] floating point, load per item, finite and non-negative. Pack
            loads add up in this dtype.
        num_packs: Packs per row, divides num_items.
        order_by: [num_rows, num_items], what to sort by, descending, in place of the weight.
    """
    num_rows, num_items = weight.shape
    assert weight.is_floating_point()
    assert num_items % num_packs == 0
    capacity = num_items // num_packs
    if capacity == 1:
        pack = torch.arange(num_items, device=weight.device).repeat(num_rows, 1)
        return Packing(pack, torch.zeros_like(pack))

    order = (weight if order_by is None else order_by).argsort(dim=1, descending=True, stable=True)
    pack_load = weight.new_zeros(num_rows, num_packs)
    num_filled = torch.zeros_like(pack_load, dtype=torch.int64)
    packs, places = [], []
    for item_weight in weight.gather(1, order).unsqueeze(2).unbind(1):
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


def pack_load(weight: Tensor, packing: Packing, num_packs: int) -> Tensor:
    """Return the load of every pack, its items summed place by place.

    Args:
        weight: [num_rows, num_items], load per item.
        packing: Where the items are.
        num_packs: Packs per row, divides num_items.

    Returns:
        [num_rows, num_packs], in the dtype of the weight.
    """
    held = weight.gather(1, packing.contents(num_packs))
    return held.view(len(weight), num_packs, -1).sum(dim=2)
