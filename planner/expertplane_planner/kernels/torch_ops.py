"""Kernels in torch operations: the same steps on any device, for all rows at once.

Nothing waits for the device, so that every row takes part in every step, also when it has nothing
left to do.

Legend: E items, N replicas, M packs, K places per pack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from torch import Tensor


def grant_replicas(
    weight: Tensor, counts: Tensor, num_more: int, *, slope: int, max_count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """See `expertplane_planner.kernels.grant_replicas`."""
    items, replica_ranks = [counts[:, :0]], [counts[:, :0]]
    counts = counts.clone()
    quotient = weight / (slope * counts - (slope - 1))
    quotient.masked_fill_(counts >= max_count, -1.0)
    for _ in range(num_more):
        largest = quotient.argmax(dim=1, keepdim=True)
        count = counts.gather(1, largest)
        items.append(largest)
        replica_ranks.append(count)
        # Only one quotient per row changes, and it is the same as if all were divided afresh.
        count = count + 1
        counts.scatter_(1, largest, count)
        changed = weight.gather(1, largest) / (slope * count - (slope - 1))
        quotient.scatter_(1, largest, changed.masked_fill_(count >= max_count, -1.0))
    return torch.cat(items, dim=1), torch.cat(replica_ranks, dim=1), counts


def pack_distinct(
    weight: Tensor,
    kind: Tensor,
    order: Tensor,
    num_packs: int,
    *,
    max_swaps: int,
    tolerance: float,
) -> Tensor:
    """See `expertplane_planner.kernels.pack_distinct`."""
    held, load = _packed(weight, kind, order, num_packs)
    # The mean in the order in which the compiled kernel adds.
    total = load[:, 0]
    for pack in range(1, num_packs):
        total = total + load[:, pack]
    threshold = (tolerance * (total / num_packs)).unsqueeze(1)
    for _ in range(max_swaps):
        held, load = _swapped(weight, kind, held, load, threshold)
    return held.flatten(1)


def _packed(weight: Tensor, kind: Tensor, order: Tensor, num_packs: int) -> tuple[Tensor, Tensor]:
    """Return what each pack holds, [rows, M, K] int64, and its load, [rows, M]."""
    num_rows, num_items = order.shape
    capacity = num_items // num_packs
    held = torch.zeros_like(order)
    held_kind = torch.full_like(order, -1)  # of no kind while a place is free
    load = weight.new_zeros(num_rows, num_packs)
    num_filled = torch.zeros_like(load, dtype=torch.int64)
    for item in order.unsqueeze(2).unbind(1):
        kinds = held_kind.view(num_rows, num_packs, capacity)
        is_full = num_filled == capacity
        is_barred = is_full | _holds(kinds, kind.gather(1, item).unsqueeze(1))
        free_load, pack = load.masked_fill(is_barred, torch.inf).min(dim=1, keepdim=True)
        receiver = load.masked_fill(is_full, torch.inf).argmin(dim=1, keepdim=True)

        # Where all packs with room hold a copy: a full pack takes the item and gives one away.
        is_stuck = free_load.isinf()
        is_no_giver = ~is_full | _holds(kinds, kind.gather(1, item).unsqueeze(1))
        giver_load, giver = load.masked_fill(is_no_giver, torch.inf).min(dim=1, keepdim=True)
        places = giver * capacity + torch.arange(capacity, device=weight.device)
        others = held.gather(1, places)
        at_receiver = kinds.gather(1, receiver.unsqueeze(2).expand(-1, -1, capacity))
        is_kept = _holds(at_receiver, kind.gather(1, others).unsqueeze(2))
        other_weight = weight.gather(1, others).masked_fill(is_kept, torch.inf)
        lightest, chosen = other_weight.min(dim=1, keepdim=True)
        is_rescued = is_stuck & giver_load.isfinite() & lightest.isfinite()
        place = places.gather(1, chosen)
        moved = held.gather(1, place)
        held.scatter_(1, place, torch.where(is_rescued, item, moved))
        kept_kind = held_kind.gather(1, place)
        held_kind.scatter_(1, place, torch.where(is_rescued, kind.gather(1, item), kept_kind))
        change = weight.gather(1, item) - weight.gather(1, moved)
        load.scatter_add_(1, giver, change.masked_fill_(~is_rescued, 0.0))

        pack = torch.where(is_stuck, receiver, pack)
        item = torch.where(is_rescued, moved, item)
        place = pack * capacity + num_filled.gather(1, pack)
        held.scatter_(1, place, item)
        held_kind.scatter_(1, place, kind.gather(1, item))
        num_filled.scatter_add_(1, pack, torch.ones_like(pack))
        load.scatter_add_(1, pack, weight.gather(1, item))
    return held.view(num_rows, num_packs, capacity), load


def _swapped(
    weight: Tensor, kind: Tensor, held: Tensor, load: Tensor, threshold: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the packs hold after one more swap in each row, and their load."""
    num_rows, num_packs, capacity = held.shape
    flat = held.flatten(1)
    held_weight = weight.gather(1, flat)
    held_kind = kind.gather(1, flat)
    kinds = held_kind.view_as(held)
    peak, heavy = load.max(dim=1, keepdim=True)
    places = heavy * capacity + torch.arange(capacity, device=weight.device)  # [rows, K]
    difference = held_weight.gather(1, places).unsqueeze(1) - held_weight.unsqueeze(2)
    gap = (peak - load).repeat_interleave(capacity, dim=1).unsqueeze(2)
    gain = torch.minimum(difference, gap - difference)  # [rows, M * K, K]
    heavy_kind = held_kind.gather(1, places)
    # [rows, M, K]: whether a pack holds the kind of an item of the heavy one already.
    is_there = (kinds.unsqueeze(3) == heavy_kind.view(num_rows, 1, 1, capacity)).sum(dim=2) > 0
    is_here = _holds(heavy_kind.unsqueeze(1), held_kind.unsqueeze(2))
    is_barred = is_there.repeat_interleave(capacity, dim=1) | is_here.unsqueeze(2)
    best, pair = gain.masked_fill_(is_barred, -torch.inf).flatten(1).max(dim=1, keepdim=True)
    is_better = best > threshold
    taken, given = pair // capacity, places.gather(1, pair % capacity)
    positions = torch.cat([given, taken], dim=1)
    items = flat.gather(1, positions)
    flat = flat.scatter(1, positions, torch.where(is_better, items.flip(1), items))
    change = held_weight.gather(1, given) - held_weight.gather(1, taken)
    change = change.masked_fill_(~is_better, 0.0)
    # Two additions in a row: the packs are different wherever the change is not zero.
    load = load.scatter_add(1, heavy, -change).scatter_add(1, taken // capacity, change)
    return flat.view_as(held), load


def _holds(kinds: Tensor, wanted: Tensor) -> Tensor:
    """Return whether each pack holds a kind, the last dimension of `kinds` being its places."""
    return (kinds == wanted).sum(dim=-1) > 0
