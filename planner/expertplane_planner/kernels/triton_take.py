"""What a step changes in the tables of the search from a placement in force; see `triton_moves`.

Legend: E logical experts, R ranks.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_moves import covariance_at, covariance_of


@triton.jit
def take_step(
    ground, tables, load, variance, first, second, old, new,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Bring all tables up to date; return mean and variance of loads, and moved slots added.

    The first slot holds the new expert in place of the old one from now on, the second, unless
    it is -1, the old one in place of the new. Begins after a barrier and ends with one.
    """
    r = tl.arange(0, BLOCK_R)
    is_first = r == first // ground.per_rank
    is_second = r == tl.where(second >= 0, second // ground.per_rank, -1)
    count_old, count_new = tl.load(tables.counts + old), tl.load(tables.counts + new)
    change = is_first.to(tl.int32) - is_second.to(tl.int32)
    times_old, added_old = _moved_copies(ground, tables, r, old, -change)
    times_new, added_new = _moved_copies(ground, tables, r, new, change)
    n, m = count_old.to(tl.float64), count_new.to(tl.float64)
    # Only where replicas become more or fewer does each of them carry another share.
    times_old, times_new = tl.where(second < 0, times_old, 0), tl.where(second < 0, times_new, 0)
    more_old = 1.0 / tl.maximum(n - 1.0, 1.0) - 1.0 / n
    more_new = 1.0 / (m + 1.0) - 1.0 / m
    tl.debug_barrier()
    if second < 0:
        tl.store(tables.counts + old, count_old - 1)
        tl.store(tables.counts + new, count_new + 1)
    load, variance = _weighed(
        ground, tables, load, variance, old, new, is_first, is_second,
        1.0 / n, 1.0 / m, times_old, times_new, more_old, more_new, BLOCK_R,
    )  # fmt: skip
    _cross(
        ground, tables, old, new, is_first, is_second,
        1.0 / n, 1.0 / m, times_old, times_new, more_old, more_new, BLOCK_R, BLOCK_C,
    )  # fmt: skip
    return load, variance, added_old + added_new


@triton.jit
def _moved_copies(ground, tables, r, e, change):
    """Change how many copies of an expert ranks hold; return how many, and moved slots added."""
    at, is_rank = r * ground.num_experts + e, r < ground.num_ranks
    copies = tl.load(tables.copies + at, mask=is_rank, other=0).to(tl.int32)
    surplus = tl.load(tables.surplus + at, mask=is_rank, other=0).to(tl.int32)
    tl.debug_barrier()
    tl.store(tables.copies + at, (copies + change).to(tl.int8), mask=is_rank)
    tl.store(tables.surplus + at, (surplus + change).to(tl.int8), mask=is_rank)
    added = tl.maximum(surplus + change, 0) - tl.maximum(surplus, 0)
    return copies + change, tl.sum(tl.where(is_rank, added, 0), axis=0)


@triton.jit
def _add(load, variance, own, other, where, share, mean, own_variance, both):
    """Return mean and variance of loads, and covariances with two experts, with more of one."""
    spread = 2.0 * share * own + share * share * own_variance
    return (
        tl.where(where, load + share * mean, load),
        tl.where(where, variance + spread, variance),
        tl.where(where, own + share * own_variance, own),
        tl.where(where, other + share * both, other),
    )


@triton.jit
def _weighed(
    ground, tables, load, variance, old, new, is_first, is_second,
    share_old, share_new, times_old, times_new, more_old, more_new, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Return mean and variance of loads after the step, part by part as the host adds them."""
    r = tl.arange(0, BLOCK_R)
    at, is_rank = r * ground.num_experts, r < ground.num_ranks
    a = tl.load(tables.cross + at + old, mask=is_rank, other=0.0)
    b = tl.load(tables.cross + at + new, mask=is_rank, other=0.0)
    mean_a, mean_b = tl.load(ground.mean + old), tl.load(ground.mean + new)
    aa, bb = covariance_of(ground, old, old), covariance_of(ground, new, new)
    ab, ba = covariance_of(ground, old, new), covariance_of(ground, new, old)
    load, variance, a, b = _add(load, variance, a, b, is_first, -share_old, mean_a, aa, ab)
    load, variance, b, a = _add(load, variance, b, a, is_first, share_new, mean_b, bb, ba)
    load, variance, b, a = _add(load, variance, b, a, is_second, -share_new, mean_b, bb, ba)
    load, variance, a, b = _add(load, variance, a, b, is_second, share_old, mean_a, aa, ab)
    for turn in range(tl.max(times_old, axis=0)):
        is_more = turn < times_old
        load, variance, a, b = _add(load, variance, a, b, is_more, more_old, mean_a, aa, ab)
    for turn in range(tl.max(times_new, axis=0)):
        is_more = turn < times_new
        load, variance, b, a = _add(load, variance, b, a, is_more, more_new, mean_b, bb, ba)
    tl.debug_barrier()
    return load, variance


@triton.jit
def _cross(
    ground, tables, old, new, is_first, is_second,
    share_old, share_new, times_old, times_new, more_old, more_new,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Bring the covariances of ranks that change up to date. Ends with a barrier."""
    r = tl.arange(0, BLOCK_R)
    has_changed = is_first | is_second | (times_old > 0) | (times_new > 0)
    has_changed = has_changed & (r < ground.num_ranks)
    most_old, most_new = tl.max(times_old, axis=0), tl.max(times_new, axis=0)
    for at in range(0, ground.num_experts, BLOCK_C):
        c = at + tl.arange(0, BLOCK_C)
        is_expert = c < ground.num_experts
        place = tables.cross + (r * ground.num_experts)[:, None] + c[None, :]
        is_place = has_changed[:, None] & is_expert[None, :]
        a = covariance_at(ground, old, c, is_expert)[None, :]
        b = covariance_at(ground, new, c, is_expert)[None, :]
        cross = tl.load(place, mask=is_place, other=0.0)
        cross = tl.where(is_first[:, None], cross + -share_old * a, cross)
        cross = tl.where(is_first[:, None], cross + share_new * b, cross)
        cross = tl.where(is_second[:, None], cross + -share_new * b, cross)
        cross = tl.where(is_second[:, None], cross + share_old * a, cross)
        for turn in range(most_old):
            cross = tl.where((turn < times_old)[:, None], cross + more_old * a, cross)
        for turn in range(most_new):
            cross = tl.where((turn < times_new)[:, None], cross + more_new * b, cross)
        tl.debug_barrier()
        tl.store(place, cross, mask=is_place)
    tl.debug_barrier()
