"""Ask a policy for a placement, and check what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .errors import InvalidPlacementError
from .model.masking import expand
from .model.placement import Placement


if TYPE_CHECKING:
    from .model.topology import Topology
    from .policies.base import PlacementRequest


def checked_placement(phy2log: object, request: PlacementRequest, topology: Topology) -> Placement:
    """Return a policy's answer as a placement.

    Args:
        phy2log: What the policy returned.
        request: What it was asked; without masked ranks.
        topology: The same machine with masked ranks.

    Raises:
        InvalidPlacementError: It is no placement of what was asked for.
    """
    if not isinstance(phy2log, torch.Tensor):
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected the policy to return a tensor, got a {type(phy2log).__name__}.",
        )
    placement = Placement(phy2log, request.load.num_logical_experts, request.topology)
    if placement.num_layers != request.load.num_layers:
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected phy2log of {request.load.num_layers} layers, got {placement.num_layers}.",
        )
    if topology is request.topology:
        return placement
    full = expand(placement.phy2log, topology)
    return Placement(full, placement.num_logical_experts, topology)
