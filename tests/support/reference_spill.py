"""Spill written the slow, obvious way: one layer, every step tried on a copy."""

from __future__ import annotations

import math


MOST_FREED = 3

Counts = list[list[int]]
"""Replicas of each expert on each node."""


def spill_replicas(
    weight: list[float],
    home: list[int],
    *,
    num_nodes: int,
    num_slots: int,
    spill: int,
    max_copies: int,
) -> Counts:
    """Return the replicas of each expert on each node."""
    counts = [[int(n == home[e]) for n in range(num_nodes)] for e in range(len(weight))]
    for node in range(num_nodes):
        own = [e for e in range(len(weight)) if home[e] == node]
        for _ in range(num_slots // num_nodes - len(own)):
            open_experts = [e for e in own if counts[e][node] < max_copies]
            heaviest = max(open_experts, key=lambda e: weight[e] / counts[e][node])
            counts[heaviest][node] += 1
    for _ in range(spill):
        counts = _step(weight, home, counts, max_copies)
    return counts


def node_load(weight: list[float], counts: Counts) -> list[float]:
    """Return the load of each node."""
    return [
        sum(weight[e] / sum(counts[e]) * counts[e][n] for e in range(len(weight)))
        for n in range(len(counts[0]))
    ]


def num_foreign(counts: Counts, home: list[int]) -> int:
    """Return how many replicas are not at home."""
    return sum(sum(row) - row[node] for row, node in zip(counts, home, strict=True))


def _step(weight: list[float], home: list[int], counts: Counts, max_copies: int) -> Counts:
    load = node_load(weight, counts)
    hot = load.index(max(load))
    best, best_peak = counts, max(load)
    for expert in range(len(weight)):
        for node in range(len(load)):
            if counts[expert][hot] == 0 or node in (hot, home[expert]):
                continue
            tried = _tried(weight, home, counts, expert, hot, node, max_copies)
            if tried is None:
                continue
            new_load = node_load(weight, tried)
            if max(new_load[hot], new_load[node]) < best_peak:
                best, best_peak = tried, max(new_load[hot], new_load[node])
    return best


def _tried(
    weight: list[float],
    home: list[int],
    counts: Counts,
    expert: int,
    hot: int,
    node: int,
    max_copies: int,
) -> Counts | None:
    """Return the replicas once an expert of the hot node has one on the other, or None."""
    redundant = [
        e
        for e in range(len(weight))
        if home[e] == node and counts[e][node] > 1 and _is_all_at_home(counts, home, e)
    ]
    if not redundant or counts[expert][node] == max_copies:
        return None
    given_up = min(redundant, key=lambda e: weight[e] / (counts[e][node] - 1))
    num_freed = _num_freed(weight, home, counts, expert, hot, max_copies)
    counts = [list(row) for row in counts]
    counts[expert][node] += 1
    counts[given_up][node] -= 1
    counts[expert][hot] -= num_freed
    for _ in range(num_freed):
        heirs = _heirs(home, counts, expert, hot, max_copies)
        counts[max(heirs, key=lambda e: weight[e] / counts[e][hot])][hot] += 1
    return counts


def _num_freed(
    weight: list[float],
    home: list[int],
    counts: Counts,
    expert: int,
    hot: int,
    max_copies: int,
) -> int:
    """Return how many replicas the expert, with one more elsewhere, gives up at home."""
    peak = node_load(weight, counts)[hot]
    if home[expert] != hot or peak == 0:
        return 0
    enough = min(max_copies, math.ceil(weight[expert] / (peak / max_copies)))
    room = sum(max_copies - counts[e][hot] for e in _heirs(home, counts, expert, hot, max_copies))
    num_left = sum(counts[expert]) + 1 - enough
    return max(0, min(MOST_FREED, num_left, counts[expert][hot] - 1, room))


def _heirs(home: list[int], counts: Counts, expert: int, hot: int, max_copies: int) -> list[int]:
    """Return the other experts that may have a free slot at home on the hot node."""
    return [
        e
        for e in range(len(home))
        if home[e] == hot
        and e != expert
        and counts[e][hot] < max_copies
        and _is_all_at_home(counts, home, e)
    ]


def _is_all_at_home(counts: Counts, home: list[int], expert: int) -> bool:
    return sum(counts[expert]) == counts[expert][home[expert]]
