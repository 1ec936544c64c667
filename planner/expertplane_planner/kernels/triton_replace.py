"""Replacements for CUDA: one more replica of an expert in place of another's; see `triton_moves`.

A candidate is a slot and what it would hold then: for slots of the worst rank any expert, for
others one of the worst rank's.

Legend: E logical experts, P slots, R ranks, K slots per rank.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_moves import (
    cost_of_change,
    covariance_at,
    covariance_of,
    exceeds,
    limit_of,
    rate_of,
    slots_of,
)
from .triton_parts import at_index, row_of, value_of


@triton.jit
def best_replacement(
    ground,
    tables,
    limits,
    looks,
    ring,
    load,
    variance,
    least,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Return slot and expert of the best replacement that gains more than least; -1 for none."""
    r, k = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    slot = slots_of(ground, BLOCK_R, BLOCK_K)
    pack = row_of(looks.expert, r, limits.heavy)
    left, is_open = _left_to_others(
        ground, tables, limits, looks, ring, load, variance, BLOCK_R, BLOCK_K
    )
    best, choice = _scores_elsewhere(
        ground, tables, limits, looks, load, variance, left, is_open, BLOCK_R, BLOCK_K
    )
    best, choice = _scores_on_heavy(
        ground, tables, limits, looks, load, variance, left, is_open, best, choice,
        BLOCK_R, BLOCK_K, BLOCK_W,
    )  # fmt: skip
    tl.debug_barrier()
    none = ground.num_ranks * ground.per_rank
    found, expert = -1, -1
    rate = tl.max(tl.max(best, axis=1), axis=0)
    while rate > least:
        first = tl.min(tl.min(tl.where(best == rate, slot, none), axis=1), axis=0)
        is_first = slot == first
        candidate = tl.sum(tl.sum(tl.where(is_first, choice, 0), axis=1), axis=0)
        i = tl.sum(tl.sum(tl.where(is_first, looks.expert, 0), axis=1), axis=0)
        left_i = tl.sum(tl.sum(tl.where(is_first, left, 0.0), axis=1), axis=0)
        p = first // ground.per_rank
        j = tl.where(p == limits.heavy, candidate, at_index(pack, k, candidate))
        exact = _exact_rate(ground, tables, limits, load, variance, p, i, j, left_i, BLOCK_R)
        if exact == rate:
            found, expert = first, j
            rate = least
        else:
            again, candidate = _next_score(
                ground, tables, limits, first, candidate, exact, BLOCK_W
            )
            best = tl.where(is_first, again, best)
            choice = tl.where(is_first, candidate, choice)
            rate = tl.max(tl.max(best, axis=1), axis=0)
    return found, expert


@triton.jit
def _left_to_others(
    ground, tables, limits, looks, ring, load, variance,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Return the worst other rank once a slot's expert is given up, and which slots may do so."""
    r = tl.arange(0, BLOCK_R)
    slot = slots_of(ground, BLOCK_R, BLOCK_K)
    is_rank = r < ground.num_ranks
    slowness = tl.load(ground.slowness + r, mask=is_rank, other=1.0)[:, None]
    count = tl.maximum(looks.count, 2).to(tl.float64)
    change = looks.copies.to(tl.float64) * (1.0 / (count - 1.0) - 1.0 / count)
    spread = variance[:, None] + 2.0 * change * looks.cross
    spread += change * change * looks.variance
    worth = value_of(ground.risk, slowness, load[:, None] + change * looks.mean, spread)
    tl.store(tables.worth + slot, worth, mask=looks.is_slot)
    tl.store(tables.following + slot, ring, mask=looks.is_slot)
    home = tl.load(ground.home + looks.expert, mask=looks.is_slot, other=-1)
    node = tl.load(ground.node + r, mask=is_rank, other=-1)[:, None]
    is_free = (home < 0) | (home != node)
    tl.debug_barrier()
    left = tl.full([BLOCK_R, BLOCK_K], float("-inf"), tl.float64)
    other = ring
    for _ in range(tl.max(tl.max(looks.count, axis=1), axis=0) - 1):
        p = other // ground.per_rank
        worth = tl.load(tables.worth + other, mask=looks.is_slot, other=0.0)
        left = tl.where(p == r[:, None], left, tl.maximum(left, worth))
        at_home = tl.load(ground.node + p, mask=looks.is_slot, other=-1) == home
        is_free = is_free | (at_home & (other != slot))
        other = tl.load(tables.following + other, mask=looks.is_slot, other=0)
    is_open = looks.is_slot & (looks.count >= 2) & is_free
    return left, is_open & (left < limits.peak - limits.threshold)


@triton.jit
def _after(
    load, variance, change_i, change_j, mean_i, mean_j, cross_i, cross_j, own_i, own_j, both
):
    """Return mean and variance of loads that carry so much more of two experts."""
    new_load = load + change_i * mean_i + change_j * mean_j
    spread = (
        variance
        + 2.0 * (change_i * cross_i + change_j * cross_j)
        + change_i * change_i * own_i
        + change_j * change_j * own_j
        + 2.0 * change_i * change_j * both
    )
    return new_load, spread


@triton.jit
def _scores_elsewhere(
    ground, tables, limits, looks, load, variance, left, is_open,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Score the candidates of ranks that are not the worst; return the best of each slot."""
    r, k = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    slot = slots_of(ground, BLOCK_R, BLOCK_K)
    num_slots = ground.num_ranks * ground.per_rank
    scores = tables.scores + ground.per_rank * ground.num_experts
    pack = row_of(looks.expert, r, limits.heavy)
    is_open = is_open & (r != limits.heavy)[:, None]
    best = tl.full([BLOCK_R, BLOCK_K], -1.0, tl.float64)
    choice = tl.zeros([BLOCK_R, BLOCK_K], tl.int32)
    for at in range(ground.per_rank):
        j = at_index(pack, k, at)
        rate = _rates_elsewhere(
            ground, tables, limits, looks, load, variance, left, is_open, j, BLOCK_R
        )
        tl.store(scores + at * num_slots + slot, rate, mask=looks.is_slot)
        is_better = rate > best
        best = tl.where(is_better, rate, best)
        choice = tl.where(is_better, at, choice)
    return best, choice


@triton.jit
def _rates_elsewhere(
    ground, tables, limits, looks, load, variance, left, is_open, j, BLOCK_R: tl.constexpr
):
    """Return gains per moved slot if slots got an expert j of the worst rank; -1 for none."""
    r = tl.arange(0, BLOCK_R)
    heavy, is_rank = limits.heavy, r < ground.num_ranks
    at_p, at_heavy = r * ground.num_experts + j, heavy * ground.num_experts + j
    slowness = tl.load(ground.slowness + r, mask=is_rank, other=1.0)[:, None]
    slowness_heavy = tl.load(ground.slowness + heavy)
    there = tl.load(tables.copies + at_p, mask=is_rank, other=1)[:, None]
    surplus_j = tl.load(tables.surplus + at_p, mask=is_rank, other=0).to(tl.int32)[:, None]
    node = tl.load(ground.node + r, mask=is_rank, other=-1)[:, None]
    home, count = tl.load(ground.home + j), tl.load(tables.counts + j)
    mean_j, own_j = tl.load(ground.mean + j), covariance_of(ground, j, j)
    cross_j = tl.load(tables.cross + at_p, mask=is_rank, other=0.0)[:, None]
    cross_heavy = tl.load(tables.cross + at_heavy)
    both = covariance_at(ground, looks.expert, j, looks.is_slot)
    count_i, count_j = tl.maximum(looks.count, 2).to(tl.float64), count.to(tl.float64)
    share_i, share_j = 1.0 / (count_i - 1.0), 1.0 / (count_j + 1.0)
    more_i, more_j = share_i - 1.0 / count_i, share_j - 1.0 / count_j
    change_i = looks.copies.to(tl.float64) * more_i - share_i
    new_load, spread = _after(
        load[:, None], variance[:, None], change_i, share_j, looks.mean, mean_j,
        looks.cross, cross_j, looks.variance, own_j, both,
    )  # fmt: skip
    cost = cost_of_change(looks.surplus, surplus_j)
    limit = limit_of(limits, cost)
    fails = exceeds(ground.risk, slowness, new_load, spread, limit) | (left >= limit)
    worst = tl.maximum(left, value_of(ground.risk, slowness, new_load, spread))
    change_i = looks.copies_heavy.to(tl.float64) * more_i
    change_j = tl.load(tables.copies + at_heavy).to(tl.float64) * more_j
    new_load, spread = _after(
        at_index(load, r, heavy), at_index(variance, r, heavy), change_i, change_j,
        looks.mean, mean_j, looks.cross_heavy, cross_heavy, looks.variance, own_j, both,
    )  # fmt: skip
    fails = fails | exceeds(ground.risk, slowness_heavy, new_load, spread, limit)
    worst = tl.maximum(worst, value_of(ground.risk, slowness_heavy, new_load, spread))
    is_barred = tl.where(count < limits.max_count, there.to(tl.int32), 1) > 0
    fails = fails | is_barred | (cost > limits.room) | (tl.where(home < 0, node, home) != node)
    return tl.where(is_open & (fails == 0), rate_of(limits, worst, cost), -1.0)


@triton.jit
def _scores_on_heavy(
    ground, tables, limits, looks, load, variance, left, is_open, best, choice,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Score the candidates of the worst rank too; return the best of each slot."""
    r, k = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    heavy, e = limits.heavy, tl.arange(0, BLOCK_W)
    slot = slots_of(ground, BLOCK_R, BLOCK_K)
    pack, opens = row_of(looks.expert, r, heavy), row_of(is_open.to(tl.int32), r, heavy)
    lefts = tl.max(tl.where((r == heavy)[:, None], left, float("-inf")), axis=0)
    load_heavy, variance_heavy = at_index(load, r, heavy), at_index(variance, r, heavy)
    for at in range(ground.per_rank):
        if at_index(opens, k, at) > 0:
            i = at_index(pack, k, at)
            left_i = tl.max(tl.where(k == at, lefts, float("-inf")), axis=0)
            rate = _rates_on_heavy(
                ground, tables, limits, load_heavy, variance_heavy, left_i, i, BLOCK_W
            )
            scores = tables.scores + at * ground.num_experts + e
            tl.store(scores, rate, mask=e < ground.num_experts)
            is_this = slot == heavy * ground.per_rank + at
            best = tl.where(is_this, tl.max(rate, axis=0), best)
            choice = tl.where(is_this, tl.argmax(rate, axis=0), choice)
    return best, choice


@triton.jit
def _rates_on_heavy(ground, tables, limits, load, variance, left, i, BLOCK_W: tl.constexpr):
    """Return gains per moved slot [BLOCK_W] if any expert came in place of i; -1 for none."""
    j = tl.arange(0, BLOCK_W)
    is_expert, heavy = j < ground.num_experts, limits.heavy
    at_i, at_j = heavy * ground.num_experts + i, heavy * ground.num_experts + j
    slowness, node = tl.load(ground.slowness + heavy), tl.load(ground.node + heavy)
    home = tl.load(ground.home + j, mask=is_expert, other=-1)
    count = tl.load(tables.counts + j, mask=is_expert, other=1)
    here = tl.load(tables.copies + at_j, mask=is_expert, other=1)
    count_i = tl.load(tables.counts + i).to(tl.float64)
    share_i, share_j = 1.0 / (count_i - 1.0), 1.0 / (count.to(tl.float64) + 1.0)
    copies_i = tl.load(tables.copies + at_i).to(tl.float64)
    change_i = copies_i * (share_i - 1.0 / count_i) - share_i
    new_load, spread = _after(
        load,
        variance,
        change_i,
        share_j,
        tl.load(ground.mean + i),
        tl.load(ground.mean + j, mask=is_expert, other=0.0),
        tl.load(tables.cross + at_i),
        tl.load(tables.cross + at_j, mask=is_expert, other=0.0),
        covariance_of(ground, i, i),
        covariance_at(ground, j, j, is_expert),
        covariance_at(ground, i, j, is_expert),
    )
    surplus = tl.load(tables.surplus + at_j, mask=is_expert, other=0).to(tl.int32)
    cost = cost_of_change(tl.load(tables.surplus + at_i).to(tl.int32), surplus)
    limit = limit_of(limits, cost)
    fails = exceeds(ground.risk, slowness, new_load, spread, limit) | (left >= limit)
    worst = tl.maximum(left, value_of(ground.risk, slowness, new_load, spread))
    fails = fails | (here > 0) | (cost > limits.room) | (count >= limits.max_count)
    fails = fails | ((home >= 0) & (home != node))
    return tl.where(fails, -1.0, rate_of(limits, worst, cost))


@triton.jit
def _exact_rate(ground, tables, limits, load, variance, p, i, j, left, BLOCK_R: tl.constexpr):
    """Return the gain per moved slot, by all ranks that change; -1 for none."""
    r = tl.arange(0, BLOCK_R)
    is_rank, is_p = r < ground.num_ranks, r == p
    at_i, at_j = r * ground.num_experts + i, r * ground.num_experts + j
    slowness = tl.load(ground.slowness + r, mask=is_rank, other=1.0)
    copies_i = tl.load(tables.copies + at_i, mask=is_rank, other=0).to(tl.float64)
    copies_j = tl.load(tables.copies + at_j, mask=is_rank, other=0).to(tl.float64)
    count_i = tl.load(tables.counts + i).to(tl.float64)
    count_j = tl.load(tables.counts + j).to(tl.float64)
    share_i, share_j = 1.0 / (count_i - 1.0), 1.0 / (count_j + 1.0)
    change_i = copies_i * (share_i - 1.0 / count_i)
    change_j = copies_j * (share_j - 1.0 / count_j)
    new_load, spread = _after(
        load,
        variance,
        tl.where(is_p, change_i - share_i, change_i),
        tl.where(is_p, change_j + share_j, change_j),
        tl.load(ground.mean + i),
        tl.load(ground.mean + j),
        tl.load(tables.cross + at_i, mask=is_rank, other=0.0),
        tl.load(tables.cross + at_j, mask=is_rank, other=0.0),
        covariance_of(ground, i, i),
        covariance_of(ground, j, j),
        covariance_of(ground, i, j),
    )
    at_p = p * ground.num_experts
    surplus_i = tl.load(tables.surplus + at_p + i).to(tl.int32)
    cost = cost_of_change(surplus_i, tl.load(tables.surplus + at_p + j).to(tl.int32))
    has_changed = (copies_i + copies_j > 0.0) | is_p | (r == limits.heavy)
    value = value_of(ground.risk, slowness, new_load, spread)
    worst = tl.maximum(tl.max(tl.where(has_changed, value, float("-inf")), axis=0), left)
    fails = exceeds(ground.risk, slowness, new_load, spread, limit_of(limits, cost)) & has_changed
    return tl.where(tl.max(fails.to(tl.int32), axis=0) > 0, -1.0, rate_of(limits, worst, cost))


@triton.jit
def _next_score(ground, tables, limits, slot, candidate, score, BLOCK_W: tl.constexpr):
    """Give a candidate another score; return the best of its slot and which candidate has it."""
    w = tl.arange(0, BLOCK_W)
    heavy, per_rank = limits.heavy, ground.per_rank
    if slot // per_rank == heavy:
        row = tables.scores + slot % per_rank * ground.num_experts + w
        is_candidate = w < ground.num_experts
    else:
        elsewhere = tables.scores + per_rank * ground.num_experts + slot
        row = elsewhere + w * ground.num_ranks * per_rank
        is_candidate = w < per_rank
    tl.debug_barrier()
    tl.store(row, score, mask=is_candidate & (w == candidate))
    tl.debug_barrier()
    scores = tl.load(row, mask=is_candidate, other=-1.0)
    return tl.max(scores, axis=0), tl.argmax(scores, axis=0)
