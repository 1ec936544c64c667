"""Migration written the slow, obvious way: every assignment, every choice of senders tried."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st

from expertplane_planner import Placement, Topology
from expertplane_planner.model.masking import expand


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
    return sum((Counter(pack) - Counter(held)).total() for pack, held in pairs if -1 not in pack)


def num_far(row: Row, old: Row, topology: Topology) -> int:
    """Return how many slots get an expert that their node did not hold."""
    size = topology.slots_per_node
    return sum(
        expert not in (-1, *old[slot // size * size : (slot // size + 1) * size])
        for slot, expert in enumerate(row)
    )


def best_contents(row: Row, old: Row, topology: Topology, *, by_node: bool) -> list[list[Row]]:
    """Return what the ranks hold in every best assignment of packs to ranks.

    Best by moved slots, then by those from other nodes, then by squared distance, by which masked
    ranks are left out.

    Args:
        row: What each slot will hold.
        old: What the slots of active ranks hold, -1 for nothing.
        topology: Ranks and nodes that the slots belong to.
        by_node: Whether the packs of a node stay together.
    """
    scored = []
    place = {rank: index for index, rank in enumerate(topology.active_ranks)}
    for order in _assignments(topology, by_node=by_node):
        moved_packs = [packs(row, topology)[pack] for pack in order]
        assigned = [expert for pack in moved_packs for expert in pack]
        distance = sum((place[order[rank]] - place[rank]) ** 2 for rank in place)
        score = (num_moved(assigned, old, topology), num_far(assigned, old, topology), distance)
        scored.append((score, contents(assigned, topology)))
    best = min(score for score, _ in scored)
    return [held for score, held in scored if score == best]


def _assignments(topology: Topology, *, by_node: bool) -> Iterator[tuple[int, ...]]:
    """Yield the pack of each rank, for every allowed assignment."""
    ranks, size = range(topology.num_ranks), topology.ranks_per_node
    capacities = topology.rank_capacities or [1.0 for _ in ranks]
    for permuted in itertools.permutations(topology.active_ranks):
        packs_of = dict(zip(topology.active_ranks, permuted, strict=True))
        if any(capacities[rank] != capacities[pack] for rank, pack in packs_of.items()):
            continue
        nodes: dict[int, set[int]] = {}
        for rank, pack in packs_of.items():
            nodes.setdefault(rank // size, set()).add(pack // size)
        if not by_node or all(len(node) == 1 for node in nodes.values()):
            yield tuple(packs_of.get(rank, rank) for rank in ranks)


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
    """Return the largest degree between nodes, and the largest in all; -1 sends at any rate."""
    pairs = list(zip(senders, receivers, strict=True))
    return [
        max(
            [
                *Counter(s for s, _ in some if s >= 0).values(),
                *Counter(r for _, r in some).values(),
                0,
            ]
        )
        for some in ([pair for pair in pairs if not _is_near(*pair, topology)], pairs)
    ]


def _is_near(rank: int, other: int, topology: Topology) -> bool:
    return rank // topology.ranks_per_node == other // topology.ranks_per_node


@st.composite
def pairs(
    draw: st.DrawFn, *, max_ranks: int = 5, is_whole: bool = False
) -> tuple[Placement, Placement]:
    """Draw (placement, incumbent) of one or two layers with few experts, and many duplicates.

    Each has masked ranks and capacities of its own, unless `is_whole`.
    """
    num_nodes = draw(st.integers(1, max_ranks))
    num_ranks = num_nodes * draw(st.integers(1, max_ranks // num_nodes))
    whole = Topology(
        num_nodes=num_nodes, num_ranks=num_ranks, num_slots=num_ranks * draw(st.integers(1, 4))
    )
    after = whole if is_whole else draw(damaged(whole))
    before = whole if is_whole else draw(st.just(after) | damaged(whole))
    num_experts = draw(st.integers(1, min(after.num_active_slots, before.num_active_slots)))
    num_layers = draw(st.integers(1, 2))
    new, old = (
        [draw(_rows(topology, num_experts)) for _ in range(num_layers)]
        for topology in (after, before)
    )
    if after == before and draw(st.booleans()):  # an incumbent that differs little
        order = draw(st.permutations(range(after.num_active_ranks)))
        size = after.slots_per_rank
        old = [[e for rank in order for e in row[rank * size : (rank + 1) * size]] for row in new]
    return (
        Placement(expand(torch.tensor(new), after), num_experts, after),
        Placement(expand(torch.tensor(old), before), num_experts, before),
    )


@st.composite
def damaged(draw: st.DrawFn, whole: Topology) -> Topology:
    """Draw a topology with some ranks masked and some slow, often none."""
    some = st.sets(st.integers(0, whole.num_ranks - 1), max_size=whole.num_ranks - 1)
    masked = draw(st.just(set[int]()) | some)
    speeds = st.sampled_from([0.5, 1.0])
    capacities = st.lists(speeds, min_size=whole.num_ranks, max_size=whole.num_ranks).map(tuple)
    return dataclasses.replace(
        whole, masked_ranks=tuple(sorted(masked)), rank_capacities=draw(st.none() | capacities)
    )


def _rows(topology: Topology, num_experts: int) -> st.SearchStrategy[Row]:
    """Return what the slots of active ranks may hold."""
    num_extra = topology.num_active_slots - num_experts
    extra = st.lists(st.integers(0, num_experts - 1), min_size=num_extra, max_size=num_extra)
    return extra.flatmap(lambda more: st.permutations([*range(num_experts), *more]))
