from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner.stages import max_copies, replicate_greedy, replicate_hybrid

from ...support import instances, reference


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane_planner.stages import Replication


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


def test_no_item_gets_more_than_the_bound() -> None:
    """Loads 9, 4, 3 and at most two of each: after 9 and 4 the 3 is split."""
    counts = replicate_greedy(torch.tensor([[9.0, 4.0, 3.0]]), 6, max_count=2).counts

    assert counts.tolist() == [[2, 2, 2]]


@pytest.mark.parametrize(
    ("num_items", "num_replicas", "num_packs", "bound"),
    [
        pytest.param(4, 12, 3, 3, id="one a pack, just enough"),
        pytest.param(4, 6, 3, 3, id="one a pack, with room to choose"),
        pytest.param(4, 15, 3, 15, id="more room than all of everything"),
        pytest.param(1, 1, 1, 1, id="one of one"),
    ],
)
def test_an_item_may_be_in_every_pack_once(
    num_items: int, num_replicas: int, num_packs: int, bound: int
) -> None:
    """One replica per pack, or no bound where the packs have room for more than that."""
    assert max_copies(num_items, num_replicas, num_packs) == bound


def test_hybrid_gives_the_last_tenth_by_the_other_rule() -> None:
    """Loads 10 and 6, two more: by D'Hondt 10, then 6 (over 10 / 2); by Sainte-Lague 6 as well.

    With loads 10 and 4: D'Hondt gives 10 both (5 over 4), Sainte-Lague 4 (over 10 / 3).
    """
    weight = torch.tensor([[10.0, 6.0], [10.0, 4.0]])

    assert replicate_greedy(weight, 4).counts.tolist() == [[2, 2], [3, 1]]
    assert replicate_hybrid(weight, 4).counts.tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize(("num_more", "num_last"), [(1, 1), (10, 1), (11, 2), (20, 2), (21, 3)])
def test_a_tenth_is_rounded_up(num_more: int, num_last: int) -> None:
    """Of 10 redundant replicas one goes by the other rule, of 11 two; of any at least one."""
    weight = torch.tensor([[50.0, 30.0, 20.0, 7.0]])

    item, _, counts = replicate_hybrid(weight, 4 + num_more)

    first = reference.grant_replicas(weight[0].tolist(), [1] * 4, num_more - num_last)
    last = reference.grant_replicas(weight[0].tolist(), first[2], num_last, slope=2)
    assert item[0, 4:].tolist() == first[0] + last[0]
    assert counts[0].tolist() == last[2]


@settings(deadline=None, max_examples=80)
@given(instances.rows(), st.integers(0, 30))
def test_hybrid_at_once_equals_one_row_at_a_time(weight: list[list[float]], spare: int) -> None:
    """Two apportionments in a row, and the exchange at the end never changes anything."""
    num_items = len(weight[0])
    num_last = max(1, (spare + 9) // 10) if spare else 0

    batched = replicate_hybrid(torch.tensor(weight), num_items + spare)

    for row, row_weight in enumerate(weight):
        ones = [1] * num_items
        bulk, bulk_rank, counts = reference.grant_replicas(row_weight, ones, spare - num_last)
        tail, tail_rank, counts = reference.grant_replicas(row_weight, counts, num_last, slope=2)
        assert batched.item[row].tolist() == [*range(num_items), *bulk, *tail]
        assert batched.replica_rank[row].tolist() == [0] * num_items + bulk_rank + tail_rank
        assert batched.counts[row].tolist() == counts


def test_replicas_share_the_load_of_their_item() -> None:
    """Loads 9 and 4 in three replicas are 4.5, 4 and 4.5."""
    weight = torch.tensor([[9.0, 4.0]])

    assert replicate_greedy(weight, 3).load(weight).tolist() == [[4.5, 4.0, 4.5]]


@pytest.mark.parametrize("replicate", [replicate_greedy, replicate_hybrid])
def test_the_input_is_not_mutated(
    replicate: Callable[[torch.Tensor, int], Replication],
) -> None:
    """The weights are the same after as before."""
    weight = torch.tensor([[9.0, 4.0, 3.0]])

    replicate(weight, 6)

    assert weight.tolist() == [[9.0, 4.0, 3.0]]
