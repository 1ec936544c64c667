"""The machine that a plan is made for: nodes, ranks and slots."""

from __future__ import annotations

from dataclasses import dataclass

from expertplane_planner.errors import InvalidTopologyError


MAX_RANKS = 4096
MAX_SLOTS = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Equal ranks on equal nodes, with equally many slots in every layer.

    Numbering is contiguous: slot p lies on rank `p // slots_per_rank`, rank r on node
    `r // ranks_per_node`.

    Raises:
        InvalidTopologyError: A count is not positive, passes its bound (4096 ranks, 65536 slots)
            or does not divide evenly.
    """

    num_nodes: int
    """Domains of fast links; divides num_ranks."""

    num_ranks: int
    """Expert-parallel ranks; divides num_slots."""

    num_slots: int
    """Slots per layer over all ranks, redundant ones included."""

    def __post_init__(self) -> None:
        _check_positive("num_nodes", self.num_nodes)
        _check_positive("num_ranks", self.num_ranks)
        _check_positive("num_slots", self.num_slots)
        _check_bound("num_ranks", self.num_ranks, MAX_RANKS)
        _check_bound("num_slots", self.num_slots, MAX_SLOTS)
        _check_multiple("num_ranks", self.num_ranks, "num_nodes", self.num_nodes)
        _check_multiple("num_slots", self.num_slots, "num_ranks", self.num_ranks)

    @property
    def slots_per_rank(self) -> int:
        """Slots of one rank in one layer."""
        return self.num_slots // self.num_ranks

    @property
    def ranks_per_node(self) -> int:
        """Ranks of one node."""
        return self.num_ranks // self.num_nodes

    @property
    def slots_per_node(self) -> int:
        """Slots of one node in one layer."""
        return self.num_slots // self.num_nodes


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InvalidTopologyError(
            f"topology.{name}", f"Expected {name} to be positive, got {value}."
        )


def _check_bound(name: str, value: int, bound: int) -> None:
    if value > bound:
        raise InvalidTopologyError(
            f"topology.{name}", f"Expected {name} of at most {bound}, got {value}."
        )


def _check_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value % divisor:
        raise InvalidTopologyError(
            f"topology.{name}",
            f"Expected {name} to be a multiple of {divisor_name}, got {value} and {divisor}.",
        )
