"""Relabelling moves as few slots as can be, and no expert inside its rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from expertplane_planner import (
    InvalidInputError,
    InvalidPlacementError,
    Mode,
    Placement,
    Topology,
    solve,
)
from expertplane_planner.migration import relabel
from expertplane_planner.model.masking import has_even_nodes

from ...support import builders, reference_migration as reference


def _relabelled(
    new: tuple[int, ...],
    old: tuple[int, ...],
    *,
    num_ranks: int,
    num_nodes: int = 1,
    by_node: bool = False,
) -> tuple[int, ...]:
    placement, incumbent = (
        builders.placement(row, num_ranks=num_ranks, num_nodes=num_nodes) for row in (new, old)
    )
    (row,) = relabel(placement, incumbent, by_node=by_node).phy2log.tolist()
    return tuple(row)


def test_packs_go_to_the_ranks_that_hold_most_of_them() -> None:
    """Old 0 1 | 2 3, new 3 2 | 1 0: nothing moves, not even inside a rank."""
    assert _relabelled((3, 2, 1, 0), (0, 1, 2, 3), num_ranks=2) == (0, 1, 2, 3)


def test_new_experts_fill_the_freed_slots_in_ascending_order() -> None:
    """Old 0 1 2 3 | 4 5 6 7, new 2 7 0 5 | 1 3 4 6: 5 and 7 take the slots of 1 and 3."""
    old, new = (0, 1, 2, 3, 4, 5, 6, 7), (2, 7, 0, 5, 1, 3, 4, 6)

    assert _relabelled(new, old, num_ranks=2) == (0, 5, 2, 7, 4, 1, 6, 3)


def test_of_several_copies_the_lowest_slots_are_kept() -> None:
    """Old 0 0 0 1 | 2 2 2 2, new 2 0 1 0 | 1 2 2 2: the last 0 and the last 2 give way."""
    old, new = (0, 0, 0, 1, 2, 2, 2, 2), (2, 0, 1, 0, 1, 2, 2, 2)

    assert _relabelled(new, old, num_ranks=2) == (0, 0, 2, 1, 2, 2, 2, 1)


@pytest.mark.parametrize(
    ("new", "expected"),
    [((1, 2, 3, 0), (2, 1, 0, 3)), ((3, 0, 1, 2), (0, 3, 2, 1))],
)
def test_packs_without_a_reason_to_move_stay(
    new: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Old 0 1 | 2 3, new packs 1 2 and 3 0: either keeps one expert on either rank."""
    assert _relabelled(new, (0, 1, 2, 3), num_ranks=2) == expected


def test_among_equal_counts_experts_come_from_their_own_node() -> None:
    """Old 0 1 1 || 2 3 3, new 2 0 1 || 3 2 0, one slot a rank: 0 and 2 do not change nodes.

    Two slots move in any case. The spare packs 2 and 0 are nearer the wrong ranks.
    """
    old, new = (0, 1, 1, 2, 3, 3), (2, 0, 1, 3, 2, 0)
    result = _relabelled(new, old, num_ranks=6, num_nodes=2)

    assert (sorted(result[:3]), sorted(result[3:])) == ([0, 0, 1], [2, 2, 3])
    assert sum(a != b for a, b in zip(result, old, strict=True)) == 2


def test_nodes_swap_as_wholes_where_experts_belong_to_one() -> None:
    """Old 0 | 1 || 2 | 3, new 3 | 2 || 0 | 1: nodes and ranks swap back, nothing moves."""
    old = (0, 1, 2, 3)

    assert _relabelled((3, 2, 0, 1), old, num_ranks=4, num_nodes=2, by_node=True) == old


def test_packs_of_a_node_stay_together_where_experts_belong_to_one() -> None:
    """Old 0 | 1 || 2 | 3, new 0 | 2 || 1 | 3: the nodes hold 0 2 and 1 3, at two moves."""
    result = _relabelled((0, 2, 1, 3), (0, 1, 2, 3), num_ranks=4, num_nodes=2, by_node=True)

    assert result == (0, 2, 1, 3)


def _damaged(
    rows: tuple[int, ...],
    masked: tuple[int, ...] = (),
    capacities: tuple[float, ...] | None = None,
    *,
    num_nodes: int = 1,
) -> Placement:
    """Return a placement of experts 0 to 3, two slots a rank."""
    topology = Topology(
        num_nodes=num_nodes,
        num_ranks=len(rows) // 2,
        num_slots=len(rows),
        masked_ranks=masked,
        rank_capacities=capacities,
    )
    return Placement(torch.tensor([rows]), 4, topology)


def test_a_lost_rank_gets_nothing_and_the_others_keep_what_they_can() -> None:
    """Old 0 1 | 2 3 | 0 2, rank 1 is lost, new 0 2 | - - | 1 3: 0 2 goes back to rank 2."""
    old = _damaged((0, 1, 2, 3, 0, 2))
    new = _damaged((0, 2, -1, -1, 1, 3), masked=(1,))
    result = relabel(new, old, by_node=False)

    assert result.phy2log.tolist() == [[3, 1, -1, -1, 0, 2]]
    assert result.moved_slots(old).tolist() == [1]


def test_a_rank_that_is_back_has_to_receive_all_that_it_gets() -> None:
    """Old 0 1 | - - | 2 3, new 0 1 | 2 3 | 1 2: rank 1 gets the pack that nobody holds."""
    old = _damaged((0, 1, -1, -1, 2, 3), masked=(1,))
    new = _damaged((0, 1, 2, 3, 1, 2))
    result = relabel(new, old, by_node=False)

    assert result.phy2log.tolist() == [[0, 1, 1, 2, 2, 3]]
    assert result.moved_slots(old).tolist() == [2]


def test_a_pack_stays_with_the_capacity_it_was_planned_for() -> None:
    """Ranks of capacity 1, 1, 0.5; new packs 2 3 | 0 1 | 0 2: the third is not for rank 0."""
    old = _damaged((0, 2, 2, 3, 0, 1))
    new = _damaged((2, 3, 0, 1, 0, 2), capacities=(1.0, 1.0, 0.5))

    assert relabel(new, old, by_node=False).phy2log.tolist() == [[0, 1, 2, 3, 0, 2]]


def test_nodes_of_other_capacities_do_not_swap() -> None:
    """Old 0 1 | 2 3 || 2 3 | 0 1 with a slow rank 0: its pack stays on it, nodes do not swap."""
    old = _damaged((0, 1, 2, 3, 2, 3, 0, 1), num_nodes=2)
    capacities = (0.5, 1.0, 1.0, 1.0)
    new = _damaged((2, 3, 0, 1, 0, 1, 2, 3), capacities=capacities, num_nodes=2)

    assert relabel(new, old, by_node=True).phy2log.tolist() == [[2, 3, 0, 1, 2, 3, 0, 1]]


def test_nodes_that_lost_a_rank_each_still_swap_as_wholes() -> None:
    """Old 0 1 | 0 1 || 2 3 | 2 3, ranks 0 and 3 are lost, new packs swapped: nothing moves."""
    old = _damaged((0, 1, 0, 1, 2, 3, 2, 3), num_nodes=2)
    new = _damaged((-1, -1, 2, 3, 0, 1, -1, -1), masked=(0, 3), num_nodes=2)

    assert relabel(new, old, by_node=True).phy2log.tolist() == [[-1, -1, 0, 1, 2, 3, -1, -1]]


def test_nodes_of_different_sizes_cannot_swap() -> None:
    """By node, every node has to keep equally many ranks."""
    old = _damaged((0, 1, 0, 1, 2, 3, 2, 3), num_nodes=2)
    new = _damaged((-1, -1, 2, 3, 0, 1, 0, 1), masked=(0,), num_nodes=2)

    with pytest.raises(InvalidInputError, match=r"got masked ranks \[0\]") as caught:
        relabel(new, old, by_node=True)
    assert caught.value.field == "by_node"


@settings(deadline=None, max_examples=150)
@given(reference.pairs(), st.booleans())
def test_no_assignment_is_better(pair: tuple[Placement, Placement], by_node: bool) -> None:
    """Ranks hold what they hold in the best of all assignments, which are tried one by one."""
    new, old = pair
    assume(not by_node or has_even_nodes(new.topology))
    result = relabel(new, old, by_node=by_node)
    readable = old.phy2log_on(new.topology)

    for row, start, before in zip(
        result.phy2log.tolist(), new.phy2log.tolist(), readable.tolist(), strict=True
    ):
        held = reference.contents(row, new.topology)
        assert held in reference.best_contents(start, before, new.topology, by_node=by_node)


@settings(deadline=None, max_examples=150)
@given(reference.pairs(max_ranks=12), st.booleans())
def test_what_every_relabelling_keeps_to(pair: tuple[Placement, Placement], by_node: bool) -> None:
    """The same packs, no more moves than before, none inside a rank, and once is enough."""
    new, old = pair
    assume(not by_node or has_even_nodes(new.topology))
    result = relabel(new, old, by_node=by_node)
    rows = zip(result.phy2log.tolist(), new.phy2log.tolist(), strict=True)

    for row, start in rows:
        packs, before = (reference.contents(r, new.topology) for r in (row, start))
        assert sorted(packs) == sorted(before)
        if by_node:
            assert _by_node(packs, new.topology) == _by_node(before, new.topology)
    assert (result.moved_slots(old) <= new.moved_slots(old)).all()
    # A slot that changes is one that has to receive its expert: none changes inside a rank.
    changed = (result.phy2log != old.phy2log_on(new.topology)).sum(dim=1)
    assert torch.equal(changed, result.moved_slots(old))
    assert relabel(result, old, by_node=by_node).digest() == result.digest()


def _by_node(packs: list[list[int]], topology: Topology) -> list[list[list[int]]]:
    size = topology.ranks_per_node
    return sorted(sorted(packs[i : i + size]) for i in range(0, topology.num_ranks, size))


@settings(deadline=None, max_examples=60)
@given(reference.pairs(max_ranks=12, is_whole=True), st.integers(0, 999))
def test_permuted_ranks_come_back_as_the_incumbent(
    pair: tuple[Placement, Placement], seed: int
) -> None:
    """An incumbent whose packs are on other ranks, and in other slots there, does not move."""
    old, _ = pair
    topology = old.topology
    generator = torch.Generator().manual_seed(seed)
    packs = old.phy2log.view(old.num_layers, topology.num_ranks, -1)
    shuffled = packs[:, torch.randperm(topology.num_ranks, generator=generator)]
    shuffled = shuffled[:, :, torch.randperm(topology.slots_per_rank, generator=generator)]
    new = Placement(shuffled.flatten(1), old.num_logical_experts, topology)

    assert relabel(new, old, by_node=False).digest() == old.digest()


def test_real_size() -> None:
    """58 layers of 256 experts on 32 ranks: a tenth less moves by node, and no more freely."""
    generator = torch.Generator().manual_seed(0)
    topology = Topology(num_nodes=4, num_ranks=32, num_slots=288)
    load = (torch.randn(2, 58, 256, generator=generator).exp() * 1000).to(torch.int64)
    old, new = (
        solve(
            builders.load(*tokens.tolist()),
            topology,
            num_expert_groups=8,
            mode=Mode.HIERARCHICAL,
            policy="balanced",
        ).placement
        for tokens in load
    )
    result = relabel(new, old, by_node=True)

    assert result.moved_slots(old).sum() < 0.9 * new.moved_slots(old).sum()
    assert relabel(new, old, by_node=False).moved_slots(old).sum() <= (
        result.moved_slots(old).sum()
    )


def test_placements_of_different_things_are_refused() -> None:
    """Layers, experts, nodes, ranks and slots have to be the same."""
    with pytest.raises(InvalidPlacementError, match="incumbent to be a placement of") as caught:
        relabel(builders.placement(), builders.placement(num_ranks=4), by_node=False)

    assert caught.value.field == "incumbent"
