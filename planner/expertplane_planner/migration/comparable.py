"""What every migration needs: two placements of the same thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_planner.errors import InvalidPlacementError


if TYPE_CHECKING:
    from expertplane_planner.model.placement import Placement


def check_comparable(placement: Placement, incumbent: Placement) -> None:
    """Check that weights can move from one placement to the other.

    Raises:
        InvalidPlacementError: The two placements differ in layers, experts or topology.
    """
    mine = (placement.num_layers, placement.num_logical_experts, placement.topology)
    theirs = (incumbent.num_layers, incumbent.num_logical_experts, incumbent.topology)
    if mine != theirs:
        raise InvalidPlacementError(
            "incumbent",
            "Expected an incumbent of the same layers, experts and topology, "
            f"got {theirs} against {mine}.",
        )
