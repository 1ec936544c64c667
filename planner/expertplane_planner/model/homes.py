"""Homes of expert groups: the node where every expert of a group has a replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from expertplane_planner.errors import InvalidInputError, InvalidPlacementError

from .masking import active_slots


if TYPE_CHECKING:
    from torch import Tensor

    from .placement import Placement


def home_nodes(placement: Placement, num_expert_groups: int) -> Tensor:
    """Return the node that each expert group lives on.

    That is the node where every expert of the group has a replica; of several such nodes the one
    with most replicas of the group, then the lowest.

    Args:
        placement: Which slot holds which expert.
        num_expert_groups: Routing groups of consecutive logical experts; divides their number.

    Returns:
        [num_layers, num_expert_groups] int64.

    Raises:
        InvalidInputError: The groups do not divide the experts.
        InvalidPlacementError: No node has a replica of every expert of some group.
    """
    held = _held_by_node(placement, num_expert_groups)
    is_whole = (held > 0).all(dim=2)
    homeless = ~is_whole.any(dim=2)
    if homeless.any():
        layer, group = torch.nonzero(homeless)[0].tolist()
        raise InvalidPlacementError(
            "placement.phy2log",
            "Expected a node with a replica of every expert of each group, "
            f"got none for expert group {group} in layer {layer}.",
        )
    return held.sum(dim=2).masked_fill(~is_whole, -1).argmax(dim=2)


def home_of_experts(placement: Placement, num_expert_groups: int) -> Tensor:
    """Return the node that each expert's group lives on, see `home_nodes`.

    Returns:
        [num_layers, num_logical_experts] int64.

    Raises:
        InvalidInputError: The groups do not divide the experts.
        InvalidPlacementError: No node has a replica of every expert of some group.
    """
    home = home_nodes(placement, num_expert_groups)
    return home.repeat_interleave(placement.num_logical_experts // num_expert_groups, dim=1)


def foreign_replicas(placement: Placement, num_expert_groups: int) -> Tensor:
    """Return how many replicas of each layer lie on another node than their group's home.

    Args:
        placement: Which slot holds which expert.
        num_expert_groups: Routing groups of consecutive logical experts; divides their number.

    Returns:
        [num_layers] int64.

    Raises:
        InvalidInputError: The groups do not divide the experts.
        InvalidPlacementError: No node has a replica of every expert of some group.
    """
    home = home_nodes(placement, num_expert_groups)
    held = _held_by_node(placement, num_expert_groups).sum(dim=2)
    at_home = held.gather(2, home.unsqueeze(2)).sum(dim=(1, 2))
    return placement.topology.num_active_slots - at_home


def _held_by_node(placement: Placement, num_expert_groups: int) -> Tensor:
    """Return replicas per group, member and node, [layers, groups, members, nodes] int64."""
    num_experts, topology = placement.num_logical_experts, placement.topology
    if num_expert_groups < 1 or num_experts % num_expert_groups:
        raise InvalidInputError(
            "num_expert_groups",
            "Expected num_logical_experts to be a multiple of num_expert_groups, "
            f"got {num_experts} and {num_expert_groups}.",
        )
    phy2log = placement.active_phy2log()
    node = active_slots(topology, phy2log.device) // topology.slots_per_node
    held = phy2log.new_zeros(placement.num_layers, num_experts * topology.num_nodes)
    held.scatter_add_(1, phy2log * topology.num_nodes + node, torch.ones_like(phy2log))
    return held.view(placement.num_layers, num_expert_groups, -1, topology.num_nodes)
