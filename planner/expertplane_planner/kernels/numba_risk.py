"""The risk-aware packing for the CPU: compiled loops, rows shared out to threads.

A pack is judged by (mean + risk * standard deviation of its load) * slowness. `cross[p, e]` is the
covariance of the load of pack p with the tokens of expert e; with it, any swap is judged in a few
operations.

Legend: L layers, E logical experts, N replicas of a row, M packs, K places per pack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .numba_cpu import compiled, over_rows, part_of_kernel


if TYPE_CHECKING:
    from torch import Tensor


def pack_by_risk(
    mean: Tensor,
    covariance: Tensor,
    share: Tensor,
    expert: Tensor,
    order: Tensor,
    slowness: Tensor,
    greedy_risk: Tensor,
    *,
    risk: float,
    max_swaps: int,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """See `expertplane_planner.kernels.pack_by_risk`."""
    held = torch.empty_like(expert)
    peak = mean.new_empty(len(expert))
    experts = (mean.numpy(), covariance.numpy(), share.numpy(), expert.numpy(), order.numpy())
    tables = (*experts, slowness.numpy(), greedy_risk.numpy(), held.numpy(), peak.numpy())
    over_rows(
        len(expert),
        lambda rows: _pack_rows(*tables, risk, max_swaps, tolerance, rows.start, rows.stop),
    )
    return held, peak


@compiled
def _pack_rows(
    mean: Any,
    covariance: Any,
    share: Any,
    expert: Any,
    order: Any,
    slowness: Any,
    greedy_risk: Any,
    held: Any,
    peak: Any,
    risk: float,
    max_swaps: int,
    tolerance: float,
    start: int,
    stop: int,
) -> None:
    num_nodes = len(expert) // len(mean)
    num_packs = slowness.shape[1]
    num_filled = np.empty(num_packs, dtype=np.int64)
    load = np.empty(num_packs)
    variance = np.empty(num_packs)
    cross = np.empty((num_packs, mean.shape[1]))
    for row in range(start, stop):
        layer = row // num_nodes
        num_filled[:] = 0
        load[:] = 0.0
        variance[:] = 0.0
        cross[:] = 0.0
        _pack(
            mean[layer],
            covariance[layer],
            share[layer],
            expert[row],
            order[row],
            slowness[row],
            held[row],
            num_filled,
            load,
            variance,
            cross,
            greedy_risk[row],
        )
        peak[row] = _swap(
            mean[layer],
            covariance[layer],
            share[layer],
            slowness[row],
            held[row],
            load,
            variance,
            cross,
            risk,
            max_swaps,
            tolerance,
        )


@part_of_kernel
def _holds(held: Any, first: int, stop: int, wanted: int) -> bool:
    for place in range(first, stop):  # noqa: SIM110 - compiled code knows no generators
        if held[place] == wanted:
            return True
    return False


@part_of_kernel
def _pack(
    mean: Any,
    covariance: Any,
    share: Any,
    expert: Any,
    order: Any,
    slowness: Any,
    held: Any,
    num_filled: Any,
    load: Any,
    variance: Any,
    cross: Any,
    risk: float,
) -> None:
    num_packs = len(load)
    capacity = len(held) // num_packs
    for item in order:
        e = expert[item]
        added = mean[e] * share[e]
        own = covariance[e, e] * share[e] * share[e]
        best, least = -1, np.inf
        any_best, any_least = -1, np.inf  # whatever it holds
        for p in range(num_packs):
            if num_filled[p] == capacity:
                continue
            spread = variance[p] + 2.0 * cross[p, e] * share[e] + own
            value = (load[p] + added + risk * np.sqrt(max(spread, 0.0))) * slowness[p]
            if value < any_least:
                any_best, any_least = p, value
            if value < least and not _holds(held, p * capacity, p * capacity + num_filled[p], e):
                best, least = p, value
        put = e
        if best < 0:
            best = any_best
            place = _place_to_give_up(mean, share, slowness, held, num_filled, load, e, best)
            if place >= 0:
                put = held[place]
                giver = place // capacity
                _take_out(mean, covariance, share, load, variance, cross, giver, put)
                _put_in(mean, covariance, share, load, variance, cross, giver, e)
                held[place] = e
        held[best * capacity + num_filled[best]] = put
        num_filled[best] += 1
        _put_in(mean, covariance, share, load, variance, cross, best, put)


@part_of_kernel
def _place_to_give_up(
    mean: Any,
    share: Any,
    slowness: Any,
    held: Any,
    num_filled: Any,
    load: Any,
    e: int,
    receiver: int,
) -> int:
    """Return whose place in a full pack the expert takes, -1 where no pack can help."""
    num_packs = len(load)
    capacity = len(held) // num_packs
    giver = -1
    for p in range(num_packs):
        if (
            num_filled[p] == capacity
            and (giver < 0 or load[p] * slowness[p] < load[giver] * slowness[giver])
            and not _holds(held, p * capacity, (p + 1) * capacity, e)
        ):
            giver = p
    if giver < 0:
        return -1
    first = receiver * capacity
    chosen, least = -1, np.inf
    for place in range(giver * capacity, (giver + 1) * capacity):
        f = held[place]
        if mean[f] * share[f] < least and not _holds(held, first, first + num_filled[receiver], f):
            chosen, least = place, mean[f] * share[f]
    return chosen


@part_of_kernel
def _put_in(
    mean: Any, covariance: Any, share: Any, load: Any, variance: Any, cross: Any, p: int, e: int
) -> None:
    own = covariance[e, e] * share[e] * share[e]
    variance[p] = variance[p] + 2.0 * cross[p, e] * share[e] + own
    load[p] += mean[e] * share[e]
    for other in range(len(mean)):
        cross[p, other] += covariance[e, other] * share[e]


@part_of_kernel
def _take_out(
    mean: Any, covariance: Any, share: Any, load: Any, variance: Any, cross: Any, p: int, e: int
) -> None:
    own = covariance[e, e] * share[e] * share[e]
    variance[p] = variance[p] - 2.0 * cross[p, e] * share[e] + own
    load[p] -= mean[e] * share[e]
    for other in range(len(mean)):
        cross[p, other] -= covariance[e, other] * share[e]


@part_of_kernel
def _swap(
    mean: Any,
    covariance: Any,
    share: Any,
    slowness: Any,
    held: Any,
    load: Any,
    variance: Any,
    cross: Any,
    risk: float,
    max_swaps: int,
    tolerance: float,
) -> float:
    """Swap while that helps, and return what the worst pack is worth then."""
    capacity = len(held) // len(load)
    total = 0.0
    for pack_load in load:
        total += pack_load
    threshold = tolerance * (total / len(load))
    value = np.empty(len(load))
    for step in range(max_swaps + 1):
        for p in range(len(load)):
            value[p] = (load[p] + risk * np.sqrt(max(variance[p], 0.0))) * slowness[p]
        heavy = int(np.argmax(value))  # the first of several
        if step == max_swaps:
            break
        given, taken = _best_swap(
            mean,
            covariance,
            share,
            slowness,
            held,
            load,
            variance,
            cross,
            value,
            risk,
            heavy,
            threshold,
        )
        if given < 0:
            break
        light = taken // capacity
        i, j = held[given], held[taken]
        _exchange(mean, covariance, share, load, variance, cross, heavy, light, i, j)
        held[given], held[taken] = j, i
    return float(value.max())


@part_of_kernel
def _exchange(
    mean: Any,
    covariance: Any,
    share: Any,
    load: Any,
    variance: Any,
    cross: Any,
    heavy: int,
    light: int,
    i: int,
    j: int,
) -> None:
    """Move a replica of expert i from one pack to another, and one of expert j back."""
    own_i = covariance[i, i] * share[i] * share[i]
    own_j = covariance[j, j] * share[j] * share[j]
    both = 2.0 * covariance[i, j] * share[i] * share[j]
    variance[heavy] = (
        variance[heavy]
        - 2.0 * cross[heavy, i] * share[i]
        + own_i
        + 2.0 * cross[heavy, j] * share[j]
        - both
        + own_j
    )
    variance[light] = (
        variance[light]
        + 2.0 * cross[light, i] * share[i]
        + own_i
        - 2.0 * cross[light, j] * share[j]
        - both
        + own_j
    )
    moved = mean[i] * share[i] - mean[j] * share[j]
    load[heavy] -= moved
    load[light] += moved
    for other in range(len(mean)):
        change = covariance[i, other] * share[i] - covariance[j, other] * share[j]
        cross[heavy, other] -= change
        cross[light, other] += change


@part_of_kernel
def _best_swap(
    mean: Any,
    covariance: Any,
    share: Any,
    slowness: Any,
    held: Any,
    load: Any,
    variance: Any,
    cross: Any,
    value: Any,
    risk: float,
    heavy: int,
    threshold: float,
) -> tuple[int, int]:
    capacity = len(held) // len(load)
    first, stop = heavy * capacity, (heavy + 1) * capacity
    best, given, taken = threshold, -1, -1
    squared_risk = risk * risk
    for p in range(len(load)):
        if p == heavy:
            continue
        for to in range(p * capacity, (p + 1) * capacity):
            j = held[to]
            own_j = covariance[j, j] * share[j] * share[j]
            heavy_j = 2.0 * cross[heavy, j] * share[j]
            light_j = 2.0 * cross[p, j] * share[j]
            for at in range(first, stop):
                i = held[at]
                moved = mean[i] * share[i] - mean[j] * share[j]
                own_i = covariance[i, i] * share[i] * share[i]
                both = 2.0 * covariance[i, j] * share[i] * share[j]
                heavy_spread = variance[heavy] - 2.0 * cross[heavy, i] * share[i] + own_i
                heavy_spread = heavy_spread + heavy_j - both + own_j
                # Compared in squares first: most swaps are no good, and roots cost most.
                room = (value[heavy] - best) / slowness[heavy] - (load[heavy] - moved)
                if room <= 0.0 or squared_risk * heavy_spread >= room * room:
                    continue
                light_spread = variance[p] + 2.0 * cross[p, i] * share[i] + own_i
                light_spread = light_spread - light_j - both + own_j
                room = (value[heavy] - best) / slowness[p] - (load[p] + moved)
                if room <= 0.0 or squared_risk * light_spread >= room * room:
                    continue
                gain = value[heavy] - max(
                    (load[heavy] - moved + risk * np.sqrt(max(heavy_spread, 0.0)))
                    * slowness[heavy],
                    (load[p] + moved + risk * np.sqrt(max(light_spread, 0.0))) * slowness[p],
                )
                if (
                    gain > best
                    and not _holds(held, p * capacity, (p + 1) * capacity, i)
                    and not _holds(held, first, stop, j)
                ):
                    best, given, taken = gain, at, to
    return given, taken
