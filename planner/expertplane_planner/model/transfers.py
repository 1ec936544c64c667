"""The copies of weights that lead from one placement to another, and what they cost."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from expertplane_planner.errors import InvalidInputError, InvalidPlacementError

from .comparable import check_same_machine
from .placement import Placement


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .topology import Topology

    Integers: TypeAlias = NDArray[np.int64]


class LinkClass(enum.IntEnum):
    """Which kind of link a transfer crosses, numbered as in the wire contract."""

    SAME_RANK = 1
    """Inside one rank: a copy in device memory."""

    SAME_NODE = 2
    """Between ranks of one node."""

    CROSS_NODE = 3
    """Between nodes."""

    STORAGE = 4
    """From wherever the engine loaded the weights: no active rank holds the expert any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpeed:
    """What one rank sends or receives per second, in either direction at a time.

    A higher `LinkClass` is taken for a slower one where a round has several.

    Raises:
        InvalidInputError: A speed is not positive.
    """

    same_node_bytes_per_s: float = 450e9
    """Between ranks of one node; the default is that of NVLink 4, per direction."""

    cross_node_bytes_per_s: float = 50e9
    """Between nodes; the default is that of a 400 Gbit/s adapter for every rank."""

    storage_bytes_per_s: float = 2e9
    """From storage to one rank; the default is about what a local NVMe drive gives to each of a
    few ranks that share it. A network file system may give a tenth."""

    def __post_init__(self) -> None:
        for name in (
            "same_node_bytes_per_s",
            "cross_node_bytes_per_s",
            "storage_bytes_per_s",
        ):
            if not getattr(self, name) > 0:
                raise InvalidInputError(
                    f"link_speed.{name}",
                    f"Expected {name} to be positive, got {getattr(self, name)}.",
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransferSchedule:
    """Which slot every changed slot is filled from, and when.

    All reads are from the buffers of the old placement, which an engine keeps until the layer is
    switched over; so the order of rounds never matters to what is read. Layers are migrated one
    after the other. In one round of a layer a rank sends at most one expert and receives at most
    one; storage sends to any number at a time. Copies inside a rank use no link: they take no part
    in that and are all in round 0.

    The arrays are checked, copied and made read-only at birth.

    Raises:
        InvalidInputError: Arrays of different lengths, an index out of range, a slot of a masked
            rank, a slot that is filled twice, or a rank that sends or receives twice in a round.
    """

    topology: Topology
    """Ranks and nodes that the slots belong to, with the masked ranks of the new placement."""

    num_layers: int
    """MoE layers of the placements, those without transfers included."""

    layer: Integers
    """[num_transfers] int64, row of phy2log."""

    expert: Integers
    """[num_transfers] int64, logical expert that is copied."""

    source_slot: Integers
    """[num_transfers] int64, slot that holds the expert in the old placement, -1 for storage."""

    target_slot: Integers
    """[num_transfers] int64, slot that holds it in the new placement."""

    round: Integers
    """[num_transfers] int64, when, from 0 in each layer."""

    link_class: Integers = field(init=False)
    """[num_transfers] int64, a `LinkClass`, which follows from the slots."""

    def __post_init__(self) -> None:
        for name in ("layer", "expert", "source_slot", "target_slot", "round"):
            self._set(name, np.array(getattr(self, name), dtype=np.int64))
        _check_range("layer", self.layer, self.num_layers, len(self.layer))
        _check_range("expert", self.expert, self.topology.num_slots, len(self.layer))
        num_slots = self.topology.num_slots
        _check_range("source_slot", self.source_slot, num_slots, len(self.layer), lowest=-1)
        _check_range("target_slot", self.target_slot, num_slots, len(self.layer))
        _check_range("round", self.round, len(self.layer), len(self.layer))
        sender, receiver = self.sender, self.receiver
        _check_active("read from", sender, self.topology)
        _check_active("write to", receiver, self.topology)
        from_storage = self.source_slot < 0
        same_node = sender // self.topology.ranks_per_node == (
            receiver // self.topology.ranks_per_node
        )
        link_class = np.where(same_node, LinkClass.SAME_NODE, LinkClass.CROSS_NODE)
        link_class = np.where(sender == receiver, LinkClass.SAME_RANK, link_class)
        self._set("link_class", np.where(from_storage, LinkClass.STORAGE, link_class))
        _check_once("fill each slot", "slot", self.layer, self.target_slot)
        on_link = self.link_class != LinkClass.SAME_RANK
        turn = self.layer[on_link] * (len(self.layer) + 1) + self.round[on_link]
        sends = ~from_storage[on_link]
        _check_once("send from each rank in a round", "rank", turn[sends], sender[on_link][sends])
        _check_once("bring to each rank in a round", "rank", turn, receiver[on_link])

    def _set(self, name: str, values: Integers) -> None:
        values.setflags(write=False)
        object.__setattr__(self, name, values)

    @property
    def num_transfers(self) -> int:
        """Slots whose content changes, copies inside a rank included."""
        return len(self.layer)

    @property
    def sender(self) -> Integers:
        """[num_transfers] int64, rank that is read from, -1 for storage."""
        return self.source_slot // self.topology.slots_per_rank

    @property
    def receiver(self) -> Integers:
        """[num_transfers] int64, rank that is written to."""
        return self.target_slot // self.topology.slots_per_rank

    def count(self, link_class: LinkClass) -> int:
        """Return how many transfers cross links of a class."""
        return int((self.link_class == link_class).sum())

    def num_rounds(self) -> Integers:
        """Return how many rounds each layer takes on links, [num_layers] int64."""
        on_link = self.link_class != LinkClass.SAME_RANK
        rounds = np.zeros(self.num_layers, dtype=np.int64)
        np.maximum.at(rounds, self.layer[on_link], self.round[on_link] + 1)
        return rounds

    def total_bytes(self, bytes_per_expert: int) -> int:
        """Return the traffic over all links, in bytes; copies inside a rank are left out.

        Args:
            bytes_per_expert: Weights of one expert in one layer, in bytes.
        """
        return (self.num_transfers - self.count(LinkClass.SAME_RANK)) * bytes_per_expert

    def estimated_s(self, bytes_per_expert: int, link_speed: LinkSpeed | None = None) -> float:
        """Return how long the migration takes, in seconds.

        The sum over layers and rounds of the slowest transfer of the round: one expert from
        storage where the round has such a transfer, else one between nodes where it has one of
        those, else one inside a node. Latencies and
        copies inside a rank count as nothing, and transfers of a round do not slow each other.

        Args:
            bytes_per_expert: Weights of one expert in one layer, in bytes.
            link_speed: What the links carry; the defaults of `LinkSpeed` if None.
        """
        speed = link_speed or LinkSpeed()
        on_link = self.link_class != LinkClass.SAME_RANK
        slowest = np.zeros((self.num_layers, int(self.num_rounds().max(initial=0))), np.int64)
        turn = (self.layer[on_link], self.round[on_link])
        np.maximum.at(slowest, turn, self.link_class[on_link])
        num_same_node = int((slowest == LinkClass.SAME_NODE).sum())
        num_cross_node = int((slowest == LinkClass.CROSS_NODE).sum())
        num_storage = int((slowest == LinkClass.STORAGE).sum())
        return bytes_per_expert * (
            num_same_node / speed.same_node_bytes_per_s
            + num_cross_node / speed.cross_node_bytes_per_s
            + num_storage / speed.storage_bytes_per_s
        )

    def apply(self, old: Placement) -> Placement:
        """Return the placement that the transfers lead to from `old`.

        Args:
            old: The placement before, whose masked ranks and capacities may have been others.

        Raises:
            InvalidPlacementError: `old` has other layers, nodes, ranks or slots, a source slot
                does not hold the expert that is to be read from it, an active slot stays empty,
                or an expert is left without a slot.
        """
        if old.num_layers != self.num_layers:
            raise InvalidPlacementError(
                "old",
                f"Expected an old placement of {self.num_layers} layers, got {old.num_layers}.",
            )
        check_same_machine(self.topology, old.topology, field="old")
        before = old.phy2log_on(self.topology).cpu().numpy()
        held = np.where(self.source_slot < 0, self.expert, before[self.layer, self.source_slot])
        if (held != self.expert).any():
            first = int((held != self.expert).argmax())
            raise InvalidPlacementError(
                "old",
                f"Expected expert {self.expert[first]} in the source of transfer {first}, "
                f"got {held[first]} at [{self.layer[first]}, {self.source_slot[first]}].",
            )
        after = before.copy()
        after[self.layer, self.target_slot] = self.expert
        phy2log = torch.from_numpy(after).to(old.phy2log.device)
        return Placement(phy2log, old.num_logical_experts, self.topology)


def _check_active(action: str, ranks: Integers, topology: Topology) -> None:
    is_masked = np.isin(ranks, topology.masked_ranks)
    if is_masked.any():
        raise InvalidInputError(
            "transfers",
            f"Expected transfers to {action} active ranks, got rank {ranks[is_masked][0]}.",
        )


def _check_range(name: str, values: Integers, bound: int, length: int, *, lowest: int = 0) -> None:
    if values.shape != (length,):
        raise InvalidInputError(
            f"transfers.{name}", f"Expected {name} of shape [{length}], got {list(values.shape)}."
        )
    outside = (values < lowest) | (values >= bound)
    if outside.any():
        first = int(outside.argmax())
        raise InvalidInputError(
            f"transfers.{name}",
            f"Expected {name} in [{lowest}, {bound - 1}], got {values[first]} at [{first}].",
        )


def _check_once(action: str, place: str, turn: Integers, values: Integers) -> None:
    order = np.lexsort((values, turn))
    again = (np.diff(turn[order]) == 0) & (np.diff(values[order]) == 0)
    if again.any():
        first = order[1:][again].min()
        raise InvalidInputError(
            "transfers",
            f"Expected transfers to {action} at most once, got {place} {values[first]} twice.",
        )
