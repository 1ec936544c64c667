"""Packing with at most one copy of an item in each pack, refined by swaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_planner import kernels

from .pack import Packing


if TYPE_CHECKING:
    from torch import Tensor


def pack_distinct(
    weight: Tensor, kind: Tensor, num_packs: int, *, max_swaps: int, tolerance: float
) -> Packing:
    """Return an even packing in which no pack holds two items of a kind, if that can be.

    Longest processing time first among the packs that lack the kind, then swaps that lower the
    heaviest pack; see `kernels.pack_distinct` for the rules. It can be where no kind has more than
    num_packs items. Does not mutate its input.

    Args:
        weight: [num_rows, num_items] float64, load per item, finite and non-negative.
        kind: [num_rows, num_items] int64, items of one kind are copies of each other.
        num_packs: Packs per row, divides num_items.
        max_swaps: Swaps per row, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.
    """
    assert weight.shape[1] % num_packs == 0
    contents = kernels.pack_distinct(
        weight, kind, num_packs, max_swaps=max_swaps, tolerance=tolerance
    )
    return Packing.from_contents(contents, num_packs)
