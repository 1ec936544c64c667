"""Masked ranks: what is left of a topology to plan on, and the way back to all its slots."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

import torch

from expertplane_planner.errors import InvalidPlacementError


if TYPE_CHECKING:
    from torch import Tensor

    from .topology import Topology


def compact(topology: Topology) -> Topology:
    """Return the topology of the active ranks alone, numbered anew in their order.

    Capacities stay. Nodes that keep no rank fall away. The others stay nodes if they keep equally
    many ranks each; otherwise all ranks count as one node.
    """
    if not topology.masked_ranks:
        return topology
    nodes = Counter(rank // topology.ranks_per_node for rank in topology.active_ranks)
    return dataclasses.replace(
        topology,
        num_nodes=len(nodes) if has_even_nodes(topology) else 1,
        num_ranks=topology.num_active_ranks,
        num_slots=topology.num_active_slots,
        masked_ranks=(),
        rank_capacities=None if topology.rank_capacities is None else topology.capacities,
    )


def has_even_nodes(topology: Topology) -> bool:
    """Return whether all nodes that keep a rank keep equally many."""
    nodes = Counter(rank // topology.ranks_per_node for rank in topology.active_ranks)
    return len(set(nodes.values())) == 1


def masked_like(topology: Topology, phy2log: Tensor) -> Topology:
    """Return a topology with the masked ranks that a map shows: those that hold nothing.

    Args:
        topology: Nodes, ranks, slots and capacities.
        phy2log: [num_layers, num_slots] integers, -1 in slots that hold nothing.

    Raises:
        InvalidTopologyError: No rank holds anything.
    """
    packs = phy2log.reshape(-1, topology.num_ranks, topology.slots_per_rank)
    is_empty = (packs == -1).all(dim=2).all(dim=0)
    masked_ranks = tuple(is_empty.nonzero().flatten().tolist())
    return dataclasses.replace(topology, masked_ranks=masked_ranks)


def active_slots(topology: Topology, device: torch.device | None = None) -> Tensor:
    """Return the slots of the active ranks, ascending, [num_active_slots] int64."""
    if not topology.masked_ranks:
        return torch.arange(topology.num_slots, device=device)
    rank = torch.tensor(topology.active_ranks, device=device)
    place = torch.arange(topology.slots_per_rank, device=device)
    return (rank.unsqueeze(1) * topology.slots_per_rank + place).flatten()


def expand(phy2log: Tensor, topology: Topology) -> Tensor:
    """Return a map of all slots, with -1 in those of masked ranks.

    Args:
        phy2log: [num_layers, num_active_slots] integers, as planned on `compact(topology)`.
        topology: The topology with its masked ranks.

    Returns:
        [num_layers, num_slots], of the dtype and on the device of `phy2log`.

    Raises:
        InvalidPlacementError: The map has another shape.
    """
    if phy2log.dim() != 2 or phy2log.shape[1] != topology.num_active_slots:
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected phy2log of shape [num_layers, {topology.num_active_slots}], "
            f"got {list(phy2log.shape)}.",
        )
    if not topology.masked_ranks:
        return phy2log
    full = phy2log.new_full((len(phy2log), topology.num_slots), -1)
    full[:, active_slots(topology, phy2log.device)] = phy2log
    return full
