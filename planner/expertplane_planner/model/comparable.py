"""What every comparison of two placements needs: that both place the same things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_planner.errors import InvalidPlacementError


if TYPE_CHECKING:
    from .placement import Placement


def check_comparable(placement: Placement, other: Placement, *, field: str) -> None:
    """Check that two placements are of the same layers, experts and topology.

    Args:
        placement: The one.
        other: The other.
        field: What the caller calls the other, for the error.

    Raises:
        InvalidPlacementError: They differ.
    """
    mine = (placement.num_layers, placement.num_logical_experts, placement.topology)
    theirs = (other.num_layers, other.num_logical_experts, other.topology)
    if mine != theirs:
        raise InvalidPlacementError(
            field,
            f"Expected {field} to be a placement of the same layers, experts and topology, "
            f"got {theirs} against {mine}.",
        )
