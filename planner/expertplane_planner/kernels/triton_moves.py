"""Swaps and replacements for CUDA: the best step from a placement, and what it changes.

A program works on one start. What slots hold and what ranks are worth stays in registers, padded
to [BLOCK_R, BLOCK_K] and [BLOCK_R]; what is looked up by expert lies in global memory, in tables
of the program's own, with a barrier between two uses of one if either of them is a store.

The arithmetic is that of `host_moves`, in its order. What the host finds by looking at one move
after another, programs find by scoring all at once: swaps exactly, replacements first by the two
ranks that change their contents, which may be too good but never too bad. Then the best of them
is judged by all ranks until one keeps its score.

Legend: E logical experts, P slots, R ranks, K slots per rank.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .triton_parts import at_index, row_of, value_of


class Ground(NamedTuple):
    """What does not change during the search; of arrays, where they begin."""

    mean: Any  # [E] float64
    covariance: Any  # [E, E] float32 or float64
    home: Any  # [E] int64
    slowness: Any  # [R] float64
    node: Any  # [R] int64
    risk: Any
    num_experts: Any
    num_ranks: Any
    per_rank: Any


class Tables(NamedTuple):
    """Where the program keeps what every step brings up to date."""

    cross: Any  # [R, E] float64, covariance of a rank's load with an expert's tokens
    counts: Any  # [E] int32, replicas
    copies: Any  # [R, E] int8, slots of a rank that hold an expert
    surplus: Any  # [R, E] int8, copies less those in the origin
    worth: Any  # [P] float64, what a slot's rank is worth when another gives up its expert
    following: Any  # [P] int32, the next slot with the same expert, around in a ring
    scores: Any  # [K, E] and then [K, P] float64, of replacements on the worst rank and elsewhere


class Limits(NamedTuple):
    """What a step must keep to."""

    heavy: Any  # the worst rank
    peak: Any  # and what it is worth
    threshold: Any  # least gain of a step
    price: Any  # least gain per moved slot
    room: Any  # moved slots that may be added
    max_count: Any  # replicas of an expert


class Looks(NamedTuple):
    """What there is to know of the expert in each slot, [BLOCK_R, BLOCK_K]."""

    expert: Any
    is_slot: Any
    count: Any
    mean: Any
    variance: Any
    cross: Any  # with the rank of the slot
    cross_heavy: Any  # with the worst rank
    copies: Any
    copies_heavy: Any
    surplus: Any
    surplus_heavy: Any


@triton.jit
def slots_of(ground, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr):
    """Return the number of each slot [BLOCK_R, BLOCK_K], and -2 where padding is."""
    r, k = tl.arange(0, BLOCK_R)[:, None], tl.arange(0, BLOCK_K)[None, :]
    is_slot = (r < ground.num_ranks) & (k < ground.per_rank)
    return tl.where(is_slot, r * ground.per_rank + k, -2)


@triton.jit
def exceeds(risk, slowness, load, variance, limit):
    """Return which values are not below a limit; by squares, as on the host."""
    room = limit / slowness - load
    return (room <= 0.0) | (risk * risk * variance >= room * room)


@triton.jit
def limit_of(limits, cost):
    """Return what ranks must stay below for a step that adds so many moved slots."""
    return limits.peak - tl.maximum(limits.threshold, limits.price * cost.to(tl.float64))


@triton.jit
def rate_of(limits, worst, cost):
    """Return the gain per moved slot, and per half a slot where none is added."""
    gain = limits.peak - worst
    return tl.where(cost > 1, gain * 0.5, tl.where(cost > 0, gain, gain * 2.0))


@triton.jit
def cost_of_change(surplus_given, surplus_taken):
    """Return how many moved slots it adds when a rank gives one expert up for another."""
    return (surplus_taken >= 0).to(tl.int32) - (surplus_given > 0).to(tl.int32)


@triton.jit
def covariance_at(ground, i, j, mask):
    """Return covariances of experts i with experts j, float64, and 0 where they are masked."""
    at = ground.covariance + i * ground.num_experts + j
    return tl.load(at, mask=mask, other=0.0).to(tl.float64)


@triton.jit
def covariance_of(ground, i, j):
    """Return the covariance of an expert i with an expert j."""
    return tl.load(ground.covariance + i * ground.num_experts + j).to(tl.float64)


@triton.jit
def look(ground, tables, held, heavy, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr):
    """Return `Looks` at what slots hold [BLOCK_R, BLOCK_K]."""
    r = tl.arange(0, BLOCK_R)[:, None]
    is_slot = held >= 0
    e = tl.maximum(held, 0)
    own = r * ground.num_experts + e
    other = heavy * ground.num_experts + e
    return Looks(
        e,
        is_slot,
        tl.load(tables.counts + e, mask=is_slot, other=1),
        tl.load(ground.mean + e, mask=is_slot, other=0.0),
        covariance_at(ground, e, e, is_slot),
        tl.load(tables.cross + own, mask=is_slot, other=0.0),
        tl.load(tables.cross + other, mask=is_slot, other=0.0),
        tl.load(tables.copies + own, mask=is_slot, other=0).to(tl.int32),
        tl.load(tables.copies + other, mask=is_slot, other=0).to(tl.int32),
        tl.load(tables.surplus + own, mask=is_slot, other=0).to(tl.int32),
        tl.load(tables.surplus + other, mask=is_slot, other=0).to(tl.int32),
    )


@triton.jit
def best_swap(
    ground, tables, limits, looks, load, variance, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr
):
    """Return gain per moved slot, slot on the worst rank, slot elsewhere; no gain is 0, -1, -1."""
    r, k = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    heavy, per_rank = limits.heavy, ground.per_rank
    pack = row_of(looks.expert, r, heavy)
    is_rank = (r < ground.num_ranks) & (r != heavy)
    node = tl.load(ground.node + r, mask=is_rank, other=-1)
    # Those tied to a node stay there.
    same = tl.where(tl.load(ground.home) < 0, node, tl.load(ground.node + heavy))
    is_rank = is_rank & (node == same)
    is_open = looks.is_slot & is_rank[:, None] & (looks.copies_heavy == 0)
    best = tl.zeros([BLOCK_R, BLOCK_K], tl.float64)
    given = tl.zeros([BLOCK_R, BLOCK_K], tl.int32)
    for at in range(per_rank):
        i = at_index(pack, k, at)
        there = tl.load(tables.copies + r * ground.num_experts + i, mask=is_rank, other=1)
        rate = _swap_rates(ground, tables, limits, looks, load, variance, i, is_rank, BLOCK_R)
        is_better = (rate > best) & is_open & (there == 0)[:, None]
        best = tl.where(is_better, rate, best)
        given = tl.where(is_better, at, given)
    rate = tl.max(tl.max(best, axis=1), axis=0)
    # The first other rank, then slot on the worst, then slot on the other.
    key = ((r * per_rank)[:, None] + given) * per_rank + k[None, :]
    far = ground.num_ranks * per_rank * per_rank
    key = tl.min(tl.min(tl.where((best == rate) & is_open, key, far), axis=1), axis=0)
    has_none = rate <= 0.0
    to = key // (per_rank * per_rank) * per_rank + key % per_rank
    given_slot = heavy * per_rank + key // per_rank % per_rank
    return rate, tl.where(has_none, -1, given_slot), tl.where(has_none, -1, to)


@triton.jit
def _swap_rates(ground, tables, limits, looks, load, variance, i, is_rank, BLOCK_R: tl.constexpr):
    """Return gains per moved slot of swaps of an expert i of the worst rank; 0 for none."""
    r = tl.arange(0, BLOCK_R)
    heavy = limits.heavy
    at_p, at_heavy = r * ground.num_experts + i, heavy * ground.num_experts + i
    cross_p = tl.load(tables.cross + at_p, mask=is_rank, other=0.0)
    surplus_p = tl.load(tables.surplus + at_p, mask=is_rank, other=0).to(tl.int32)
    surplus_heavy = tl.load(tables.surplus + at_heavy).to(tl.int32)
    slowness = tl.load(ground.slowness + r, mask=is_rank, other=1.0)[:, None]
    slowness_heavy = tl.load(ground.slowness + heavy)
    share_i = 1.0 / tl.load(tables.counts + i).to(tl.float64)
    share_j = 1.0 / looks.count.to(tl.float64)
    mean_i = tl.load(ground.mean + i)
    own_i = covariance_of(ground, i, i) * share_i * share_i
    heavy_load = at_index(load, r, heavy) - mean_i * share_i
    light_load = load + mean_i * share_i
    heavy_spread = at_index(variance, r, heavy)
    heavy_spread = heavy_spread - 2.0 * tl.load(tables.cross + at_heavy) * share_i + own_i
    light_spread = variance + 2.0 * cross_p * share_i + own_i
    new_load = heavy_load + looks.mean * share_j
    cost = cost_of_change(surplus_heavy, looks.surplus_heavy)
    cost += cost_of_change(looks.surplus, surplus_p[:, None])
    own_j = looks.variance * share_j * share_j
    own_j -= 2.0 * covariance_at(ground, i, looks.expert, looks.is_slot) * share_i * share_j
    spread = heavy_spread + 2.0 * looks.cross_heavy * share_j + own_j
    other_load = light_load[:, None] - looks.mean * share_j
    other = light_spread[:, None] - 2.0 * looks.cross * share_j + own_j
    limit = limit_of(limits, cost)
    fails = exceeds(ground.risk, slowness_heavy, new_load, spread, limit)
    fails = fails | exceeds(ground.risk, slowness, other_load, other, limit)
    worst = tl.maximum(
        value_of(ground.risk, slowness_heavy, new_load, spread),
        value_of(ground.risk, slowness, other_load, other),
    )
    return tl.where(fails | (cost > limits.room), 0.0, rate_of(limits, worst, cost))
