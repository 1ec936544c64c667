"""The stages written the slow, obvious way: one row, plain lists, float32 numbers one by one."""

from __future__ import annotations

from collections import Counter

import numpy as np


def replicate_greedy(
    weight: list[float], num_replicas: int
) -> tuple[list[int], list[int], list[int]]:
    """Return (item, replica_rank, counts) of one row."""
    counts = [1] * len(weight)
    item = list(range(len(weight)))
    replica_rank = [0] * len(weight)
    while len(item) < num_replicas:
        per_replica = [np.float32(w) / np.float32(c) for w, c in zip(weight, counts, strict=True)]
        heaviest = per_replica.index(max(per_replica))
        item.append(heaviest)
        replica_rank.append(counts[heaviest])
        counts[heaviest] += 1
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
