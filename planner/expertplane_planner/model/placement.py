"""Which slot holds which logical expert, and the maps that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from expertplane_planner.errors import InvalidPlacementError

from .comparable import check_comparable, check_same_machine
from .digest import digest_phy2log
from .load import MAX_LAYERS, MAX_LOGICAL_EXPERTS
from .masking import active_slots, expand, masked_like


if TYPE_CHECKING:
    from torch import Tensor

    from .topology import Topology


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """An expert for every slot of every layer, and a slot for every expert.

    Slots of masked ranks hold -1 and are left out of all that is counted here. The map is checked
    and copied at birth, so that a placement cannot change afterwards.

    Raises:
        InvalidPlacementError: Wrong shape or dtype, an expert id out of range, a masked slot that
            holds one, or a logical expert without a slot; the message names the first offending
            index.
    """

    phy2log: Tensor
    """[num_layers, num_slots] int64 (int16 and int32 are converted), logical expert per slot, -1
    in those of masked ranks."""

    num_logical_experts: int
    """Logical experts per layer, at most the active slots."""

    topology: Topology
    """Ranks and nodes that the slots belong to."""

    def __post_init__(self) -> None:
        _check_dimensions(self.phy2log, self.num_logical_experts, self.topology)
        phy2log = self.phy2log.detach().to(torch.int64, copy=True)
        object.__setattr__(self, "phy2log", phy2log.contiguous())
        _check_ids(self.phy2log, self.num_logical_experts, self.topology)
        _check_every_expert_placed(self.logcnt())

    @classmethod
    def initial(cls, num_layers: int, num_logical_experts: int, topology: Topology) -> Placement:
        """Return the placement that needs no load: experts in turn, over and over.

        Of the slots that are not masked, the p-th holds expert p mod num_logical_experts.

        Raises:
            InvalidPlacementError: There are fewer active slots than logical experts.
        """
        num_slots = topology.num_active_slots
        if not 1 <= num_logical_experts <= num_slots:
            raise InvalidPlacementError(
                "num_logical_experts",
                "Expected a slot for every logical expert, "
                f"got {num_logical_experts} experts and {num_slots} slots.",
            )
        experts = (torch.arange(num_slots) % num_logical_experts).expand(num_layers, -1)
        return cls(expand(experts, topology), num_logical_experts, topology)

    @classmethod
    def as_held(cls, phy2log: Tensor, num_logical_experts: int, topology: Topology) -> Placement:
        """Return the placement that a map shows, with those ranks masked that hold nothing.

        Args:
            phy2log: [num_layers, num_slots] int64, int32 or int16, -1 in slots that hold nothing.
            num_logical_experts: Logical experts per layer.
            topology: Nodes, ranks, slots and capacities; its masked ranks may be others.

        Raises:
            InvalidTopologyError: No rank holds anything.
            InvalidPlacementError: As for the class.
        """
        return cls(phy2log, num_logical_experts, masked_like(topology, phy2log))

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return self.phy2log.shape[0]

    def logcnt(self) -> Tensor:
        """Return how many replicas each logical expert has.

        Returns:
            [num_layers, num_logical_experts] int64, at least 1.
        """
        held = self.active_phy2log()
        counts = held.new_zeros(self.num_layers, self.num_logical_experts)
        return counts.scatter_add_(1, held, torch.ones_like(held))

    def log2phy(self) -> Tensor:
        """Return the slots of each logical expert, ascending, padded with -1.

        As wide as the most replicated expert needs: at worst num_slots numbers per expert.
        Masked slots are nobody's.

        Returns:
            [num_layers, num_logical_experts, largest logcnt] int64.
        """
        logcnt = self.logcnt()
        width = int(logcnt.max())
        # A stable sort by expert lists each expert's slots in ascending order, one run per expert.
        experts, places = self.active_phy2log().sort(dim=1, stable=True)
        slots = active_slots(self.topology, places.device)[places]
        run_start = (logcnt.cumsum(dim=1) - logcnt).gather(1, experts)
        replica = torch.arange(slots.shape[1], device=slots.device) - run_start
        flat = slots.new_full((self.num_layers, self.num_logical_experts * width), -1)
        flat.scatter_(1, experts * width + replica, slots)
        return flat.view(self.num_layers, self.num_logical_experts, width)

    def num_duplicates(self) -> Tensor:
        """Return how many slots are wasted on a replica that its rank holds already.

        Returns:
            [num_layers] int64.
        """
        residents = self._residents()
        return (residents[:, 1:] == residents[:, :-1]).sum(dim=1)

    def moved_slots(self, old: Placement) -> Tensor:
        """Return how many experts the ranks would have to receive to get here from `old`.

        Over the ranks that are active here, the size of the multiset of new experts minus the
        multiset of old ones; a change of slot inside a rank is free. A rank that was masked in
        `old` has to receive all that it holds.

        Args:
            old: A placement of the same layers, experts, nodes, ranks and slots.

        Returns:
            [num_layers] int64.

        Raises:
            InvalidPlacementError: The two placements differ in one of these.
        """
        check_comparable(self, old, field="old")
        new_copies = self._numbered_residents()
        old_copies = old._numbered_residents().to(new_copies.device)
        # Each list is free of repetitions, so equal neighbours in the merged list are common.
        merged = torch.cat([new_copies, old_copies], dim=1).sort(dim=1).values
        num_kept = (merged[:, 1:] == merged[:, :-1]).sum(dim=1)
        return self.topology.num_active_slots - num_kept

    def active_phy2log(self) -> Tensor:
        """Return the experts of the slots that are not masked, [num_layers, num_active_slots]."""
        if not self.topology.masked_ranks:
            return self.phy2log
        return self.phy2log[:, active_slots(self.topology, self.phy2log.device)]

    def phy2log_on(self, topology: Topology) -> Tensor:
        """Return what is left of the map on a topology with other masked ranks.

        Slots of ranks that are masked on either topology hold -1. So this need not be a placement:
        an expert may have lost its last slot, and a rank that is back holds nothing yet.

        Args:
            topology: One of as many nodes, ranks and slots.

        Returns:
            [num_layers, num_slots] int64, a copy.

        Raises:
            InvalidPlacementError: The topologies differ in nodes, ranks or slots.
        """
        check_same_machine(self.topology, topology, field="topology")
        phy2log = self.phy2log.clone()
        phy2log[:, _is_masked(topology, phy2log.device)] = -1
        return phy2log

    def digest(self) -> str:
        """Return the sha256 of the map in lowercase hex, see `digest_phy2log`."""
        return digest_phy2log(self.phy2log)

    def _residents(self) -> Tensor:
        # [num_layers, num_active_slots], a number per (rank, expert) of each slot, ascending.
        rank = active_slots(self.topology, self.phy2log.device) // self.topology.slots_per_rank
        return (rank * self.num_logical_experts + self.active_phy2log()).sort(dim=1).values

    def _numbered_residents(self) -> Tensor:
        # The same with the copies of one pair told apart; at most num_slots * 4096, far from 2^63.
        residents = self._residents()
        place = torch.arange(residents.shape[1], device=residents.device)
        copy_number = place - torch.searchsorted(residents, residents)
        return residents * self.topology.slots_per_rank + copy_number


def _check_dimensions(phy2log: Tensor, num_logical_experts: int, topology: Topology) -> None:
    if phy2log.dim() != 2 or phy2log.shape[1] != topology.num_slots:
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected phy2log of shape [num_layers, {topology.num_slots}], "
            f"got {list(phy2log.shape)}.",
        )
    if not 1 <= phy2log.shape[0] <= MAX_LAYERS:
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected num_layers in [1, {MAX_LAYERS}], got {phy2log.shape[0]}.",
        )
    if phy2log.dtype not in (torch.int64, torch.int32, torch.int16):
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected phy2log of dtype int16, int32 or int64, got {phy2log.dtype}.",
        )
    if not 1 <= num_logical_experts <= MAX_LOGICAL_EXPERTS:
        raise InvalidPlacementError(
            "placement.num_logical_experts",
            f"Expected num_logical_experts in [1, {MAX_LOGICAL_EXPERTS}], "
            f"got {num_logical_experts}.",
        )


def _is_masked(topology: Topology, device: torch.device) -> Tensor:
    """Return whether each slot is that of a masked rank, [num_slots] bool."""
    is_masked = torch.ones(topology.num_slots, dtype=torch.bool, device=device)
    is_masked[active_slots(topology, device)] = False
    return is_masked


def _check_ids(phy2log: Tensor, num_logical_experts: int, topology: Topology) -> None:
    if topology.masked_ranks:
        is_masked = _is_masked(topology, phy2log.device)
        is_held = is_masked & (phy2log != -1)
        if is_held.any():
            layer, slot = torch.nonzero(is_held)[0].tolist()
            raise InvalidPlacementError(
                "placement.phy2log",
                "Expected -1 in every slot of a masked rank, "
                f"got {int(phy2log[layer, slot])} at [{layer}, {slot}].",
            )
        phy2log = phy2log.masked_fill(is_masked, 0)
    out_of_range = (phy2log < 0) | (phy2log >= num_logical_experts)
    if out_of_range.any():
        layer, slot = torch.nonzero(out_of_range)[0].tolist()
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected expert ids in [0, {num_logical_experts - 1}], "
            f"got {int(phy2log[layer, slot])} at [{layer}, {slot}].",
        )


def _check_every_expert_placed(logcnt: Tensor) -> None:
    unplaced = logcnt == 0
    if unplaced.any():
        layer, expert = torch.nonzero(unplaced)[0].tolist()
        raise InvalidPlacementError(
            "placement.phy2log",
            "Expected a slot for every logical expert in every layer, "
            f"got none for expert {expert} in layer {layer}.",
        )
