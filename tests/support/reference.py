"""Planning written the slow, obvious way: one row, plain lists, numbers one by one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np


def replicate_greedy(
    weight: list[float], num_replicas: int
) -> tuple[list[int], list[int], list[int]]:
    """Return (item, replica_rank, counts) of one row."""
    num_items = len(weight)
    item, replica_rank, counts = grant_replicas(weight, [1] * num_items, num_replicas - num_items)
    return [*range(num_items), *item], [0] * num_items + replica_rank, counts


def grant_replicas(
    weight: list[float],
    counts: list[int],
    num_more: int,
    *,
    slope: int = 1,
    max_count: int | None = None,
    dtype: Any = np.float32,
) -> tuple[list[int], list[int], list[int]]:
    """Return (item, replica_rank, counts) of one row, all quotients divided afresh each time."""
    item, replica_rank, counts = [], [], list(counts)
    for _ in range(num_more):
        open_items = [i for i, c in enumerate(counts) if max_count is None or c < max_count]
        winner = max(
            open_items, key=lambda i: dtype(weight[i]) / dtype(slope * (counts[i] - 1) + 1)
        )
        item.append(winner)
        replica_rank.append(counts[winner])
        counts[winner] += 1
    return item, replica_rank, counts


def pack_lpt(weight: list[float], num_packs: int) -> tuple[list[int], list[int]]:
    """Return (pack, place) of one row."""
    capacity = len(weight) // num_packs
    if capacity == 1:
        return list(range(num_packs)), [0] * num_packs
    load = [np.float32(0)] * num_packs
    filled = [0] * num_packs
    pack, place = [-1] * len(weight), [-1] * len(weight)
    for item in sorted(range(len(weight)), key=lambda i: -weight[i]):
        candidates = [p for p in range(num_packs) if filled[p] < capacity]
        lightest = min(candidates, key=lambda p: load[p])
        pack[item], place[item] = lightest, filled[lightest]
        load[lightest] = np.float32(load[lightest] + np.float32(weight[item]))
        filled[lightest] += 1
    return pack, place


def pack_distinct(
    weight: list[float],
    kind: list[int],
    num_packs: int,
    *,
    max_swaps: int,
    tolerance: float,
    order: list[int] | None = None,
) -> list[list[int]]:
    """Return what each pack of one row holds, items taken by weight or in another order."""
    packs: list[list[int]] = [[] for _ in range(num_packs)]
    load = [0.0] * num_packs
    capacity = len(weight) // num_packs
    for item in order or sorted(range(len(weight)), key=lambda i: -weight[i]):
        _place_distinct(item, weight, kind, packs, load, capacity)
    total = 0.0
    for pack_load in load:
        total += pack_load
    for _ in range(max_swaps):
        swap = _best_distinct_swap(weight, kind, packs, load, tolerance * (total / num_packs))
        if swap is None:
            break
        heavy, given, light, taken = swap
        difference = weight[packs[heavy][given]] - weight[packs[light][taken]]
        packs[heavy][given], packs[light][taken] = packs[light][taken], packs[heavy][given]
        load[heavy] -= difference
        load[light] += difference
    return packs


def _place_distinct(
    item: int,
    weight: list[float],
    kind: list[int],
    packs: list[list[int]],
    load: list[float],
    capacity: int,
) -> None:
    def lacks(pack: int, item: int) -> bool:
        return kind[item] not in {kind[other] for other in packs[pack]}

    def lightest(candidates: list[int]) -> int:
        return min(candidates, key=lambda p: load[p])

    every = range(len(packs))
    with_room = [p for p in every if len(packs[p]) < capacity]
    allowed = [p for p in with_room if lacks(p, item)]
    givers = [p for p in every if len(packs[p]) == capacity and lacks(p, item)]
    receiver = lightest(allowed or with_room)
    if not allowed and givers:
        giver = lightest(givers)
        welcome = [other for other in packs[giver] if lacks(receiver, other)]
        if welcome:
            moved = min(welcome, key=lambda other: weight[other])
            packs[giver][packs[giver].index(moved)] = item
            load[giver] += weight[item] - weight[moved]
            item = moved
    packs[receiver].append(item)
    load[receiver] += weight[item]


def _best_distinct_swap(
    weight: list[float],
    kind: list[int],
    packs: list[list[int]],
    load: list[float],
    threshold: float,
) -> tuple[int, int, int, int] | None:
    """Return (heaviest pack, place, other pack, place) of the best swap above the threshold."""
    heavy = load.index(max(load))
    heavy_kinds = {kind[item] for item in packs[heavy]}
    best, best_gain = None, threshold
    for light in range(len(packs)):
        light_kinds = {kind[item] for item in packs[light]}
        gap = load[heavy] - load[light]
        for taken, light_item in enumerate(packs[light]):
            for given, heavy_item in enumerate(packs[heavy]):
                difference = weight[heavy_item] - weight[light_item]
                gain = min(difference, gap - difference)
                meets_itself = kind[heavy_item] in light_kinds or kind[light_item] in heavy_kinds
                if light != heavy and not meets_itself and gain > best_gain:
                    best, best_gain = (heavy, given, light, taken), gain
    return best


def log2phy(phy2log: list[int], num_experts: int) -> list[list[int]]:
    """Return the slots of each expert of one layer, ascending, unpadded."""
    return [[p for p, e in enumerate(phy2log) if e == expert] for expert in range(num_experts)]


def moved_slots(new: list[int], old: list[int], slots_per_rank: int) -> int:
    """Return over ranks the size of the multiset of new experts minus that of old ones."""
    moved = 0
    for first in range(0, len(new), slots_per_rank):
        here = slice(first, first + slots_per_rank)
        moved += (Counter(new[here]) - Counter(old[here])).total()
    return moved


def num_duplicates(phy2log: list[int], slots_per_rank: int) -> int:
    """Return how many slots hold an expert that an earlier slot of their rank holds."""
    return sum(
        slots_per_rank - len(set(phy2log[first : first + slots_per_rank]))
        for first in range(0, len(phy2log), slots_per_rank)
    )


def rank_load(phy2log: list[int], weight: list[float], num_ranks: int) -> list[float]:
    """Return the load of each rank of one layer."""
    counts = Counter(phy2log)
    slots_per_rank = len(phy2log) // num_ranks
    return [
        sum(weight[e] / counts[e] for e in phy2log[r * slots_per_rank : (r + 1) * slots_per_rank])
        for r in range(num_ranks)
    ]
