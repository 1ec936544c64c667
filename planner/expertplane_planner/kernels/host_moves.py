"""Swaps and replacements, judged one by one: compiled loops over a layer's ranks and slots.

A rank is judged by (mean + risk * standard deviation of its load) * slowness. `cross[r, e]` is the
covariance of the load of rank r with the tokens of expert e; with it, any move is judged in a few
operations for each rank that it changes. All in one module, because what numba keeps on disk is as
old as the file of the kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiling import compiled, part_of_kernel
from .host_tables import Known, Limits


@compiled
def improve_layers(
    layers: Any,
    machine: Any,
    starts: Any,
    tables: Any,
    search: Any,
    bounds: Any,
    start: int,
    stop: int,
) -> None:
    """Search from starts `start` to `stop` of their order, see `host_improve`."""
    mean, covariance, home = layers
    slowness, node, risk = machine
    per_rank = starts.held.shape[1] // len(slowness)
    for row in starts.order[start:stop]:
        layer = starts.layer[row]
        known = Known(mean[layer], covariance[layer], slowness, node, home[layer], risk, per_rank)
        tables.held[:] = starts.held[row]
        num_moved = _count_moved(known, tables, starts.origin[row])
        _judge_all(known, tables)
        mean_load = 0.0
        for rank_load in tables.load:
            mean_load += rank_load / len(slowness)
        for step in range(search.slots.shape[1] + 1):
            for r in range(len(slowness)):
                tables.value[r] = _value(risk, slowness[r], tables.load[r], tables.variance[r])
            heavy = int(np.argmax(tables.value))  # the first of several
            search.peak[row, step] = tables.value[heavy]
            search.moved[row, step] = num_moved
            search.num_steps[row] = step
            if step == search.slots.shape[1]:
                break
            limits = Limits(
                heavy,
                bounds.tolerance * mean_load,
                bounds.price[row] * mean_load,
                max(bounds.max_moved[row] - num_moved, 0),  # what adds no move is always allowed
                bounds.max_count,
            )
            slots, experts = search.slots[row, step], search.experts[row, step]
            num_moved += _best_step(known, tables, limits, slots, experts)
            if slots[0] < 0:
                break
            _take_step(known, tables, slots, experts)


@part_of_kernel
def _count_moved(known: Any, tables: Any, origin: Any) -> int:
    """Fill `surplus` and return how many copies ranks hold more than in the origin."""
    held, surplus = tables.held, tables.surplus
    surplus[:] = 0
    for slot in range(len(held)):
        surplus[slot // known.per_rank, held[slot]] += 1
        if origin[slot] >= 0:
            surplus[slot // known.per_rank, origin[slot]] -= 1
    num_moved = 0
    for slot in range(len(held)):  # one look at each expert of a rank
        r, e = slot // known.per_rank, held[slot]
        is_repeated = False
        for other in range(r * known.per_rank, slot):
            is_repeated = is_repeated or held[other] == e
        if surplus[r, e] > 0 and not is_repeated:
            num_moved += surplus[r, e]
    return num_moved


@part_of_kernel
def _judge_all(known: Any, tables: Any) -> None:
    """Fill all tables from what the slots hold."""
    tables.counts[:] = 0
    for e in tables.held:
        tables.counts[e] += 1
    tables.load[:] = 0.0
    tables.variance[:] = 0.0
    tables.cross[:] = 0.0
    for slot in range(len(tables.held)):
        e = tables.held[slot]
        _add(known, tables, slot // known.per_rank, e, 1.0 / tables.counts[e])
    _link(tables)


@part_of_kernel
def _add(known: Any, tables: Any, r: int, e: int, share: float) -> None:
    """Give a rank a share of an expert's tokens more, or less where it is negative."""
    cross, covariance = tables.cross[r], known.covariance[e]
    tables.load[r] += share * known.mean[e]
    tables.variance[r] += 2.0 * share * cross[e] + share * share * covariance[e]
    for other in range(len(cross)):
        cross[other] += share * covariance[other]


@part_of_kernel
def _link(tables: Any) -> None:
    """String the slots of each expert together, ascending."""
    tables.first[:] = -1
    for slot in range(len(tables.held) - 1, -1, -1):
        e = tables.held[slot]
        tables.following[slot] = tables.first[e]
        tables.first[e] = slot


@part_of_kernel
def _value(risk: float, slowness: float, load: float, variance: float) -> float:
    """Return what a rank of this mean and variance of its load is worth; less is better."""
    return float((load + risk * np.sqrt(max(variance, 0.0))) * slowness)


@part_of_kernel
def _exceeds(risk: float, slowness: float, load: float, variance: float, limit: float) -> bool:
    """Return whether that is not below a limit. In squares: roots cost most."""
    room = limit / slowness - load
    return room <= 0.0 or risk * risk * variance >= room * room


@part_of_kernel
def _copies(held: Any, per_rank: int, r: int, e: int) -> int:
    """Return how many slots of a rank hold an expert."""
    count = 0
    for slot in range(r * per_rank, (r + 1) * per_rank):
        if held[slot] == e:
            count += 1
    return count


@part_of_kernel
def _cost_of_change(surplus: Any, r: int, given: int, taken: int) -> int:
    """Return how many moved slots it adds when a rank gives one expert up for another."""
    cost = 0
    if surplus[r, taken] >= 0:
        cost += 1
    if surplus[r, given] > 0:
        cost -= 1
    return cost


@part_of_kernel
def _effort(cost: int) -> float:
    """Return what a gain is divided by: moved slots, and a half where none is added."""
    return float(cost) if cost > 0 else 0.5


@part_of_kernel
def _least_gain(limits: Any, best: float, cost: int) -> float:
    """Return what a step must gain to be the best so far."""
    return float(max(max(best * _effort(cost), limits.threshold), limits.price * cost))


@part_of_kernel
def _best_step(known: Any, tables: Any, limits: Any, slots: Any, experts: Any) -> int:
    """Write down the best step, slot -1 if there is none, and return the moved slots it adds."""
    rate, given, to, cost = _best_swap(known, tables, limits)
    other_rate, slot, expert, other_cost = _best_replacement(known, tables, limits, rate)
    if other_rate > rate:
        slots[0], slots[1] = slot, -1
        experts[0], experts[1] = expert, -1
        return other_cost
    slots[0], slots[1] = given, to
    if given >= 0:
        experts[0], experts[1] = tables.held[to], tables.held[given]
    return cost


@part_of_kernel
def _best_swap(known: Any, tables: Any, limits: Any) -> tuple[float, int, int, int]:
    """Return gain per moved slot, slot on the worst rank, slot elsewhere, moved slots."""
    # In names of their own: a field of a tuple is not free in the innermost loop.
    held, counts, cross, surplus = tables.held, tables.counts, tables.cross, tables.surplus
    mean, covariance, slowness = known.mean, known.covariance, known.slowness
    heavy, per_rank, risk = limits.heavy, known.per_rank, known.risk
    peak = tables.value[heavy]
    best, best_given, best_to, best_cost = 0.0, -1, -1, 0
    for p in range(len(slowness)):
        if not _may_swap(known, heavy, p):
            continue
        for given in range(heavy * per_rank, (heavy + 1) * per_rank):
            i = held[given]
            if _copies(held, per_rank, p, i) > 0:
                continue
            share_i = 1.0 / counts[i]
            own_i = covariance[i, i] * share_i * share_i
            heavy_load = tables.load[heavy] - mean[i] * share_i
            light_load = tables.load[p] + mean[i] * share_i
            heavy_spread = tables.variance[heavy] - 2.0 * cross[heavy, i] * share_i + own_i
            light_spread = tables.variance[p] + 2.0 * cross[p, i] * share_i + own_i
            for to in range(p * per_rank, (p + 1) * per_rank):
                j = held[to]
                share_j = 1.0 / counts[j]
                new_load = heavy_load + mean[j] * share_j
                if new_load * slowness[heavy] >= peak:
                    continue
                cost = _cost_of_change(surplus, heavy, i, j) + _cost_of_change(surplus, p, j, i)
                limit = peak - _least_gain(limits, best, cost)
                own_j = covariance[j, j] * share_j * share_j
                own_j -= 2.0 * covariance[i, j] * share_i * share_j
                spread = heavy_spread + 2.0 * cross[heavy, j] * share_j + own_j
                if cost > limits.room or _exceeds(risk, slowness[heavy], new_load, spread, limit):
                    continue
                other_load = light_load - mean[j] * share_j
                other = light_spread - 2.0 * cross[p, j] * share_j + own_j
                is_too_much = _exceeds(risk, slowness[p], other_load, other, limit)
                if is_too_much or _copies(held, per_rank, heavy, j) > 0:
                    continue
                worst = max(
                    _value(risk, slowness[heavy], new_load, spread),
                    _value(risk, slowness[p], other_load, other),
                )
                rate = (peak - worst) / _effort(cost)
                if rate > best:
                    best, best_given, best_to, best_cost = rate, given, to, cost
    return best, best_given, best_to, best_cost


@part_of_kernel
def _may_swap(known: Any, r: int, p: int) -> bool:
    """Return whether two ranks may exchange experts: those tied to a node stay there."""
    return r != p and (known.home[0] < 0 or known.node[r] == known.node[p])


@part_of_kernel
def _best_replacement(
    known: Any, tables: Any, limits: Any, best: float
) -> tuple[float, int, int, int]:
    """Return gain per moved slot, slot, the expert that it holds then, moved slots."""
    held, counts, mean = tables.held, tables.counts, known.mean
    heavy, per_rank = limits.heavy, known.per_rank
    peak = tables.value[heavy]
    best_slot, best_expert, best_cost = -1, -1, 0
    for slot in range(len(held)):
        p, i = slot // per_rank, held[slot]
        if counts[i] < 2 or not _may_leave(known, tables, p, i):
            continue
        left_to_others = _others_without(known, tables, p, i)
        if left_to_others >= peak - limits.threshold:
            continue
        rest = tables.load[p] - mean[i] / counts[i]
        # A slot of the worst rank may take any expert, another one takes one of the worst rank's.
        for candidate in range(len(mean) if p == heavy else per_rank):
            j = candidate if p == heavy else held[heavy * per_rank + candidate]
            # Loads alone first: most moves fail there.
            if (rest + mean[j] / (counts[j] + 1)) * known.slowness[p] >= peak or j == i:
                continue
            cost = _cost_of_change(tables.surplus, p, i, j)
            limit = peak - _least_gain(limits, best, cost)
            if left_to_others >= limit or (
                cost > limits.room
                or counts[j] >= limits.max_count
                or (known.home[j] >= 0 and known.home[j] != known.node[p])
                or _copies(held, per_rank, p, j) > 0
            ):
                continue
            worst = _worst_after(known, tables, heavy, p, i, j, limit)
            if worst < limit:
                # So that what is best does not depend on what was looked at before.
                rate = (peak - max(worst, left_to_others)) / _effort(cost)
                if rate > best:
                    best, best_slot, best_expert, best_cost = rate, slot, j, cost
    return best, best_slot, best_expert, best_cost


@part_of_kernel
def _may_leave(known: Any, tables: Any, p: int, e: int) -> bool:
    """Return whether an expert keeps a replica at home without the one on a rank."""
    home = known.home[e]
    if home < 0 or home != known.node[p]:
        return True
    count = 0
    slot = tables.first[e]
    while slot >= 0:
        if known.node[slot // known.per_rank] == home:
            count += 1
        slot = tables.following[slot]
    return count > 1


@part_of_kernel
def _others_without(known: Any, tables: Any, p: int, e: int) -> float:
    """Return the worst of the other ranks with an expert once a rank has given its replica up."""
    more = 1.0 / (tables.counts[e] - 1) - 1.0 / tables.counts[e]
    worst = -np.inf
    slot = tables.first[e]
    while slot >= 0:
        r = slot // known.per_rank
        if r != p:
            change = _copies(tables.held, known.per_rank, r, e) * more
            spread = tables.variance[r] + 2.0 * change * tables.cross[r, e]
            spread += change * change * known.covariance[e, e]
            worst = max(
                worst,
                _value(
                    known.risk, known.slowness[r], tables.load[r] + change * known.mean[e], spread
                ),
            )
        slot = tables.following[slot]
    return worst


@part_of_kernel
def _worst_after(
    known: Any, tables: Any, heavy: int, p: int, i: int, j: int, limit: float
) -> float:
    """Return the worst of all ranks that change when rank p gives up one expert for another.

    Infinity as soon as one is not below the limit.
    """
    # The worst rank first, then the one that changes its expert: most moves fail there.
    worst = _after(known, tables, heavy, p, i, j, limit)
    if worst < limit:
        worst = max(worst, _after(known, tables, p, p, i, j, limit))
    for turn in range(2):
        slot = tables.first[i] if turn == 0 else tables.first[j]
        while slot >= 0 and worst < limit:
            r = slot // known.per_rank
            if r not in (p, heavy):
                worst = max(worst, _after(known, tables, r, p, i, j, limit))
            slot = tables.following[slot]
    return worst


@part_of_kernel
def _after(known: Any, tables: Any, r: int, p: int, i: int, j: int, limit: float) -> float:
    """Return what rank r is worth then, infinity if that is not below the limit."""
    mean, covariance, cross = known.mean, known.covariance, tables.cross
    share_i, share_j = 1.0 / (tables.counts[i] - 1), 1.0 / (tables.counts[j] + 1)
    change_i = _copies(tables.held, known.per_rank, r, i) * (share_i - 1.0 / tables.counts[i])
    change_j = _copies(tables.held, known.per_rank, r, j) * (share_j - 1.0 / tables.counts[j])
    if r == p:
        change_i -= share_i
        change_j += share_j
    load = tables.load[r] + change_i * mean[i] + change_j * mean[j]
    spread = (
        tables.variance[r]
        + 2.0 * (change_i * cross[r, i] + change_j * cross[r, j])
        + change_i * change_i * covariance[i, i]
        + change_j * change_j * covariance[j, j]
        + 2.0 * change_i * change_j * covariance[i, j]
    )
    if _exceeds(known.risk, known.slowness[r], load, spread, limit):
        return np.inf
    return _value(known.risk, known.slowness[r], load, spread)


@part_of_kernel
def _take_step(known: Any, tables: Any, slots: Any, experts: Any) -> None:
    """Fill the slots of a step anew and bring all tables up to date."""
    held, counts = tables.held, tables.counts
    for part in range(2):
        slot = slots[part]
        if slot >= 0:
            old, new, r = held[slot], experts[part], slot // known.per_rank
            _add(known, tables, r, old, -1.0 / counts[old])
            _add(known, tables, r, new, 1.0 / counts[new])
            tables.surplus[r, old] -= 1
            tables.surplus[r, new] += 1
            held[slot] = new
    if slots[1] < 0:
        # A replacement: until here the new replica counted with the old number of replicas.
        _recount(known, tables, old, -1)
        _recount(known, tables, new, 1)
    _link(tables)


@part_of_kernel
def _recount(known: Any, tables: Any, e: int, change: int) -> None:
    """Change the number of an expert's replicas, and with it what each of them carries."""
    share = 1.0 / (tables.counts[e] + change) - 1.0 / tables.counts[e]
    for slot in range(len(tables.held)):
        if tables.held[slot] == e:
            _add(known, tables, slot // known.per_rank, e, share)
    tables.counts[e] += change
