"""Rounds are as few as the busiest rank allows, and slow transfers share them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings, strategies as st

from expertplane_planner.migration.rounds import share_out_rounds


Pair = tuple[int, int]


def _rounds(pairs: list[Pair], *, ranks_per_node: int = 100) -> list[int]:
    sender, receiver = np.array(pairs).T
    is_slow = sender // ranks_per_node != receiver // ranks_per_node
    return [int(number) for number in share_out_rounds(sender, receiver, is_slow)]


def test_first_fit_would_take_a_third_round() -> None:
    """After 0 to 2, 1 to 3 in round 0 and 4 to 3 in round 1, 4 to 2 fits into neither."""
    pairs = [(0, 2), (1, 3), (4, 3), (4, 2), (0, 5), (1, 5)]

    assert sorted(_rounds(pairs)) == [0, 0, 0, 1, 1, 1]


def test_a_cycle_of_three_takes_one_round() -> None:
    """Sending and receiving at the same time is allowed: 0 to 1, 1 to 2, 2 to 0."""
    assert _rounds([(0, 1), (1, 2), (2, 0)]) == [0, 0, 0]


def test_transfers_of_one_pair_keep_their_order() -> None:
    """Three experts from rank 7 to rank 3 go one after the other."""
    assert _rounds([(7, 3), (7, 3), (7, 3)]) == [0, 1, 2]


def test_slow_transfers_share_a_round() -> None:
    """Nodes 0 1 and 2 3: the two transfers between nodes go together, the others then."""
    assert _rounds([(0, 1), (0, 2), (2, 3), (2, 0)], ranks_per_node=2) == [1, 0, 1, 0]


def test_the_ranks_with_most_slow_transfers_go_first() -> None:
    """Ranks 2 and 4 send two experts each to other nodes: together, so in two of three rounds."""
    slow = [(2, 0), (2, 5), (4, 0), (4, 3)]
    rounds = _rounds([*slow, (2, 3)], ranks_per_node=2)

    assert sorted(rounds[:4]) == [0, 0, 1, 1]
    assert rounds[4] == 2


_PAIRS = st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda pair: pair[0] != pair[1])


@settings(deadline=None, max_examples=300)
@given(st.lists(_PAIRS, min_size=1, max_size=40), st.sampled_from([1, 2, 4, 8]))
def test_as_many_rounds_as_the_largest_degree(pairs: list[Pair], ranks_per_node: int) -> None:
    """A rank sends once and receives once a round, and no round is too many."""
    rounds = _rounds(pairs, ranks_per_node=ranks_per_node)
    degree = max(
        max(Counter(sender for sender, _ in pairs).values()),
        max(Counter(receiver for _, receiver in pairs).values()),
    )

    assert set(rounds) == set(range(degree))
    for number in range(degree):
        running = [pair for pair, r in zip(pairs, rounds, strict=True) if r == number]
        senders, receivers = zip(*running, strict=True)
        assert len(set(senders)) == len(set(receivers)) == len(running)
    assert _rounds(pairs, ranks_per_node=ranks_per_node) == rounds
