"""Which slot holds which logical expert, and the maps that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from expertplane_planner.errors import InvalidPlacementError

from .comparable import check_comparable
from .digest import digest_phy2log
from .load import MAX_LAYERS, MAX_LOGICAL_EXPERTS


if TYPE_CHECKING:
    from torch import Tensor

    from .topology import Topology


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """An expert for every slot of every layer, and a slot for every expert.

    The map is checked and copied at birth, so that a placement cannot change afterwards.

    Raises:
        InvalidPlacementError: Wrong shape or dtype, an expert id out of range, or a logical
            expert without a slot; the message names the first offending index.
    """

    phy2log: Tensor
    """[num_layers, num_slots] int64 (int16 and int32 are converted), logical expert per slot."""

    num_logical_experts: int
    """Logical experts per layer, at most num_slots."""

    topology: Topology
    """Ranks and nodes that the slots belong to."""

    def __post_init__(self) -> None:
        _check_dimensions(self.phy2log, self.num_logical_experts, self.topology)
        phy2log = self.phy2log.detach().to(torch.int64, copy=True)
        object.__setattr__(self, "phy2log", phy2log.contiguous())
        _check_ids(self.phy2log, self.num_logical_experts)
        _check_every_expert_placed(self.logcnt())

    @classmethod
    def initial(cls, num_layers: int, num_logical_experts: int, topology: Topology) -> Placement:
        """Return the placement that needs no load: slot p holds expert p mod num_logical_experts.

        Raises:
            InvalidPlacementError: There are fewer slots than logical experts.
        """
        if not 1 <= num_logical_experts <= topology.num_slots:
            raise InvalidPlacementError(
                "num_logical_experts",
                "Expected a slot for every logical expert, "
                f"got {num_logical_experts} experts and {topology.num_slots} slots.",
            )
        experts = torch.arange(topology.num_slots) % num_logical_experts
        return cls(experts.expand(num_layers, -1), num_logical_experts, topology)

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return self.phy2log.shape[0]

    def logcnt(self) -> Tensor:
        """Return how many replicas each logical expert has.

        Returns:
            [num_layers, num_logical_experts] int64, at least 1.
        """
        counts = self.phy2log.new_zeros(self.num_layers, self.num_logical_experts)
        return counts.scatter_add_(1, self.phy2log, torch.ones_like(self.phy2log))

    def log2phy(self) -> Tensor:
        """Return the slots of each logical expert, ascending, padded with -1.

        As wide as the most replicated expert needs: at worst num_slots numbers per expert.

        Returns:
            [num_layers, num_logical_experts, largest logcnt] int64.
        """
        logcnt = self.logcnt()
        width = int(logcnt.max())
        # A stable sort by expert lists each expert's slots in ascending order, one run per expert.
        experts, slots = self.phy2log.sort(dim=1, stable=True)
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

        Over ranks, the size of the multiset of new experts minus the multiset of old ones; a
        change of slot inside a rank is free.

        Args:
            old: A placement of the same layers and experts on the same topology.

        Returns:
            [num_layers] int64.

        Raises:
            InvalidPlacementError: The two placements differ in layers, experts or topology.
        """
        check_comparable(self, old, field="old")
        new_copies = self._numbered_residents()
        old_copies = old._numbered_residents().to(new_copies.device)
        # Each list is free of repetitions, so equal neighbours in the merged list are common.
        merged = torch.cat([new_copies, old_copies], dim=1).sort(dim=1).values
        num_kept = (merged[:, 1:] == merged[:, :-1]).sum(dim=1)
        return self.topology.num_slots - num_kept

    def digest(self) -> str:
        """Return the sha256 of the map in lowercase hex, see `digest_phy2log`."""
        return digest_phy2log(self.phy2log)

    def _residents(self) -> Tensor:
        # [num_layers, num_slots], one number per (rank, expert) pair of each slot, ascending.
        rank = (
            torch.arange(self.topology.num_slots, device=self.phy2log.device)
            // self.topology.slots_per_rank
        )
        return (rank * self.num_logical_experts + self.phy2log).sort(dim=1).values

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


def _check_ids(phy2log: Tensor, num_logical_experts: int) -> None:
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
