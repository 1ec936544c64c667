"""What the kernels for CUDA have in common: replicas, their order, and looks into packs.

A program works on one row. Small tables stay in registers, padded to powers of two: a value per
pack, and the packs themselves, [BLOCK_M, BLOCK_K]. What is looked up by item or expert lies in
global memory, in tables of the program's own. Between two uses of such a table, one of them a
store, stands a barrier: Triton puts none there, and a program is several warps.

Arithmetic is float64 in the order of `numba_cpu` and `numba_risk`, so that all legs agree to the
bit; kernels are launched without contraction of products and sums.

Legend: E items, N replicas, M packs, K places per pack.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def replicate(
    weight,
    item,
    counts,
    num_items,
    num_replicas,
    max_count,
    BLOCK_E: tl.constexpr,
):
    """Write which item each replica copies to `item` [N], and how many each has to `counts` [E].

    The first of each item in item order, then the redundant ones: each goes to the item of the
    largest weight per replica, of equals to the lowest. Ends with a barrier.
    """
    e = tl.arange(0, BLOCK_E)
    is_item = e < num_items
    w = tl.load(weight + e, mask=is_item, other=0.0)
    count = tl.full([BLOCK_E], 1, tl.int32)
    closed = tl.where(is_item, -1.0, -2.0).to(tl.float64)
    quotient = tl.where(is_item & (count < max_count), w, closed)
    tl.store(item + e, e, mask=is_item)
    for replica in range(num_items, num_replicas):
        largest = tl.argmax(quotient, axis=0)
        tl.store(item + replica, largest)
        count = tl.where(e == largest, count + 1, count)
        changed = tl.where(count < max_count, w / count.to(tl.float64), closed)
        quotient = tl.where(e == largest, changed, quotient)
    tl.store(counts + e, count, mask=is_item)
    tl.debug_barrier()


@triton.jit
def weigh_replicas(
    weight,
    item,
    counts,
    key,
    num_items,
    num_replicas,
    BLOCK_A: tl.constexpr,
):
    """Write the load of each replica, an equal share of its item's, to `key` [N].

    Ends with a barrier.
    """
    for first in range(0, num_replicas, BLOCK_A):
        n = first + tl.arange(0, BLOCK_A)
        is_replica = n < num_replicas
        e = tl.load(item + n, mask=is_replica, other=0)
        count = tl.load(counts + e, mask=is_replica, other=1).to(tl.float64)
        tl.store(key + n, tl.load(weight + e, mask=is_replica, other=0.0) / count, mask=is_replica)
    tl.debug_barrier()


@triton.jit
def put_in_order(
    key,
    label,
    ordered,
    num_items,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Write labels [N] by descending key, of equals the first first, to `ordered` [N].

    By counting who comes before whom. Ends with a barrier.
    """
    for first in range(0, num_items, BLOCK_A):
        a = first + tl.arange(0, BLOCK_A)
        key_a = tl.load(key + a, mask=a < num_items, other=0.0)
        num_before = tl.zeros([BLOCK_A, BLOCK_B], tl.int32)
        for start in range(0, num_items, BLOCK_B):
            b = start + tl.arange(0, BLOCK_B)
            key_b = tl.load(key + b, mask=b < num_items, other=float("-inf"))
            is_tied = (key_b[None, :] == key_a[:, None]) & (b[None, :] < a[:, None])
            is_before = (key_b[None, :] > key_a[:, None]) | is_tied
            num_before += is_before.to(tl.int32)
        place = tl.sum(num_before, axis=1)
        tl.store(ordered + place, tl.load(label + a, mask=a < num_items), mask=a < num_items)
    tl.debug_barrier()


@triton.jit
def at_index(values, index, wanted):
    """Return the one value [B] whose index [B] is wanted; 0 where there is none."""
    return tl.sum(tl.where(index == wanted, values, 0), axis=0)


@triton.jit
def row_of(table, index, wanted):
    """Return one row [B] of a table [A, B] whose rows have an index [A]."""
    return tl.sum(tl.where((index == wanted)[:, None], table, 0), axis=0)


@triton.jit
def holds(held, wanted):
    """Return which packs [BLOCK_M] hold something in one of their places [BLOCK_M, BLOCK_K]."""
    return tl.max((held == wanted).to(tl.int32), axis=1) > 0


@triton.jit
def ordered_sum(values, index, count):
    """Return the sum of the first values [B] in order of their index, as a loop adds them."""
    total = tl.full((), 0.0, tl.float64)
    for wanted in range(count):
        total += at_index(values, index, wanted)
    return total


@triton.jit
def value_of(risk, slowness, load, variance):
    """Return what ranks of this mean and variance of their load are worth; less is better."""
    return (load + risk * tl.sqrt(tl.maximum(variance, 0.0))) * slowness
