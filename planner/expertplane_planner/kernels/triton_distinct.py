"""Replicas, distinct packing and swaps for CUDA: all of a row in one launch.

See `triton_parts` for how programs keep what they know, and `kernels.pack_distinct` for the rules.

Legend: E items, N replicas, M packs, K places per pack.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_parts import (
    at_index,
    holds,
    ordered_sum,
    put_in_order,
    replicate,
    row_of,
    weigh_replicas,
)


@triton.jit(
    do_not_specialize=[
        *("num_items", "num_replicas", "max_count", "max_swaps", "num_packs", "capacity"),
    ]
)
def fill_distinct_kernel(
    inputs,
    scratch,
    out,
    num_items,
    num_replicas,
    max_count,
    max_swaps,
    num_packs,
    capacity,
    IS_REPLICATING: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Fill the packs of one row.

    Args:
        inputs: `triton_gpu.DistinctInputs`.
        scratch: `triton_gpu.DistinctScratch`.
        out: [rows, N] int64: with replication the kind at each place, else the item.
        num_items: E.
        num_replicas: N, E without replication.
        max_count: Replicas per item, at most.
        max_swaps: Swaps, at most.
        num_packs: M.
        capacity: K.
        IS_REPLICATING: Whether items get replicas first.
        BLOCK_E: A power of two, at least E.
        BLOCK_M: A power of two, at least M.
        BLOCK_K: A power of two, at least K.
        BLOCK_A: Keys that are ranked at a time.
        BLOCK_B: Keys that they are compared with at a time.
    """
    row = tl.program_id(0).to(tl.int64)
    weight, kind = inputs.weight + row * num_items, inputs.kind + row * num_items
    counts = scratch.labels + row * 3 * num_replicas
    sorted_item = inputs.order + row * num_replicas
    if IS_REPLICATING:
        key, item = scratch.keys + row * num_replicas, counts + num_replicas
        sorted_item = item + num_replicas
        replicate(weight, item, counts, num_items, num_replicas, max_count, BLOCK_E)
        weigh_replicas(weight, item, counts, key, num_items, num_replicas, BLOCK_A)
        put_in_order(key, item, sorted_item, num_replicas, BLOCK_A, BLOCK_B)
    items = weight, kind, counts, sorted_item
    packs = _packed(items, num_replicas, num_packs, capacity, IS_REPLICATING, BLOCK_M, BLOCK_K)
    tolerance = tl.load(inputs.tolerance)
    held, held_kind = _swapped(packs, tolerance, max_swaps, num_packs, capacity, BLOCK_M, BLOCK_K)
    p, k = tl.arange(0, BLOCK_M)[:, None], tl.arange(0, BLOCK_K)[None, :]
    result = held_kind if IS_REPLICATING else held
    place = out + row * num_replicas + p * capacity + k
    tl.store(place, result.to(tl.int64), mask=(p < num_packs) & (k < capacity))


@triton.jit
def _packed(
    items,
    num_replicas,
    num_packs,
    capacity,
    IS_REPLICATING: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return items, kinds and weights of all places [BLOCK_M, BLOCK_K], and loads [BLOCK_M].

    Args:
        items: weight, kind, counts, and the items in the order of packing: pointers.
        num_replicas: N.
        num_packs: M.
        capacity: K.
        IS_REPLICATING: Whether weights are shared by replicas, `counts` of each item.
        BLOCK_M: A power of two, at least M.
        BLOCK_K: A power of two, at least K.
    """
    weight, kind, counts, order = items
    p = tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    held = tl.full([BLOCK_M, BLOCK_K], 0, tl.int32)
    held_kind = tl.full([BLOCK_M, BLOCK_K], -1, tl.int32)  # of no kind while a place is free
    held_weight = tl.zeros([BLOCK_M, BLOCK_K], tl.float64)
    load = tl.zeros([BLOCK_M], tl.float64)
    num_filled = tl.zeros([BLOCK_M], tl.int32)
    for step in range(num_replicas):
        item = tl.load(order + step).to(tl.int32)
        item_kind = tl.load(kind + item).to(tl.int32)
        item_weight = tl.load(weight + item)
        if IS_REPLICATING:
            item_weight = item_weight / tl.load(counts + item).to(tl.float64)
        is_open = (p < num_packs) & (num_filled < capacity)
        has_it = holds(held_kind, item_kind)
        free = tl.where(is_open & (has_it == 0), load, float("inf"))
        pack = tl.argmin(free, axis=0)
        if tl.min(free, axis=0) == float("inf"):
            pack = tl.argmin(tl.where(is_open, load, float("inf")), axis=0)
            can_give = (p < num_packs) & (is_open == 0) & (has_it == 0)
            giver_load = tl.where(can_give, load, float("inf"))
            packs = held, held_kind, held_weight, load
            put = item, item_kind, item_weight
            packs, put = _make_room(packs, put, pack, giver_load, capacity, BLOCK_M, BLOCK_K)
            held, held_kind, held_weight, load = packs
            item, item_kind, item_weight = put
        is_place = (p == pack)[:, None] & (k[None, :] == num_filled[:, None])
        held = tl.where(is_place, item, held)
        held_kind = tl.where(is_place, item_kind, held_kind)
        held_weight = tl.where(is_place, item_weight, held_weight)
        load = tl.where(p == pack, load + item_weight, load)
        num_filled = tl.where(p == pack, num_filled + 1, num_filled)
    return held, held_kind, held_weight, load


@triton.jit
def _make_room(
    packs,
    put,
    receiver,
    giver_load,
    capacity,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Put an item into a full pack, if one can take it; return the packs and who goes on.

    Where all packs with room hold a copy: the lightest full pack that holds none gives its
    lightest item that the receiver lacks.

    Args:
        packs: held, held_kind, held_weight, load.
        put: The item, its kind and its weight.
        receiver: The pack that gets what another gives up.
        giver_load: [BLOCK_M], load of packs that can give, infinite for others.
        capacity: K.
        BLOCK_M: A power of two, at least M.
        BLOCK_K: A power of two, at least K.
    """
    held, held_kind, held_weight, load = packs
    item, item_kind, item_weight = put
    p, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    giver = tl.argmin(giver_load, axis=0)
    at_giver, at_receiver = row_of(held_kind, p, giver), row_of(held_kind, p, receiver)
    is_kept = tl.max((at_giver[:, None] == at_receiver[None, :]).to(tl.int32), axis=1) > 0
    weights = row_of(held_weight, p, giver)
    weights = tl.where(is_kept | (k >= capacity), float("inf"), weights)
    lightest = tl.min(weights, axis=0)
    if (tl.min(giver_load, axis=0) < float("inf")) & (lightest < float("inf")):
        place = tl.argmin(weights, axis=0)
        given, given_kind = (
            at_index(row_of(held, p, giver), k, place),
            at_index(at_giver, k, place),
        )
        is_place = (p == giver)[:, None] & (k == place)[None, :]
        held = tl.where(is_place, item, held)
        held_kind = tl.where(is_place, item_kind, held_kind)
        held_weight = tl.where(is_place, item_weight, held_weight)
        load = tl.where(p == giver, load + (item_weight - lightest), load)
        item, item_kind, item_weight = given, given_kind, lightest
    return (held, held_kind, held_weight, load), (item, item_kind, item_weight)


@triton.jit
def _swapped(
    packs,
    tolerance,
    max_swaps,
    num_packs,
    capacity,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return items and kinds of all places after the swaps; `packs` is what `_packed` returns."""
    held, held_kind, held_weight, load = packs
    p = tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    threshold = tolerance * (ordered_sum(load, p, num_packs) / num_packs)
    num_left = max_swaps
    while num_left > 0:
        num_left -= 1
        loads = tl.where(p < num_packs, load, float("-inf"))
        heavy, peak = tl.argmax(loads, axis=0), tl.max(loads, axis=0)
        gain, given = _gains(
            held_kind, held_weight, load, heavy, peak, num_packs, capacity, BLOCK_M, BLOCK_K
        )
        of_pack = tl.max(gain, axis=1)
        light = tl.argmax(of_pack, axis=0)
        at_light = row_of(gain, p, light)
        to = tl.argmax(at_light, axis=0)
        if tl.max(of_pack, axis=0) > threshold:
            at = at_index(row_of(given, p, light), k, to)
            is_given = (p == heavy)[:, None] & (k == at)[None, :]
            is_taken = (p == light)[:, None] & (k == to)[None, :]
            weight_i = tl.sum(tl.sum(tl.where(is_given, held_weight, 0.0), axis=1), axis=0)
            weight_j = tl.sum(tl.sum(tl.where(is_taken, held_weight, 0.0), axis=1), axis=0)
            held = _exchanged(held, is_given, is_taken)
            held_kind = _exchanged(held_kind, is_given, is_taken)
            held_weight = tl.where(is_given, weight_j, held_weight)
            held_weight = tl.where(is_taken, weight_i, held_weight)
            difference = weight_i - weight_j
            load = tl.where(p == heavy, load - difference, load)
            load = tl.where(p == light, load + difference, load)
        else:
            num_left = 0
    return held, held_kind


@triton.jit
def _gains(
    held_kind,
    held_weight,
    load,
    heavy,
    peak,
    num_packs,
    capacity,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return the best gain of a swap with each place, and the place in the heaviest pack."""
    p = tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    kinds, weights = row_of(held_kind, p, heavy), row_of(held_weight, p, heavy)
    is_barred = (p == heavy) | (p >= num_packs)
    is_here = is_barred[:, None] | (k >= capacity)[None, :]
    for at in range(capacity):
        is_here = is_here | (held_kind == at_index(kinds, k, at))
    gap = (peak - load)[:, None]
    best = tl.full([BLOCK_M, BLOCK_K], float("-inf"), tl.float64)
    given = tl.zeros([BLOCK_M, BLOCK_K], tl.int32)
    for at in range(capacity):
        difference = at_index(weights, k, at) - held_weight
        gain = tl.minimum(difference, gap - difference)
        is_there = holds(held_kind, at_index(kinds, k, at))
        is_better = (gain > best) & (is_here == 0) & (is_there == 0)[:, None]
        best = tl.where(is_better, gain, best)
        given = tl.where(is_better, at, given)
    return best, given


@triton.jit
def _exchanged(held, is_given, is_taken):
    """Return a table whose two places have changed their values."""
    given = tl.sum(tl.sum(tl.where(is_given, held, 0), axis=1), axis=0)
    taken = tl.sum(tl.sum(tl.where(is_taken, held, 0), axis=1), axis=0)
    return tl.where(is_given, taken, tl.where(is_taken, given, held))
