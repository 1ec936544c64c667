"""What every comparison of two placements needs: that both place the same things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_planner.errors import InvalidPlacementError


if TYPE_CHECKING:
    from .placement import Placement
    from .topology import Topology


def check_comparable(placement: Placement, other: Placement, *, field: str) -> None:
    """Check that two placements are of the same layers, experts, nodes, ranks and slots.

    Masked ranks and capacities may differ: ranks are lost and found again from one placement to
    the next.

    Args:
        placement: The one.
        other: The other.
        field: What the caller calls the other, for the error.

    Raises:
        InvalidPlacementError: They differ.
    """
    mine, theirs = _size(placement), _size(other)
    if mine != theirs:
        raise InvalidPlacementError(
            field,
            f"Expected {field} to be a placement of the same layers, experts, nodes, ranks and "
            f"slots, got {theirs} against {mine}.",
        )


def check_same_machine(topology: Topology, other: Topology, *, field: str) -> None:
    """Check that two topologies have as many nodes, ranks and slots, whatever is masked.

    Args:
        topology: The one.
        other: The other.
        field: What the caller calls the other, for the error.

    Raises:
        InvalidPlacementError: They differ.
    """
    mine, theirs = _extent(topology), _extent(other)
    if mine != theirs:
        raise InvalidPlacementError(field, f"Expected {field} to have {mine}, got {theirs}.")


def _size(placement: Placement) -> str:
    return (
        f"{placement.num_layers} layers of {placement.num_logical_experts} experts on "
        f"{_extent(placement.topology)}"
    )


def _extent(topology: Topology) -> str:
    return f"{topology.num_nodes} nodes, {topology.num_ranks} ranks and {topology.num_slots} slots"
