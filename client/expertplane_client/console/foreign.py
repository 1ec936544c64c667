"""Foreign replicas of a placement, in numpy, for plans that come from a planner elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


def foreign_replicas(
    phy2log: NDArray[np.integer[Any]],
    *,
    num_logical_experts: int,
    num_expert_groups: int,
    num_nodes: int,
) -> tuple[int, ...]:
    """Returns how many replicas of each layer lie on another node than their group's home.

    Home is the node where every expert of the group has a replica; of several the one with most
    replicas of the group, then the lowest. A group without such a node has none at home.

    Args:
        phy2log: [num_layers, num_slots], the logical expert of every slot, -1 in masked ones.
        num_logical_experts: Logical experts per layer.
        num_expert_groups: Routing groups of consecutive logical experts; divides their number.
        num_nodes: Nodes; divides num_slots.
    """
    num_layers, num_slots = phy2log.shape
    node = np.arange(num_slots) // (num_slots // num_nodes)
    held = np.zeros((num_layers, num_nodes, num_logical_experts), dtype=np.int64)
    np.add.at(held, (np.arange(num_layers)[:, None], node, phy2log), phy2log >= 0)
    by_group = held.reshape(num_layers, num_nodes, num_expert_groups, -1)
    num_held, is_whole = by_group.sum(axis=3), (by_group > 0).all(axis=3)
    at_home = np.where(is_whole, num_held, 0).max(axis=1).sum(axis=1)
    foreign: list[int] = ((phy2log >= 0).sum(axis=1) - at_home).tolist()
    return tuple(foreign)
