"""A schedule leads to the new placement, from slots that hold what is read from them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings

from expertplane_planner import InvalidPlacementError, Placement, Topology
from expertplane_planner.migration import relabel, schedule_transfers
from expertplane_planner.model.transfers import LinkClass

from ...support import builders, reference_migration as reference


def test_each_changed_slot_is_filled() -> None:
    """Old 0 1 | 2 0 || 3 1 | 5 6 || 4 4 | 4 4 to 0 2 | 2 0 || 3 1 | 6 5 || 4 0 | 4 4.

    Slot 1 gets 2 from slot 2 on its node, slot 9 gets 0 from slot 0, because the rank of slot 3 is
    busy with that, and 5 and 6 change places inside their rank: all in one round.
    """
    old = builders.placement((0, 1, 2, 0, 3, 1, 5, 6, 4, 4, 4, 4), num_ranks=6, num_nodes=3)
    new = builders.placement((0, 2, 2, 0, 3, 1, 6, 5, 4, 0, 4, 4), num_ranks=6, num_nodes=3)
    schedule = schedule_transfers(new, old)

    assert schedule.layer.tolist() == [0, 0, 0, 0]
    assert schedule.target_slot.tolist() == [1, 6, 7, 9]
    assert schedule.expert.tolist() == [2, 6, 5, 0]
    assert schedule.source_slot.tolist() == [2, 7, 6, 0]
    assert schedule.round.tolist() == [0, 0, 0, 0]
    assert schedule.link_class.tolist() == [
        LinkClass.SAME_NODE,
        LinkClass.SAME_RANK,
        LinkClass.SAME_RANK,
        LinkClass.CROSS_NODE,
    ]


def test_without_a_change_there_is_nothing_to_do() -> None:
    """From a placement to itself no transfer leads."""
    schedule = schedule_transfers(builders.placement(), builders.placement())

    assert (schedule.num_transfers, schedule.num_rounds().tolist()) == (0, [0])


def test_a_further_copy_comes_from_the_rank_itself() -> None:
    """Old 0 1 | 2 3 | 0 1, new 0 0 | 2 3 | 0 1: a moved slot, but nothing on a link."""
    old = builders.placement((0, 1, 2, 3, 0, 1), num_ranks=3)
    new = builders.placement((0, 0, 2, 3, 0, 1), num_ranks=3)
    schedule = schedule_transfers(new, old)

    assert new.moved_slots(old).tolist() == [1]
    assert schedule.count(LinkClass.SAME_RANK) == schedule.num_transfers == 1
    assert schedule.num_rounds().tolist() == [0]


def test_layers_are_numbered_and_rounds_start_anew_in_each() -> None:
    """Layer 0 has a transfer, layer 1 none, layer 2 one either way and a copy inside rank 1."""
    topology = Topology(num_nodes=1, num_ranks=2, num_slots=6)
    old_row, new_row = (0, 1, 2, 3, 0, 1), (3, 1, 2, 3, 0, 1)
    old = Placement(torch.tensor([old_row] * 3), 4, topology)
    new = Placement(torch.tensor([new_row, old_row, (3, 1, 2, 2, 0, 3)]), 4, topology)
    schedule = schedule_transfers(new, old)

    assert schedule.layer.tolist() == [0, 2, 2, 2]
    assert schedule.target_slot.tolist() == [0, 0, 3, 5]
    assert schedule.expert.tolist() == [3, 3, 2, 3]
    assert schedule.round.tolist() == [0, 0, 0, 0]
    assert schedule.num_rounds().tolist() == [1, 0, 1]


def _on(topology: Topology, *rows: tuple[int, ...]) -> Placement:
    return Placement(torch.tensor(rows), 4, topology)


def test_what_was_only_on_a_lost_rank_comes_from_storage() -> None:
    """Old 0 1 2 | 2 3 3 | 0 1 1, rank 1 is lost; new 0 1 3 | - - - | 0 3 2.

    Expert 3 was on rank 1 alone: both ranks read it from storage at a time, and rank 2 gets
    expert 2 from rank 0 before or after.
    """
    whole = Topology(num_nodes=1, num_ranks=3, num_slots=9)
    old = _on(whole, (0, 1, 2, 2, 3, 3, 0, 1, 1))
    damaged = dataclasses.replace(whole, masked_ranks=(1,))
    new = _on(damaged, (0, 1, 3, -1, -1, -1, 0, 3, 2))
    schedule = schedule_transfers(new, old)

    assert schedule.target_slot.tolist() == [2, 7, 8]
    assert schedule.expert.tolist() == [3, 3, 2]
    assert schedule.source_slot.tolist() == [-1, -1, 2]
    assert schedule.round.tolist() == [0, 0, 1]
    assert schedule.link_class.tolist() == [
        LinkClass.STORAGE,
        LinkClass.STORAGE,
        LinkClass.SAME_NODE,
    ]
    assert new.moved_slots(old).tolist() == [3]
    assert schedule.apply(old).digest() == new.digest()


def test_a_rank_that_is_back_is_filled_and_not_read() -> None:
    """Old 0 1 | - - | 2 3, new 0 1 | 0 2 | 2 3: one expert from either, in two rounds."""
    whole = Topology(num_nodes=1, num_ranks=3, num_slots=6)
    damaged = dataclasses.replace(whole, masked_ranks=(1,))
    old, new = _on(damaged, (0, 1, -1, -1, 2, 3)), _on(whole, (0, 1, 0, 2, 2, 3))
    schedule = schedule_transfers(new, old)

    assert schedule.target_slot.tolist() == [2, 3]
    assert schedule.source_slot.tolist() == [0, 4]
    assert schedule.num_rounds().tolist() == [2]


@settings(deadline=None, max_examples=150)
@given(reference.pairs(max_ranks=8))
def test_what_every_schedule_keeps_to(pair: tuple[Placement, Placement]) -> None:
    """It fills the changed slots and no others, from holders as near as can be, in few rounds."""
    new, old = pair
    schedule = schedule_transfers(new, old)
    topology = new.topology

    # Applying checks that each source holds the expert; birth, that ranks do one thing at a time.
    assert schedule.apply(old).digest() == new.digest()
    readable = old.phy2log_on(topology)
    changed = (new.phy2log != readable).nonzero().tolist()
    targets = zip(schedule.layer.tolist(), schedule.target_slot.tolist(), strict=True)
    assert sorted(targets) == [tuple(place) for place in changed]
    keys = list(zip(schedule.layer, schedule.round, schedule.target_slot, strict=True))
    assert keys == sorted(keys)
    for layer, row in enumerate(readable.tolist()):
        own = schedule.layer == layer
        on_link = own & (schedule.link_class != LinkClass.SAME_RANK)
        for index in own.nonzero()[0]:
            expert, receiver = int(schedule.expert[index]), int(schedule.receiver[index])
            sender = int(schedule.sender[index])
            if expert in reference.packs(row, topology)[receiver]:
                assert sender == receiver
            elif expert in row:
                assert sender in reference.can_send(row, topology, expert, receiver)
            else:
                assert schedule.link_class[index] == LinkClass.STORAGE
                assert schedule.source_slot[index] == -1
                continue
            pack = reference.packs(row, topology)[sender]
            assert schedule.source_slot[index] % topology.slots_per_rank == pack.index(expert)
        senders, receivers = schedule.sender[on_link], schedule.receiver[on_link]
        _, degree = reference.degrees(tuple(senders.tolist()), receivers.tolist(), topology)
        assert schedule.num_rounds()[layer] == degree


@settings(deadline=None, max_examples=60)
@given(reference.pairs(max_ranks=8))
def test_nothing_is_copied_inside_a_rank_after_relabelling(
    pair: tuple[Placement, Placement],
) -> None:
    """Only a further copy of an expert that the rank holds comes from the rank itself."""
    new, old = pair
    new = relabel(new, old, by_node=False)
    schedule = schedule_transfers(new, old)

    assert schedule.num_transfers == int(new.moved_slots(old).sum())
    if not new.num_duplicates().any():
        assert schedule.count(LinkClass.SAME_RANK) == 0


def test_real_size() -> None:
    """58 layers on 32 ranks, hardly an expert where it was: still as few rounds as can be."""
    generator = torch.Generator().manual_seed(0)
    topology = Topology(num_nodes=4, num_ranks=32, num_slots=288)
    maps = [
        torch.stack([torch.randperm(288, generator=generator) % 256 for _ in range(58)])
        for _ in range(2)
    ]
    new, old = (Placement(phy2log, 256, topology) for phy2log in maps)
    new = relabel(new, old, by_node=False)
    schedule = schedule_transfers(new, old)

    assert schedule.apply(old).digest() == new.digest()
    for layer in range(58):
        on_link = (schedule.layer == layer) & (schedule.link_class != LinkClass.SAME_RANK)
        _, degree = reference.degrees(
            tuple(schedule.sender[on_link].tolist()), schedule.receiver[on_link].tolist(), topology
        )
        assert schedule.num_rounds()[layer] == degree


def test_placements_of_different_things_are_refused() -> None:
    """Layers, experts, nodes, ranks and slots have to be the same."""
    with pytest.raises(InvalidPlacementError, match="incumbent to be a placement of"):
        schedule_transfers(builders.placement(), builders.placement((0, 1, 2, 2)))
