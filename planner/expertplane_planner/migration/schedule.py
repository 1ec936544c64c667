"""Transfer schedules: where every changed slot gets its expert from, and in which round.

The peer is vLLM's `migration_scheduler.py`, which takes the first round that is free; here the
number of rounds is the least that the sources allow.

Legend: P slots, R ranks, E logical experts, C changed slots of one layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from expertplane_planner.model.comparable import check_comparable
from expertplane_planner.model.transfers import TransferSchedule

from .rounds import share_out_rounds
from .sources import choose_senders


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from expertplane_planner.model.placement import Placement
    from expertplane_planner.model.topology import Topology

    Integers: TypeAlias = NDArray[np.int64]


def schedule_transfers(placement: Placement, incumbent: Placement) -> TransferSchedule:
    """Return the copies of weights that lead from the incumbent to a placement.

    Every slot whose expert changes is filled from a slot that holds the expert in the incumbent:
    on the same rank if there is one, which uses no link; else on the same node; else anywhere. Of
    several ranks, see `choose_senders`; of several slots on a rank, the lowest. Ranks that are
    masked in the placement cannot be read from; what no other rank holds comes from storage.
    Rounds are as few as these sources allow, see `share_out_rounds`. Transfers are listed by
    layer, round and target slot.

    The transfers on links are at most the `moved_slots` of the placement, and as many unless a
    rank gets a further copy of an expert that it holds.

    Takes about 80 ms for 58 layers on 32 ranks where four slots in five change.

    Args:
        placement: Where to get, after `relabel`.
        incumbent: What the ranks hold now, with masked ranks and capacities of its own.

    Raises:
        InvalidPlacementError: The two placements differ in layers, experts, nodes, ranks or slots.
    """
    check_comparable(placement, incumbent, field="incumbent")
    topology = placement.topology
    new = placement.phy2log.cpu().numpy()
    old = incumbent.phy2log_on(topology).cpu().numpy()
    columns: list[tuple[Integers, ...]] = []
    for layer in range(placement.num_layers):
        # In slots of masked ranks both hold -1.
        target = (new[layer] != old[layer]).nonzero()[0]
        expert = new[layer, target]
        source = _source_slots(old[layer], expert, target, placement.num_logical_experts, topology)
        rounds = _rounds(source, target, topology)
        order = np.lexsort((target, rounds))
        columns.append(
            (np.full_like(target, layer), *(c[order] for c in (expert, source, target, rounds)))
        )
    layers, experts, sources, targets, all_rounds = map(np.concatenate, zip(*columns, strict=True))
    return TransferSchedule(
        topology=topology,
        num_layers=placement.num_layers,
        layer=layers,
        expert=experts,
        source_slot=sources,
        target_slot=targets,
        round=all_rounds,
    )


def _source_slots(
    old: Integers, expert: Integers, target: Integers, num_experts: int, topology: Topology
) -> Integers:
    """Return the slot that each changed slot is filled from, -1 for storage, [C] int64.

    Args:
        old: [P] int64, what the slots of the layer hold, -1 where they cannot be read.
        expert: [C] int64, what the changed slots will hold.
        target: [C] int64, the changed slots.
        num_experts: Logical experts per layer.
        topology: Ranks and nodes that the slots belong to.
    """
    nowhere = topology.num_slots
    slot = (old >= 0).nonzero()[0]
    lowest_slot = np.full((topology.num_ranks, num_experts), nowhere)
    np.minimum.at(lowest_slot, (slot // topology.slots_per_rank, old[slot]), slot)
    is_held = lowest_slot < nowhere

    sender = target // topology.slots_per_rank
    is_anywhere = (is_held.sum(axis=0) > 0)[expert]
    arrives = ~is_held[sender, expert] & is_anywhere
    sender[arrives] = choose_senders(
        is_held, expert[arrives], sender[arrives], topology.ranks_per_node
    )
    source = lowest_slot[sender, expert]
    return np.where(source == nowhere, -1, source)


def _rounds(source: Integers, target: Integers, topology: Topology) -> Integers:
    """Return the round of each changed slot, 0 for those filled from their own rank, [C] int64."""
    sender, receiver = source // topology.slots_per_rank, target // topology.slots_per_rank
    rounds = np.zeros_like(target)
    on_link = sender != receiver
    if on_link.any():
        sender, receiver = sender[on_link], receiver[on_link]
        is_slow = sender // topology.ranks_per_node != receiver // topology.ranks_per_node
        from_storage = source[on_link] < 0
        if from_storage.any():
            # By far the slowest; with a sender for each receiver it waits for nobody.
            is_slow = from_storage
            sender = np.where(from_storage, topology.num_ranks + receiver, sender)
        rounds[on_link] = share_out_rounds(sender, receiver, is_slow)
    return rounds
