from __future__ import annotations

import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner.stages import replicate_greedy

from ...support import instances, reference


def test_the_heaviest_share_is_split_next() -> None:
    """Loads 9, 4, 3 and three spare replicas: 9 is split, then 4.5 against 4, then 4."""
    item, replica_rank, counts = replicate_greedy(torch.tensor([[9.0, 4.0, 3.0]]), 6)

    assert item.tolist() == [[0, 1, 2, 0, 0, 1]]
    assert replica_rank.tolist() == [[0, 0, 0, 1, 2, 1]]
    assert counts.tolist() == [[3, 2, 1]]


def test_ties_go_to_the_lowest_index() -> None:
    """Equal loads are replicated in order, and so are rows without load."""
    item = replicate_greedy(torch.tensor([[5.0, 5.0, 5.0], [0.0, 0.0, 0.0]]), 5).item

    assert item.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 0, 0]]


def test_without_redundancy_everything_is_there_once() -> None:
    """As many replicas as items are one of each."""
    replicas = replicate_greedy(torch.tensor([[2.0, 1.0]]), 2)

    assert [part.tolist() for part in replicas] == [[[0, 1]], [[0, 0]], [[1, 1]]]


@settings(deadline=None, max_examples=80)
@given(instances.rows(), st.integers(0, 20))
def test_all_rows_at_once_equal_one_row_at_a_time(weight: list[list[float]], spare: int) -> None:
    """The batched stage gives exactly what the obvious loop gives for each row."""
    num_replicas = len(weight[0]) + spare

    batched = replicate_greedy(torch.tensor(weight), num_replicas)

    for row, row_weight in enumerate(weight):
        expected = reference.replicate_greedy(row_weight, num_replicas)
        assert expected == tuple(part[row].tolist() for part in batched)


def test_the_input_is_not_mutated() -> None:
    """The weights are the same after as before."""
    weight = torch.tensor([[9.0, 4.0, 3.0]])

    replicate_greedy(weight, 6)

    assert weight.tolist() == [[9.0, 4.0, 3.0]]
