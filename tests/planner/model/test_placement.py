from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import InvalidPlacementError, Placement, Topology

from ...support import builders, reference, reference_migration


@st.composite
def phy2logs(draw: st.DrawFn, num_maps: int = 1) -> tuple[int, int, list[list[list[int]]]]:
    """Draw (num_experts, num_ranks, maps [layers][slots]) that place every expert."""
    num_ranks = draw(st.integers(1, 4))
    slots_per_rank = draw(st.integers(1, 5))
    num_slots = num_ranks * slots_per_rank
    num_experts = draw(st.integers(1, num_slots))
    num_layers = draw(st.integers(1, 3))
    spare = st.lists(
        st.integers(0, num_experts - 1),
        min_size=num_slots - num_experts,
        max_size=num_slots - num_experts,
    )

    def layer() -> list[int]:
        return draw(st.permutations([*range(num_experts), *draw(spare)]))

    return num_experts, num_ranks, [[layer() for _ in range(num_layers)] for _ in range(num_maps)]


def _placement(phy2log: list[list[int]], num_experts: int, num_ranks: int) -> Placement:
    topology = builders.topology(num_ranks=num_ranks, num_slots=len(phy2log[0]))
    return Placement(torch.tensor(phy2log), num_experts, topology)


def test_maps_agree_on_a_small_example() -> None:
    """Slots 0 1 2 3 holding experts 1 0 1 2 give expert 1 two replicas, in slots 0 and 2."""
    placement = builders.placement((1, 0, 1, 2))

    assert placement.logcnt().tolist() == [[1, 2, 1]]
    assert placement.log2phy().tolist() == [[[1, -1], [0, 2], [3, -1]]]


@settings(deadline=None, max_examples=60)
@given(phy2logs())
def test_maps_agree_with_the_obvious_ones(
    case: tuple[int, int, list[list[list[int]]]],
) -> None:
    """log2phy lists each expert's slots in ascending order, and logcnt their number."""
    num_experts, num_ranks, (phy2log,) = case
    placement = _placement(phy2log, num_experts, num_ranks)

    expected = [reference.log2phy(layer, num_experts) for layer in phy2log]
    padded = placement.log2phy().tolist()
    unpadded = [[[slot for slot in slots if slot >= 0] for slots in layer] for layer in padded]
    assert expected == unpadded
    assert [[len(slots) for slots in layer] for layer in expected] == placement.logcnt().tolist()
    assert placement.log2phy().shape[2] == int(placement.logcnt().max())


@settings(deadline=None, max_examples=60)
@given(phy2logs(num_maps=2))
def test_moved_slots_and_duplicates_agree_with_the_obvious_count(
    case: tuple[int, int, list[list[list[int]]]],
) -> None:
    """Multisets of ranks counted one by one give the same moved slots and duplicates."""
    num_experts, num_ranks, (new, old) = case
    slots_per_rank = len(new[0]) // num_ranks
    placement = _placement(new, num_experts, num_ranks)

    moved = placement.moved_slots(_placement(old, num_experts, num_ranks))

    pairs = zip(new, old, strict=True)
    assert [reference.moved_slots(a, b, slots_per_rank) for a, b in pairs] == moved.tolist()
    duplicates = [reference.num_duplicates(layer, slots_per_rank) for layer in new]
    assert duplicates == placement.num_duplicates().tolist()


def test_a_change_of_slot_inside_a_rank_moves_nothing() -> None:
    """Rank 0 from (0, 1) to (1, 0) is free; swapping 1 and 2 between ranks moves two slots."""
    old = builders.placement((0, 1, 2, 3), (0, 1, 2, 3))
    new = builders.placement((1, 0, 2, 3), (0, 2, 1, 3))

    assert new.moved_slots(old).tolist() == [0, 2]


def test_a_second_copy_on_a_rank_is_a_moved_slot() -> None:
    """Rank 0 from (0, 1) to (0, 0) receives one more copy of expert 0, rank 1 receives 1."""
    old = builders.placement((0, 1, 2, 0))
    new = builders.placement((0, 0, 2, 1))

    assert new.moved_slots(old).tolist() == [2]
    assert new.num_duplicates().tolist() == [1]
    assert old.num_duplicates().tolist() == [0]


def test_moves_are_counted_between_like_placements_only() -> None:
    """An old placement with other ranks is refused."""
    with pytest.raises(InvalidPlacementError, match="same layers, experts, nodes, ranks"):
        builders.placement().moved_slots(builders.placement(num_ranks=4))


def _without_rank_1(phy2log: list[list[int]], num_experts: int) -> Placement:
    topology = Topology(num_nodes=1, num_ranks=3, num_slots=6, masked_ranks=(1,))
    return Placement(torch.tensor(phy2log), num_experts, topology)


def test_masked_slots_are_left_out_of_the_maps() -> None:
    """0 1 | - - | 1 1: expert 1 has slots 1 4 5, two of them on one rank."""
    placement = _without_rank_1([[0, 1, -1, -1, 1, 1]], 2)

    assert placement.logcnt().tolist() == [[1, 3]]
    assert placement.log2phy().tolist() == [[[0, -1, -1], [1, 4, 5]]]
    assert placement.num_duplicates().tolist() == [1]
    assert placement.active_phy2log().tolist() == [[0, 1, 1, 1]]


def test_a_masked_slot_may_not_hold_an_expert() -> None:
    """Rank 1 is masked, but slot 3 holds expert 0."""
    with pytest.raises(InvalidPlacementError) as caught:
        _without_rank_1([[0, 1, -1, 0, 1, 1]], 2)

    assert str(caught.value) == "Expected -1 in every slot of a masked rank, got 0 at [0, 3]."


def test_a_slot_that_is_not_masked_may_not_be_empty() -> None:
    """Only rank 1 is masked, but slot 4 is of rank 2."""
    with pytest.raises(InvalidPlacementError, match=r"got -1 at \[0, 4\]"):
        _without_rank_1([[0, 1, -1, -1, -1, 1]], 2)


def test_an_expert_of_a_masked_rank_alone_has_no_slot() -> None:
    """What remains of 0 1 | 2 3 | 0 1 lacks experts 2 and 3, and so is no placement."""
    old = builders.placement((0, 1, 2, 3, 0, 1), num_ranks=3)
    left = old.phy2log_on(_without_rank_1([[0, 1, -1, -1, 0, 1]], 2).topology)

    assert left.tolist() == [[0, 1, -1, -1, 0, 1]]
    with pytest.raises(InvalidPlacementError, match="got none for expert 2 in layer 0"):
        _without_rank_1(left.tolist(), 4)


def test_what_is_left_of_a_map_is_a_copy() -> None:
    """Changing it does not change the placement, also where nothing is masked."""
    old = builders.placement()
    old.phy2log_on(old.topology)[0, 0] = 3

    assert old.phy2log.tolist() == [[0, 1, 2, 3]]


def test_a_rank_that_is_back_holds_nothing() -> None:
    """What was masked stays empty on a topology without masked ranks."""
    whole = Topology(num_nodes=1, num_ranks=3, num_slots=6)

    assert _without_rank_1([[0, 1, -1, -1, 0, 1]], 2).phy2log_on(whole).tolist() == [
        [0, 1, -1, -1, 0, 1]
    ]


def test_a_map_goes_to_a_machine_of_the_same_size_only() -> None:
    """Two ranks are not four."""
    with pytest.raises(InvalidPlacementError, match="2 ranks and 4 slots") as caught:
        builders.placement().phy2log_on(builders.topology(num_ranks=4))

    assert caught.value.field == "topology"


def test_moves_are_counted_on_the_ranks_that_are_active_now() -> None:
    """0 1 | 2 3 | 0 1 to 0 1 | - - | 2 3 receives 2 and 3; the way back, rank 1 and rank 2."""
    whole = builders.placement((0, 1, 2, 3, 0, 1), num_ranks=3)
    damaged = _without_rank_1([[0, 1, -1, -1, 2, 3]], 4)

    assert damaged.moved_slots(whole).tolist() == [2]
    assert whole.moved_slots(damaged).tolist() == [4]


@settings(deadline=None, max_examples=80)
@given(reference_migration.pairs(max_ranks=8))
def test_masks_change_no_rule(pair: tuple[Placement, Placement]) -> None:
    """Maps, duplicates and moved slots are the obvious ones, whichever ranks are masked."""
    new, old = pair
    topology = new.topology
    rows = new.phy2log.tolist()

    for row in rows:
        held = [-1 in pack for pack in reference_migration.packs(row, topology)]
        assert [rank for rank, is_empty in enumerate(held) if is_empty] == list(
            topology.masked_ranks
        )
    expected = [reference.log2phy(row, new.num_logical_experts) for row in rows]
    logcnt = [[len(slots) for slots in layer] for layer in expected]
    assert new.logcnt().tolist() == logcnt
    assert min(map(min, logcnt)) >= 1
    unpadded = [[[s for s in slots if s >= 0] for slots in layer] for layer in new.log2phy()]
    assert unpadded == expected
    wasted = [
        sum(
            len(pack) - len({*pack})
            for pack in reference_migration.packs(row, topology)
            if -1 not in pack
        )
        for row in rows
    ]
    assert new.num_duplicates().tolist() == wasted
    moved = [
        reference_migration.num_moved(row, before, topology)
        for row, before in zip(rows, old.phy2log.tolist(), strict=True)
    ]
    assert new.moved_slots(old).tolist() == moved


def test_the_initial_placement_leaves_masked_ranks_out() -> None:
    """Four slots are left for three experts: 0 1 | - - | 2 0."""
    topology = Topology(num_nodes=1, num_ranks=3, num_slots=6, masked_ranks=(1,))

    assert Placement.initial(1, 3, topology).phy2log.tolist() == [[0, 1, -1, -1, 2, 0]]
    with pytest.raises(InvalidPlacementError, match=r"got 5 experts and 4 slots\.$"):
        Placement.initial(1, 5, topology)


def test_the_initial_placement_goes_round() -> None:
    """Six slots for four experts hold 0 1 2 3 0 1 in every layer."""
    placement = Placement.initial(2, 4, builders.topology(num_ranks=3, num_slots=6))

    assert placement.phy2log.tolist() == [[0, 1, 2, 3, 0, 1]] * 2


def test_the_initial_placement_needs_a_slot_per_expert() -> None:
    """Five experts do not fit into four slots."""
    with pytest.raises(InvalidPlacementError, match=r"got 5 experts and 4 slots\.$"):
        Placement.initial(1, 5, builders.topology())


def test_an_expert_without_a_slot_is_named() -> None:
    """A map that forgets expert 3 in layer 1 is refused, naming both."""
    phy2log = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 2]])

    with pytest.raises(InvalidPlacementError) as caught:
        Placement(phy2log, 4, builders.topology())

    assert str(caught.value) == (
        "Expected a slot for every logical expert in every layer, "
        "got none for expert 3 in layer 1."
    )


@pytest.mark.parametrize("expert", [-1, 4])
def test_an_id_out_of_range_is_named(expert: int) -> None:
    """Ids below zero or past the last expert are refused with their index."""
    phy2log = torch.tensor([[0, 1, 2, 3], [0, 1, expert, 3]])

    with pytest.raises(InvalidPlacementError) as caught:
        Placement(phy2log, 4, builders.topology())

    assert str(caught.value) == f"Expected expert ids in [0, 3], got {expert} at [1, 2]."


@pytest.mark.parametrize(
    ("phy2log", "num_experts", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), 1, r"shape \[num_layers, 4\], got \[4\]"),
        (torch.zeros(1, 5, dtype=torch.int64), 1, r"shape \[num_layers, 4\], got \[1, 5\]"),
        (torch.zeros(0, 4, dtype=torch.int64), 1, r"num_layers in \[1, 256\], got 0"),
        (torch.zeros(1, 4), 1, r"int16, int32 or int64, got torch\.float32"),
        (torch.zeros(1, 4, dtype=torch.int64), 0, r"num_logical_experts in \[1, 4096\], got 0"),
    ],
)
def test_shape_and_dtype_are_checked(
    phy2log: torch.Tensor, num_experts: int, message: str
) -> None:
    """Maps of the wrong shape or dtype are refused."""
    with pytest.raises(InvalidPlacementError, match=message):
        Placement(phy2log, num_experts, builders.topology())


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_a_placement_does_not_change_with_its_source(dtype: torch.dtype) -> None:
    """Writing to the tensor that a placement was made from leaves the placement alone."""
    phy2log = torch.tensor([[0, 1, 2, 3]], dtype=dtype)
    placement = Placement(phy2log, 4, builders.topology())

    phy2log.zero_()

    assert placement.phy2log.tolist() == [[0, 1, 2, 3]]
    assert placement.phy2log.dtype is torch.int64
