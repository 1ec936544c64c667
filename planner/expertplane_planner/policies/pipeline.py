"""The walk that every policy takes: groups to nodes, replicas of experts, replicas to ranks.

Legend: L layers, E logical experts, P slots, R ranks, N nodes, G expert groups.

Source: the shape of DeepSeek EPLB, https://github.com/deepseek-ai/EPLB, `eplb.py`, function
`rebalance_experts_hierarchical`. A policy fills in how to replicate and how to pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from expertplane_planner.model.mode import Mode
from expertplane_planner.stages.permutation import inverse_permutation
from expertplane_planner.stages.replicate import max_copies, replicate_greedy
from expertplane_planner.stages.spill import spill_replicas


if TYPE_CHECKING:
    from torch import Tensor

    from expertplane_planner.stages.pack import Packing
    from expertplane_planner.stages.replicate import Replication

    from .base import PlacementRequest


class Replicator(Protocol):
    """Gives redundant slots to experts."""

    def __call__(self, weight: Tensor, num_replicas: int, num_packs: int, /) -> Replication:
        """Return replicas that are going to be packed into `num_packs` packs.

        Args:
            weight: [num_rows, num_items] floating point, load per item.
            num_replicas: Replicas per row, at least num_items.
            num_packs: Packs that the replicas of a row will go to, divides num_replicas.
        """
        ...


class Filler(Protocol):
    """Gives redundant slots to experts and packs all replicas."""

    def __call__(
        self, weight: Tensor, expert: Tensor, num_slots: int, num_packs: int, /
    ) -> Tensor:
        """Return the logical expert of each slot, pack by pack, [num_rows, num_slots] int64.

        Args:
            weight: [num_rows, num_items] floating point, load per expert of the row.
            expert: [num_rows, num_items] int64, logical experts of the row. Rows go layer by
                layer and, inside a layer, node by node.
            num_slots: Slots per row, at least num_items.
            num_packs: Packs per row, divides num_slots.
        """
        ...


class Packer(Protocol):
    """Shares items out to packs: expert groups to nodes, and replicas to ranks."""

    def __call__(self, weight: Tensor, kind: Tensor, num_packs: int, /) -> Packing:
        """Return a packing with equally many items in each pack.

        Args:
            weight: [num_rows, num_items] floating point, load per item.
            kind: [num_rows, num_items] int64, the expert group, or the logical expert that a
                replica copies. Items of one kind are copies of each other, and one copy in a pack
                is enough. Rows go layer by layer and, inside a layer, node by node.
            num_packs: Packs per row, divides num_items.
        """
        ...


def _replicate_greedily(weight: Tensor, num_replicas: int, _: int, /) -> Replication:
    return replicate_greedy(weight, num_replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The stages of a policy."""

    pack_groups: Packer
    """First, in hierarchical modes: expert groups to nodes."""

    replicate: Replicator = _replicate_greedily
    """Second: redundant slots to experts, inside a node where experts are tied to one."""

    pack: Packer
    """Third: replicas to ranks, inside a node where experts are tied to one."""

    fill: Filler | None = None
    """Second and third in one, where replicas come without a rule of their own: not for those of
    soft-hierarchical mode. None does one after the other."""

    dtype: torch.dtype = torch.float32
    """Floating point type of loads and of every sum over them."""

    def place(self, request: PlacementRequest, weight: Tensor | None = None) -> Tensor:
        """Return which logical expert each slot holds, see `Policy.place`.

        Args:
            request: What to place and where.
            weight: [L, E] floating point, what to plan on in place of the sum of the samples.
        """
        weight = (request.load.total() if weight is None else weight).to(self.dtype)
        match request.mode:
            case Mode.HIERARCHICAL:
                experts = self._experts_by_node(weight, request)
                return self._fill(weight, experts, request, num_nodes=request.topology.num_nodes)
            case Mode.SOFT_HIERARCHICAL:
                return self._fill_softly(weight, request)
            case _:
                # Global mode is the same walk with everything on one node.
                everything = torch.arange(weight.shape[1], device=weight.device)
                return self._fill(weight, everything.expand_as(weight), request, num_nodes=1)

    def _experts_by_node(self, weight: Tensor, request: PlacementRequest) -> Tensor:
        """Return the logical experts, node by node and group by group, [L, E] int64."""
        num_groups = request.num_expert_groups
        num_nodes = request.topology.num_nodes
        group_size = weight.shape[1] // num_groups
        # In float64 and rounded once, so that the sum does not depend on the device.
        group_load = weight.view(-1, num_groups, group_size).sum(dim=2, dtype=torch.float64)
        group = torch.arange(num_groups, device=weight.device).expand(len(weight), -1)
        packing = self.pack_groups(group_load.to(self.dtype), group, num_nodes)
        groups = packing.contents(num_nodes)
        member = torch.arange(group_size, device=weight.device)
        return (groups.unsqueeze(2) * group_size + member).flatten(1)

    def _fill(
        self, weight: Tensor, experts: Tensor, request: PlacementRequest, *, num_nodes: int
    ) -> Tensor:
        """Return the map of nodes that replicate and pack their own experts only, [L, P] int64."""
        num_experts = weight.shape[1] // num_nodes
        num_ranks = request.topology.num_ranks // num_nodes
        num_slots = request.topology.num_slots // num_nodes
        # From here on a row is one node of one layer.
        own_weight = weight.gather(1, experts).reshape(-1, num_experts)
        fill = self.fill or self._replicate_and_pack
        filled = fill(own_weight, experts.reshape(-1, num_experts), num_slots, num_ranks)
        return filled.view(len(weight), -1)

    def _replicate_and_pack(
        self, weight: Tensor, expert: Tensor, num_slots: int, num_packs: int, /
    ) -> Tensor:
        replicas = self.replicate(weight, num_slots, num_packs)
        held = expert.gather(1, replicas.item)
        packing = self.pack(replicas.load(weight), held, num_packs)
        return held.gather(1, packing.contents(num_packs))

    def _fill_softly(self, weight: Tensor, request: PlacementRequest) -> Tensor:
        """Return the map of nodes with some replicas of other nodes' experts, [L, P] int64."""
        topology = request.topology
        experts = self._experts_by_node(weight, request)
        place = inverse_permutation(experts)
        replicas = spill_replicas(
            weight.to(torch.float64),
            home=place // (weight.shape[1] // topology.num_nodes),
            num_nodes=topology.num_nodes,
            num_slots=topology.num_slots,
            # Each foreign replica takes the place of a redundant one; there are no more of those.
            spill=min(request.spill, topology.num_slots - weight.shape[1]),
            max_copies=max_copies(
                experts.shape[1] // topology.num_nodes,
                topology.slots_per_node,
                topology.ranks_per_node,
            ),
        )
        expert = replicas.expert.view(-1, topology.slots_per_node)
        load = replicas.load.to(self.dtype).view_as(expert)
        packing = self.pack(load, expert, topology.ranks_per_node)
        return expert.gather(1, packing.contents(topology.ranks_per_node)).view(len(weight), -1)
