"""Migration written the slow, obvious way: every assignment, every choice of senders tried."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st

from expertplane_planner import Placement, Topology


if TYPE_CHECKING:
    from collections.abc import Iterator

    Row = list[int]
    """What each slot of one layer holds."""


def packs(row: Row, topology: Topology) -> list[Row]:
    """Return what each rank holds, slot by slot."""
    size = topology.slots_per_rank
    return [row[rank * size : (rank + 1) * size] for rank in range(topology.num_ranks)]


def contents(row: Row, topology: Topology) -> list[Row]:
    """Return what each rank holds, ascending."""
    return [sorted(pack) for pack in packs(row, topology)]


def num_moved(row: Row, old: Row, topology: Topology) -> int:
    """Return how many experts the ranks receive, further copies of an expert included."""
    pairs = zip(packs(row, topology), packs(old, topology), strict=True)
    return sum((Counter(pack) - Counter(held)).total() for pack, held in pairs)


def num_far(row: Row, old: Row, topology: Topology) -> int:
    """Return how many slots get an expert that their node did not hold."""
    size = topology.slots_per_node
    return sum(
        expert not in old[slot // size * size : (slot // size + 1) * size]
        for slot, expert in enumerate(row)
    )


def best_contents(row: Row, old: Row, topology: Topology, *, by_node: bool) -> list[list[Row]]:
    """Return what the ranks hold in every best assignment of packs to ranks.

    Best by moved slots, then by those from other nodes, then by squared distance.
    """
    scored = []
    for order in _assignments(topology, by_node=by_node):
        moved_packs = [packs(row, topology)[pack] for pack in order]
        assigned = [expert for pack in moved_packs for expert in pack]
        distance = sum((pack - rank) ** 2 for rank, pack in enumerate(order))
        score = (num_moved(assigned, old, topology), num_far(assigned, old, topology), distance)
        scored.append((score, contents(assigned, topology)))
    best = min(score for score, _ in scored)
    return [held for score, held in scored if score == best]


def _assignments(topology: Topology, *, by_node: bool) -> Iterator[tuple[int, ...]]:
    """Yield the pack of each rank, for every allowed assignment."""
    num_ranks, size = topology.num_ranks, topology.ranks_per_node
    for order in itertools.permutations(range(num_ranks)):
        nodes = [{pack // size for pack in order[i : i + size]} for i in range(0, num_ranks, size)]
        if not by_node or all(len(node) == 1 for node in nodes):
            yield order


def can_send(row: Row, topology: Topology, expert: int, receiver: int) -> list[int]:
    """Return the ranks that may send an expert: those of the same node, or else all holders."""
    holders = [r for r, pack in enumerate(packs(row, topology)) if expert in pack]
    near = [r for r in holders if _is_near(r, receiver, topology)]
    return near or holders


def least_degrees(arrivals: list[tuple[int, int]], row: Row, topology: Topology) -> list[int]:
    """Return the lowest largest degree between nodes, and then the lowest in all.

    Args:
        arrivals: (expert, receiver) of each expert that arrives at a rank.
        row: What the slots hold before.
        topology: Ranks and nodes that the slots belong to.
    """
    choices = [can_send(row, topology, expert, receiver) for expert, receiver in arrivals]
    receivers = [receiver for _, receiver in arrivals]
    return min(degrees(senders, receivers, topology) for senders in itertools.product(*choices))


def degrees(senders: tuple[int, ...], receivers: list[int], topology: Topology) -> list[int]:
    """Return the largest degree between nodes, and the largest in all."""
    pairs = list(zip(senders, receivers, strict=True))
    return [
        max([*Counter(s for s, _ in some).values(), *Counter(r for _, r in some).values(), 0])
        for some in ([pair for pair in pairs if not _is_near(*pair, topology)], pairs)
    ]


def _is_near(rank: int, other: int, topology: Topology) -> bool:
    return rank // topology.ranks_per_node == other // topology.ranks_per_node


@st.composite
def pairs(draw: st.DrawFn, *, max_ranks: int = 5) -> tuple[Placement, Placement]:
    """Draw (placement, incumbent) of one or two layers with few experts, and many duplicates."""
    num_nodes = draw(st.integers(1, max_ranks))
    num_ranks = num_nodes * draw(st.integers(1, max_ranks // num_nodes))
    topology = Topology(
        num_nodes=num_nodes, num_ranks=num_ranks, num_slots=num_ranks * draw(st.integers(1, 4))
    )
    num_experts = draw(st.integers(1, topology.num_slots))
    num_layers = draw(st.integers(1, 2))
    maps = [
        [draw(_rows(topology, num_experts)) for _ in range(num_layers)] for _ in ("new", "old")
    ]
    if draw(st.booleans()):  # an incumbent that differs little, on other ranks
        order = draw(st.permutations(range(num_ranks)))
        maps[1] = [
            [expert for rank in order for expert in packs(row, topology)[rank]] for row in maps[0]
        ]
    new, old = (Placement(torch.tensor(rows), num_experts, topology) for rows in maps)
    return new, old


def _rows(topology: Topology, num_experts: int) -> st.SearchStrategy[Row]:
    num_extra = topology.num_slots - num_experts
    extra = st.lists(st.integers(0, num_experts - 1), min_size=num_extra, max_size=num_extra)
    return extra.flatmap(lambda more: st.permutations([*range(num_experts), *more]))
