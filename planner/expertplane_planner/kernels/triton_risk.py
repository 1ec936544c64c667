"""Replicas, risk-aware packing and swaps for CUDA: all of a row in one launch.

See `triton_parts` for how programs keep what they know, `triton_risk_moves` for the steps, and
`kernels.pack_by_risk` for the rules. Several programs may start from different places at a row:
one packs in order of weight, others under noise and by another risk; swaps are the same for all.

Legend: L layers, E logical experts, F experts of a row, N replicas of a row, M packs, K places.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_parts import put_in_order, replicate, weigh_replicas
from .triton_risk_moves import packed, swapped


@triton.jit(
    do_not_specialize=[
        *("rows_per_layer", "num_experts", "num_items", "num_replicas"),
        *("max_count", "max_swaps", "num_packs", "capacity"),
    ]
)
def fill_by_risk_kernel(
    inputs,
    outputs,
    scratch,
    rows_per_layer,
    num_experts,
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
    """Fill the packs of one row from one start: the two numbers of a program.

    `inputs`, `outputs` and `scratch` are `triton_gpu.RiskInputs`, `RiskOutputs` and `RiskScratch`;
    the numbers that follow are `RiskSizes`. BLOCK_E, BLOCK_M and BLOCK_K are powers of two of at
    least E, M and K; BLOCK_A keys are ranked at a time, against BLOCK_B.
    """
    row, start = tl.program_id(0).to(tl.int64), tl.program_id(1)
    program = row * tl.num_programs(1) + start
    layer = row // rows_per_layer
    cross = scratch.cross + program * num_packs * num_experts
    sorted_expert = scratch.labels + (program * 3 + 2) * num_replicas
    share = inputs.share + layer * num_experts
    if IS_REPLICATING:
        share = scratch.share + program * num_experts
        sizes = num_experts, num_items, num_replicas, max_count
        _prepare(inputs, scratch, sizes, program, row, start, BLOCK_E, BLOCK_A, BLOCK_B)
    else:
        _take_order(inputs, sorted_expert, num_replicas, program, BLOCK_A)
    covariance = inputs.covariance + layer * num_experts * num_experts
    known = inputs.mean + layer * num_experts, covariance, share, num_experts
    p, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    slow = tl.load(inputs.slowness + row * num_packs + p, mask=p < num_packs, other=1.0)
    size = num_packs, capacity
    judge = tl.load(inputs.greedy_risk + (start if IS_REPLICATING else program)), slow
    packs = packed(
        known, cross, judge, size, sorted_expert, num_replicas, BLOCK_E, BLOCK_M, BLOCK_K
    )
    judge = tl.load(inputs.settings), slow
    tolerance = tl.load(inputs.settings + 1)
    held, worst = swapped(
        known, cross, judge, size, packs, tolerance, max_swaps, BLOCK_E, BLOCK_M, BLOCK_K
    )
    place = outputs.held + program * num_replicas + p[:, None] * capacity + k[None, :]
    is_place = (p < num_packs)[:, None] & (k < capacity)[None, :]
    tl.store(place, held.to(tl.int64), mask=is_place)
    tl.store(outputs.peak + program, worst)


@triton.jit
def _prepare(
    inputs,
    scratch,
    sizes,
    program,
    row,
    start,
    BLOCK_E: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Give replicas away, write down the share of each and the experts as they are packed.

    Ends with a barrier.
    """
    num_experts, num_items, num_replicas, max_count = sizes
    weight, expert = inputs.weight + row * num_items, inputs.expert + row * num_items
    noise = inputs.noise + start * num_replicas
    key = scratch.keys + program * num_replicas
    counts = scratch.labels + program * 3 * num_replicas
    item = counts + num_replicas
    replicate(weight, item, counts, num_items, num_replicas, max_count, BLOCK_E)
    weigh_replicas(weight, item, counts, key, num_items, num_replicas, BLOCK_A)
    f = tl.arange(0, BLOCK_E)
    is_item = f < num_items
    count = tl.load(counts + f, mask=is_item, other=1).to(tl.float64)
    share = scratch.share + program * num_experts
    tl.store(share + tl.load(expert + f, mask=is_item, other=0), 1.0 / count, mask=is_item)
    for first in range(0, num_replicas, BLOCK_A):
        n = first + tl.arange(0, BLOCK_A)
        is_replica = n < num_replicas
        noisy = tl.load(key + n, mask=is_replica, other=0.0)
        noisy = noisy * tl.load(noise + n, mask=is_replica, other=1.0)
        copied = tl.load(item + n, mask=is_replica, other=0)
        logical = tl.load(expert + copied, mask=is_replica, other=0)
        tl.debug_barrier()
        tl.store(key + n, noisy, mask=is_replica)
        tl.store(item + n, logical.to(tl.int32), mask=is_replica)
    tl.debug_barrier()
    put_in_order(key, item, item + num_replicas, num_replicas, BLOCK_A, BLOCK_B)


@triton.jit
def _take_order(inputs, sorted_expert, num_replicas, program, BLOCK_A: tl.constexpr):
    """Write the experts as they are packed. Ends with a barrier."""
    expert, order = inputs.expert + program * num_replicas, inputs.order + program * num_replicas
    for first in range(0, num_replicas, BLOCK_A):
        n = first + tl.arange(0, BLOCK_A)
        is_replica = n < num_replicas
        item = tl.load(order + n, mask=is_replica, other=0)
        logical = tl.load(expert + item, mask=is_replica, other=0)
        tl.store(sorted_expert + n, logical.to(tl.int32), mask=is_replica)
    tl.debug_barrier()
