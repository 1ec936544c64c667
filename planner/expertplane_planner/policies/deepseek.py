"""DeepSeek's own algorithm: greedy replication and longest-processing-time packing.

Legend: L layers, E logical experts, P slots, R ranks, N nodes, G expert groups.

Source: DeepSeek EPLB, https://github.com/deepseek-ai/EPLB, `eplb.py`, functions
`rebalance_experts` and `rebalance_experts_hierarchical`. Arithmetic follows it to the bit: loads,
quotients and pack loads are float32.

Differs from the source:
1. Sorting is stable and every tie goes to the lowest index; the source's sort leaves ties to the
   version of torch.
2. All layers are packed at once, on the device of the load, instead of one by one on the CPU.
3. The load of an expert group is summed in float64 and rounded once, so that the sum does not
   depend on the device; the source sums in float32.
4. Global mode is asked for by name instead of following from group and node counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from expertplane_planner.model.mode import Mode
from expertplane_planner.stages.pack import pack_lpt
from expertplane_planner.stages.replicate import replicate_greedy


if TYPE_CHECKING:
    from torch import Tensor

    from .base import PlacementRequest


@dataclass(frozen=True, slots=True)
class DeepSeekParams:
    """DeepSeek's algorithm has nothing to set."""


@dataclass(frozen=True, slots=True)
class DeepSeekPolicy:
    """The baseline: plans on the sum of the samples, bit-exact with DeepSeek's EPLB."""

    params: DeepSeekParams = field(default_factory=DeepSeekParams)

    @property
    def name(self) -> str:
        """Name by which the policy is asked for."""
        return "deepseek"

    def place(self, request: PlacementRequest) -> Tensor:
        """Return which logical expert each slot holds.

        Returns:
            phy2log, [num_layers, num_slots] int64, on the device of the load.
        """
        weight = request.load.total().to(torch.float32)
        topology = request.topology
        # Global mode is the same algorithm with everything on one node and in one group.
        num_groups, num_nodes = (
            (request.num_expert_groups, topology.num_nodes)
            if request.mode is Mode.HIERARCHICAL
            else (1, 1)
        )
        experts_by_node = _assign_groups_to_nodes(weight, num_groups, num_nodes)
        phy2log_by_node = _fill_nodes(
            weight.gather(1, experts_by_node).reshape(-1, weight.shape[1] // num_nodes),
            topology.num_slots // num_nodes,
            topology.num_ranks // num_nodes,
        )
        # From the position inside a node back to the logical expert.
        first_of_node = torch.arange(num_nodes, device=weight.device) * (
            weight.shape[1] // num_nodes
        )
        positions = phy2log_by_node.view(len(weight), num_nodes, -1) + first_of_node.view(1, -1, 1)
        return experts_by_node.gather(1, positions.flatten(1))


def _assign_groups_to_nodes(weight: Tensor, num_groups: int, num_nodes: int) -> Tensor:
    """Return the logical experts of each layer, [L, E] int64, node by node and group by group."""
    group_size = weight.shape[1] // num_groups
    group_load = weight.view(-1, num_groups, group_size).sum(dim=2, dtype=torch.float64)
    packing = pack_lpt(group_load.to(torch.float32), num_nodes)
    position = packing.pack * (num_groups // num_nodes) + packing.place
    groups = _inverse(position)
    member = torch.arange(group_size, device=weight.device)
    return (groups.unsqueeze(2) * group_size + member).flatten(1)


def _fill_nodes(weight: Tensor, num_slots: int, num_ranks: int) -> Tensor:
    """Return which of its experts each slot of a node holds.

    Args:
        weight: [L * N, E / N] float32, load of the experts of each node.
        num_slots: Slots of one node.
        num_ranks: Ranks of one node.

    Returns:
        [L * N, num_slots] int64, index of an expert within its node.
    """
    replicas = replicate_greedy(weight, num_slots)
    replica_load = (weight / replicas.counts).gather(1, replicas.item)
    packing = pack_lpt(replica_load, num_ranks)
    slot = packing.pack * (num_slots // num_ranks) + packing.place
    return replicas.item.gather(1, _inverse(slot))


def _inverse(permutation: Tensor) -> Tensor:
    """Return the inverse of the permutation in each row, [rows, n] int64."""
    index = torch.arange(permutation.shape[1], device=permutation.device)
    return torch.empty_like(permutation).scatter_(1, permutation, index.expand_as(permutation))
