"""Packing and swapping under risk, inside a CUDA program.

What goes from function to function:

- `known`: (mean, covariance, share, num_experts): pointers to [E], [E, E], [E], and E.
- `judge`: (risk, slow): deviations that count, and slowness of the packs, [BLOCK_M].
- `sizes`: (num_packs, capacity).
- `cross`: pointer to [M, E], covariance of the load of a pack with the tokens of an expert.
- `held` [BLOCK_M, BLOCK_K], what each place holds, -1 for nothing; `load`, `variance` [BLOCK_M].

Legend: E logical experts, M packs, K places per pack.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_parts import at_index, holds, ordered_sum, row_of, value_of


@triton.jit
def packed(
    known,
    cross,
    judge,
    sizes,
    sorted_expert,
    num_replicas,
    BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return what packs hold, their loads and variances, one expert after another packed."""
    mean, covariance, share, num_experts = known
    risk, slow = judge
    num_packs, capacity = sizes
    p, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    is_pack = p < num_packs
    held = tl.full([BLOCK_M, BLOCK_K], -1, tl.int32)
    num_filled = tl.zeros([BLOCK_M], tl.int32)
    load = tl.zeros([BLOCK_M], tl.float64)
    variance = tl.zeros([BLOCK_M], tl.float64)
    for step in range(num_replicas):
        put = tl.load(sorted_expert + step)
        tokens, part, own = _replica(known, put)
        with_it = tl.load(cross + p * num_experts + put, mask=is_pack, other=0.0)
        spread = variance + 2.0 * with_it * part + own
        is_open = is_pack & (num_filled < capacity)
        has_it = holds(held, put)
        value = tl.where(is_open, value_of(risk, slow, load + tokens, spread), float("inf"))
        free = tl.where(has_it, float("inf"), value)
        pack = tl.argmin(free, axis=0)
        if tl.min(free, axis=0) == float("inf"):
            pack = tl.argmin(value, axis=0)
            can_give = is_pack & (is_open == 0) & (has_it == 0)
            giver_time = tl.where(can_give, load * slow, float("inf"))
            packs = held, load, variance
            held, load, variance, put = _make_room(
                known, cross, packs, capacity, put, pack, giver_time, BLOCK_E, BLOCK_M, BLOCK_K
            )
            tokens, part, own = _replica(known, put)
            spread = variance + 2.0 * tl.load(cross + pack * num_experts + put) * part + own
        is_place = (p == pack)[:, None] & (k[None, :] == num_filled[:, None])
        held = tl.where(is_place, put, held)
        num_filled = tl.where(p == pack, num_filled + 1, num_filled)
        variance = tl.where(p == pack, spread, variance)
        load = tl.where(p == pack, load + tokens, load)
        _add_row(known, cross, pack, put, part, BLOCK_E)
    return held, load, variance


@triton.jit
def _make_room(
    known,
    cross,
    packs,
    capacity,
    e,
    receiver,
    giver_time,
    BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Put an expert into a full pack, if one can take it; return the packs and who goes on.

    Where all packs with room hold the expert: the full pack of least time gives its lightest
    replica that the receiver lacks.

    Args:
        known: See the module.
        cross: See the module.
        packs: held, load, variance.
        capacity: K.
        e: The expert.
        receiver: The pack that gets what another gives up.
        giver_time: [BLOCK_M], load * slowness of packs that can give, infinite for others.
        BLOCK_E: A power of two, at least E.
        BLOCK_M: A power of two, at least M.
        BLOCK_K: A power of two, at least K.
    """
    mean, covariance, share, num_experts = known
    held, load, variance = packs
    p, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    giver = tl.argmin(giver_time, axis=0)
    at_giver, at_receiver = row_of(held, p, giver), row_of(held, p, receiver)
    is_kept = tl.max((at_giver[:, None] == at_receiver[None, :]).to(tl.int32), axis=1) > 0
    shown = tl.maximum(at_giver, 0)
    tokens = tl.load(mean + shown) * tl.load(share + shown)
    tokens = tl.where(is_kept | (k >= capacity), float("inf"), tokens)
    put = e
    if (tl.min(giver_time, axis=0) < float("inf")) & (tl.min(tokens, axis=0) < float("inf")):
        place = tl.argmin(tokens, axis=0)
        put = at_index(at_giver, k, place)
        less, part, own = _replica(known, put)
        with_it = tl.load(cross + giver * num_experts + put)
        variance = tl.where(p == giver, variance - 2.0 * with_it * part + own, variance)
        load = tl.where(p == giver, load - less, load)
        _add_row(known, cross, giver, put, -part, BLOCK_E)
        more, part, own = _replica(known, e)
        with_it = tl.load(cross + giver * num_experts + e)
        variance = tl.where(p == giver, variance + 2.0 * with_it * part + own, variance)
        load = tl.where(p == giver, load + more, load)
        _add_row(known, cross, giver, e, part, BLOCK_E)
        held = tl.where((p == giver)[:, None] & (k == place)[None, :], e, held)
    return held, load, variance, put


@triton.jit
def swapped(
    known,
    cross,
    judge,
    sizes,
    packs,
    tolerance,
    max_swaps,
    BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return what packs hold after the swaps, and what the worst of them is worth."""
    risk, slow = judge
    num_packs, capacity = sizes
    held, load, variance = packs
    p, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    threshold = tolerance * (ordered_sum(load, p, num_packs) / num_packs)
    value = tl.where(p < num_packs, value_of(risk, slow, load, variance), float("-inf"))
    worst = tl.max(value, axis=0)
    num_left = max_swaps
    while num_left > 0:
        num_left -= 1
        heavy = tl.argmax(value, axis=0)
        packs = held, load, variance
        gain, given = _gains(known, cross, judge, sizes, packs, heavy, worst, BLOCK_M, BLOCK_K)
        of_pack = tl.max(gain, axis=1)
        if tl.max(of_pack, axis=0) > threshold:
            light = tl.argmax(of_pack, axis=0)
            to = tl.argmax(row_of(gain, p, light), axis=0)
            at = at_index(row_of(given, p, light), k, to)
            i, j = at_index(row_of(held, p, heavy), k, at), at_index(row_of(held, p, light), k, to)
            is_given = (p == heavy)[:, None] & (k == at)[None, :]
            is_taken = (p == light)[:, None] & (k == to)[None, :]
            held = tl.where(is_given, j, tl.where(is_taken, i, held))
            load, variance = _exchanged(
                known, cross, load, variance, heavy, light, i, j, BLOCK_E, BLOCK_M
            )
            value = tl.where(p < num_packs, value_of(risk, slow, load, variance), float("-inf"))
            worst = tl.max(value, axis=0)
        else:
            num_left = 0
    return held, worst


@triton.jit
def _gains(
    known,
    cross,
    judge,
    sizes,
    packs,
    heavy,
    worst,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return the best gain of a swap with each place, and the place in the worst pack."""
    mean, covariance, share, num_experts = known
    risk, slow = judge
    num_packs, capacity = sizes
    held, load, variance = packs
    p, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    is_pack = p < num_packs
    at_heavy = row_of(held, p, heavy)
    is_barred = ((p == heavy) | (p >= num_packs))[:, None] | (k >= capacity)[None, :]
    for at in range(capacity):
        is_barred = is_barred | (held == at_index(at_heavy, k, at))
    j = tl.maximum(held, 0)
    tokens_j, share_j, own_j = _replica(known, j)
    heavy_j = 2.0 * tl.load(cross + heavy * num_experts + j) * share_j
    of_pack = (tl.where(is_pack, p, 0) * num_experts)[:, None]
    light_j = 2.0 * tl.load(cross + of_pack + j) * share_j
    heavy_load, heavy_slow = at_index(load, p, heavy), at_index(slow, p, heavy)
    heavy_variance = at_index(variance, p, heavy)
    best = tl.full([BLOCK_M, BLOCK_K], float("-inf"), tl.float64)
    given = tl.zeros([BLOCK_M, BLOCK_K], tl.int32)
    for at in range(capacity):
        i = at_index(at_heavy, k, at)
        tokens_i, share_i, own_i = _replica(known, i)
        both = 2.0 * _covariance(covariance, i, j, num_experts) * share_i * share_j
        moved = tokens_i - tokens_j
        heavy_i = 2.0 * tl.load(cross + heavy * num_experts + i) * share_i
        heavy_spread = (heavy_variance - heavy_i + own_i) + heavy_j - both + own_j
        with_i = tl.load(cross + p * num_experts + i, mask=is_pack, other=0.0)
        light_spread = variance + 2.0 * with_i * share_i + own_i
        light_spread = light_spread[:, None] - light_j - both + own_j
        after = tl.maximum(
            value_of(risk, heavy_slow, heavy_load - moved, heavy_spread),
            value_of(risk, slow[:, None], load[:, None] + moved, light_spread),
        )
        is_better = (worst - after > best) & (is_barred == 0) & (holds(held, i) == 0)[:, None]
        best = tl.where(is_better, worst - after, best)
        given = tl.where(is_better, at, given)
    return best, given


@triton.jit
def _exchanged(
    known,
    cross,
    load,
    variance,
    heavy,
    light,
    i,
    j,
    BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Return loads and variances after expert i has moved to the lighter pack, and j back.

    Ends with a barrier.
    """
    mean, covariance, share, num_experts = known
    p = tl.arange(0, BLOCK_M)
    tokens_i, share_i, own_i = _replica(known, i)
    tokens_j, share_j, own_j = _replica(known, j)
    both = 2.0 * _covariance(covariance, i, j, num_experts) * share_i * share_j
    at_heavy, at_light = cross + heavy * num_experts, cross + light * num_experts
    with_i, with_j = tl.load(at_heavy + i), tl.load(at_heavy + j)
    new = variance - 2.0 * with_i * share_i + own_i + 2.0 * with_j * share_j - both + own_j
    after = tl.where(p == heavy, new, variance)
    with_i, with_j = tl.load(at_light + i), tl.load(at_light + j)
    new = variance + 2.0 * with_i * share_i + own_i - 2.0 * with_j * share_j - both + own_j
    after = tl.where(p == light, new, after)
    moved = tokens_i - tokens_j
    load = tl.where(p == heavy, load - moved, load)
    load = tl.where(p == light, load + moved, load)
    other = tl.arange(0, BLOCK_E)
    is_expert = other < num_experts
    shown = tl.where(is_expert, other, 0)
    change = _covariance(covariance, i, shown, num_experts) * share_i
    change -= _covariance(covariance, j, shown, num_experts) * share_j
    new_heavy = tl.load(at_heavy + shown) - change
    new_light = tl.load(at_light + shown) + change
    tl.debug_barrier()
    tl.store(at_heavy + other, new_heavy, mask=is_expert)
    tl.store(at_light + other, new_light, mask=is_expert)
    tl.debug_barrier()
    return load, after


@triton.jit
def _replica(known, e):
    """Return expected tokens, share and variance of one replica of an expert, or of several."""
    mean, covariance, share, num_experts = known
    part = tl.load(share + e)
    return tl.load(mean + e) * part, part, _covariance(covariance, e, e, num_experts) * part * part


@triton.jit
def _covariance(covariance, i, j, num_experts):
    """Return the covariance of all tokens of two experts."""
    return tl.load(covariance + i.to(tl.int64) * num_experts + j).to(tl.float64)


@triton.jit
def _add_row(known, cross, pack, e, part, BLOCK_E: tl.constexpr):
    """Add a share of an expert's covariances to a pack's. Ends with a barrier."""
    mean, covariance, share, num_experts = known
    other = tl.arange(0, BLOCK_E)
    is_expert = other < num_experts
    shown = tl.where(is_expert, other, 0)
    table = cross + pack * num_experts
    new = tl.load(table + shown) + _covariance(covariance, e, shown, num_experts) * part
    tl.debug_barrier()
    tl.store(table + other, new, mask=is_expert)
    tl.debug_barrier()
