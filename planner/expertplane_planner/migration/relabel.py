"""Relabelling: hand packs to ranks, and replicas to slots, so that the fewest weights move.

Which of several ranks of one capacity gets which pack does not change the balance; a pack never
goes to a rank of another capacity, nor to a masked one.

Source: the assignment of packs to ranks is that of vLLM-Ascend's FlashLB (`minimize_redeploy`,
Hungarian method), the stable slots are those of vLLM's `preserve_intragpu_slots`. Deviations:
1. experts are counted with multiplicity; 2. among the assignments that move least, the one that
moves least between nodes is taken; 3. nodes swap as wholes where experts belong to one.

Legend: L layers, P slots, R ranks, S slots per rank, N nodes; of the active ranks alone, but for
the nodes of a machine where they do not keep equally many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from expertplane_planner.errors import InvalidInputError
from expertplane_planner.model.comparable import check_comparable
from expertplane_planner.model.masking import active_slots, compact, expand, has_even_nodes
from expertplane_planner.model.placement import Placement


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from expertplane_planner.model.topology import Topology

    Integers: TypeAlias = NDArray[np.int64]
    Reals: TypeAlias = NDArray[np.float64]


def relabel(placement: Placement, incumbent: Placement, *, by_node: bool) -> Placement:
    """Return the placement with its packs on other ranks, so that the fewest slots move.

    Packs keep their contents. Of all assignments of packs to active ranks, each of the capacity
    that its pack was planned for, it takes in every layer one that moves the fewest slots
    (`Placement.moved_slots`); of those, one that brings the fewest experts from other nodes; of
    those, one that leaves packs nearest their rank (least sum of squared distances), so that of
    equal packs the lower stays on the lower rank. If that leaves a choice, scipy's solver takes
    it, the same way each time. Inside a rank every kept expert stays in its slot, the lowest of
    them if the rank keeps fewer copies than it had, and new experts fill the freed slots, both in
    ascending order: no expert changes its slot within a rank. Hence relabelling twice changes
    nothing more, and an incumbent with its ranks permuted comes back as the incumbent.

    Takes O(L * R^3) at worst, 20 ms for 58 layers on 32 ranks.

    Args:
        placement: What is planned.
        incumbent: What the ranks hold now, with masked ranks and capacities of its own; a rank
            that was masked holds nothing.
        by_node: Whether the packs of a node must stay together, as in both hierarchical modes:
            nodes then swap packs as wholes, and ranks swap them inside a node. Expert groups
            change their home then, and stay whole.

    Returns:
        A placement on the device of `placement`.

    Raises:
        InvalidPlacementError: The two placements differ in layers, experts, nodes, ranks or slots.
        InvalidInputError: By node, and nodes do not keep equally many active ranks.
    """
    check_comparable(placement, incumbent, field="incumbent")
    if by_node and not has_even_nodes(placement.topology):
        raise InvalidInputError(
            "by_node",
            "Expected nodes that keep equally many active ranks, got masked ranks "
            f"{list(placement.topology.masked_ranks)}.",
        )
    topology = compact(placement.topology)
    slots = active_slots(placement.topology)
    new = placement.active_phy2log().cpu().numpy()
    old = _held_before(placement, incumbent)
    node = (slots // placement.topology.slots_per_node).numpy()
    is_barred = np.not_equal.outer(topology.capacities, topology.capacities)
    num_blocks = topology.num_nodes if by_node else 1
    moved = np.empty_like(new)
    packs = new.reshape(len(new), topology.num_ranks, topology.slots_per_rank)
    for layer, (copies, old_copies) in enumerate(
        zip(_numbered_copies(new, topology), _numbered_copies(old, topology), strict=True)
    ):
        cost = _cost(new[layer], old[layer], copies, old_copies, node, topology)
        cost[is_barred] = np.inf
        moved[layer] = packs[layer, _cheapest_packs(cost, num_blocks)].reshape(-1)
    phy2log = torch.from_numpy(_with_stable_slots(moved, old, topology))
    phy2log = expand(phy2log, placement.topology).to(placement.phy2log.device)
    return Placement(phy2log, placement.num_logical_experts, placement.topology)


def settle(placement: Placement, incumbent: Placement) -> Placement:
    """Return the placement with every expert that a rank keeps in the slot where it was.

    Packs stay on their ranks; slots are given as by `relabel`.

    Args:
        placement: What is planned.
        incumbent: What the ranks hold now, with masked ranks and capacities of its own.

    Raises:
        InvalidPlacementError: The two placements differ in layers, experts, nodes, ranks or slots.
    """
    check_comparable(placement, incumbent, field="incumbent")
    new = placement.active_phy2log().cpu().numpy()
    old = _held_before(placement, incumbent)
    phy2log = torch.from_numpy(_with_stable_slots(new, old, compact(placement.topology)))
    phy2log = expand(phy2log, placement.topology).to(placement.phy2log.device)
    return Placement(phy2log, placement.num_logical_experts, placement.topology)


def _held_before(placement: Placement, incumbent: Placement) -> Integers:
    """Return what the incumbent has in the slots that are active in the placement, [L, P]."""
    old: Integers = incumbent.phy2log.cpu()[:, active_slots(placement.topology)].numpy()
    # A rank that was masked holds an expert that no pack has, which is as good as nothing.
    return np.where(old < 0, placement.num_logical_experts, old)


def _numbered_copies(phy2log: Integers, topology: Topology) -> Integers:
    """Return a number per (expert, how many slots of its rank before it hold it), [L, P]."""
    slots_per_rank = topology.slots_per_rank
    packs = phy2log.reshape(-1, slots_per_rank)
    order = packs.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(packs, order, axis=1)
    place = np.arange(slots_per_rank)
    is_first = np.ones_like(ordered, dtype=bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(is_first, place, 0), axis=1)
    copies = np.empty_like(packs)
    np.put_along_axis(copies, order, ordered * slots_per_rank + place - first, axis=1)
    return copies.reshape(phy2log.shape)


def _cost(
    new: Integers,
    old: Integers,
    copies: Integers,
    old_copies: Integers,
    node: Integers,
    topology: Topology,
) -> Reals:
    """Return what each pack costs on each rank of one layer, [R packs, R ranks].

    First moved slots, then those from other nodes, then the squared distance, each weighing more
    than all that follow together. Exact up to 2^53, so for any machine of up to 512 ranks; beyond,
    the distance may be rounded.
    """
    num_ranks, num_slots = topology.num_ranks, topology.num_slots
    # A multiset intersection is a set intersection of numbered copies.
    known, index = np.unique(np.concatenate([copies, old_copies]), return_inverse=True)
    starts = np.arange(0, num_slots + 1, topology.slots_per_rank)
    ones, shape = np.ones(num_slots), (num_ranks, len(known))
    packs = csr_array((ones, index[:num_slots], starts), shape=shape)
    ranks = csr_array((ones, index[num_slots:], starts), shape=shape)
    overlap = np.asarray((packs @ ranks.T).toarray(), dtype=np.float64)

    is_on_node = np.zeros((max(int(new.max()), int(old.max())) + 1, int(node.max()) + 1))
    is_on_node[old, node] = 1
    near = np.add.reduceat(is_on_node[new], starts[:-1], axis=0)  # [R packs, N]
    far = topology.slots_per_rank - near[:, node[starts[:-1]]]

    rank = np.arange(num_ranks)
    distance = (rank[:, None] - rank) ** 2
    weight = float(num_ranks) ** 3
    moved = topology.slots_per_rank - overlap
    return np.asarray((moved * (num_slots + 1) + far) * weight + distance)


def _cheapest_packs(cost: Reals, num_blocks: int) -> Integers:
    """Return the pack that each rank gets, [R]; packs of one block stay together."""
    if num_blocks == 1:
        return _assigned(cost)
    per_block = len(cost) // num_blocks
    blocks = cost.reshape(num_blocks, per_block, num_blocks, per_block).transpose(0, 2, 1, 3)
    packs = np.empty((num_blocks, num_blocks, per_block), dtype=np.int64)
    block_cost = np.empty((num_blocks, num_blocks))
    rank = np.arange(per_block)
    for new, old in np.ndindex(num_blocks, num_blocks):
        try:
            packs[new, old] = _assigned(blocks[new, old])
        except ValueError:  # nodes whose ranks have other capacities
            block_cost[new, old] = np.inf
            continue
        block_cost[new, old] = blocks[new, old, packs[new, old], rank].sum()
    chosen = _assigned(block_cost)
    first = chosen[:, None] * per_block
    return (first + packs[chosen, np.arange(num_blocks)]).reshape(-1)


def _assigned(cost: Reals) -> Integers:
    """Return the row that each column gets, so that the costs add up to the least."""
    columns, rows = linear_sum_assignment(cost.T)
    assert (columns[:-1] < columns[1:]).all()
    return np.asarray(rows, dtype=np.int64)


def _with_stable_slots(new: Integers, old: Integers, topology: Topology) -> Integers:
    """Return the new map with kept experts in their old slots, [L, P]."""
    slot = np.arange(topology.num_slots)
    layer_and_rank = np.arange(len(new))[:, None] * topology.num_ranks + (
        slot // topology.slots_per_rank
    )
    # Copies are numbered below num_copies, a little over 2^32 at most; rows are at most 2^20.
    num_copies = (topology.num_slots + 1) * topology.slots_per_rank
    row = layer_and_rank * num_copies
    new_copies = row + _numbered_copies(new, topology)
    old_copies = row + _numbered_copies(old, topology)
    is_new = ~np.isin(new_copies, old_copies)
    is_freed = ~np.isin(old_copies, new_copies)
    # Layers and ranks have as many new experts as freed slots, so both lists go in step.
    arriving = np.sort(new_copies[is_new]) % num_copies
    result = old.copy()
    result[is_freed] = arriving // topology.slots_per_rank
    return result
