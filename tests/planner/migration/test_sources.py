"""Senders are near where they can be, and none sends more than it has to."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings, strategies as st

from expertplane_planner import Topology
from expertplane_planner.migration.sources import choose_senders

from ...support import reference_migration as reference


def _senders(
    row: list[int], arrivals: list[tuple[int, int]], topology: Topology
) -> tuple[int, ...]:
    packs = reference.packs(row, topology)
    is_held = np.array([[expert in pack for expert in range(max(row) + 1)] for pack in packs])
    expert, receiver = np.array(arrivals).T
    return tuple(choose_senders(is_held, expert, receiver, topology.ranks_per_node).tolist())


def test_a_sender_of_the_same_node_is_preferred_even_if_busy() -> None:
    """Nodes 0 1 | 2 and 0 | 3: rank 1 gets expert 0 from rank 0, though rank 2 is idle."""
    topology = Topology(num_nodes=2, num_ranks=4, num_slots=8)

    assert _senders([0, 1, 2, 2, 0, 0, 3, 3], [(1, 1), (0, 1)], topology) == (0, 0)


def test_the_idle_holder_sends() -> None:
    """Ranks 0 1 | 0 2 | 3 3: rank 2 gets expert 1 from rank 0 and expert 0 from rank 1."""
    topology = Topology(num_nodes=1, num_ranks=4, num_slots=8)

    assert _senders([0, 1, 0, 2, 3, 3, 3, 3], [(1, 2), (0, 3)], topology) == (0, 1)


def test_a_chain_of_changes_is_found() -> None:
    """Ranks 0 1 | 1 2 | 2: experts 0, 1 and 2 each from another rank, though 1 and 2 have two."""
    topology = Topology(num_nodes=1, num_ranks=6, num_slots=12)
    row = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]

    assert _senders(row, [(2, 3), (1, 4), (0, 5)], topology) == (2, 1, 0)


def test_traffic_inside_a_node_makes_room_for_traffic_between_nodes() -> None:
    """Ranks 0 1 | 0 2 || 3 | 3: expert 1 keeps rank 0 busy, so rank 1 sends expert 0 abroad."""
    topology = Topology(num_nodes=2, num_ranks=4, num_slots=8)
    row = [0, 1, 0, 2, 3, 3, 3, 3]

    assert _senders(row, [(0, 2), (1, 1)], topology) == (1, 0)


def test_holders_share_what_they_send() -> None:
    """Four ranks need expert 0 of ranks 0 and 1, which send it twice each."""
    topology = Topology(num_nodes=1, num_ranks=6, num_slots=6)
    senders = _senders([0, 0, 1, 1, 1, 1], [(0, rank) for rank in range(2, 6)], topology)

    assert sorted(senders) == [0, 0, 1, 1]


def test_traffic_between_nodes_is_shared_though_two_rounds_are_needed_anyway() -> None:
    """Ranks 0 | 0 || 1 | 1 || 2 | 3: rank 4 gets expert 3 twice, so two rounds are needed.

    Ranks 2 and 3 get expert 0 from ranks 0 and 1 all the same, in one slow round.
    """
    topology = Topology(num_nodes=3, num_ranks=6, num_slots=6)
    arrivals = [(0, 2), (0, 3), (3, 4), (3, 4)]
    senders = _senders([0, 0, 1, 1, 2, 3], arrivals, topology)

    assert sorted(senders[:2]) == [0, 1]
    assert senders[2:] == (5, 5)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]], Topology]:
    """Draw (row, arrivals, topology), few enough for every choice to be tried."""
    num_nodes, per_node = draw(st.sampled_from([(1, 3), (1, 4), (2, 2), (2, 3), (3, 1), (4, 1)]))
    num_ranks = num_nodes * per_node
    topology = Topology(num_nodes=num_nodes, num_ranks=num_ranks, num_slots=2 * num_ranks)
    row = draw(
        st.lists(st.integers(0, 3), min_size=topology.num_slots, max_size=topology.num_slots)
    )
    packs = reference.packs(row, topology)
    lacking = [(e, r) for r, pack in enumerate(packs) for e in set(row) - set(pack)]
    assume(lacking)
    return row, draw(st.lists(st.sampled_from(lacking), min_size=1, max_size=6)), topology


@settings(deadline=None, max_examples=200)
@given(_cases())
def test_no_choice_of_senders_is_better(
    case: tuple[list[int], list[tuple[int, int]], Topology],
) -> None:
    """Largest degrees, between nodes and then in all, are those of the best choice of all."""
    row, arrivals, topology = case
    senders = _senders(row, arrivals, topology)

    for (expert, receiver), sender in zip(arrivals, senders, strict=True):
        assert sender in reference.can_send(row, topology, expert, receiver)
    receivers = [receiver for _, receiver in arrivals]
    assert reference.degrees(senders, receivers, topology) == (
        reference.least_degrees(arrivals, row, topology)
    )
