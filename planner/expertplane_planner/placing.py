"""What a policy is asked for a placement with, and how its answer is checked."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from .errors import InvalidInputError, InvalidPlacementError
from .forecast import Prediction
from .model.homes import foreign_replicas
from .model.masking import expand
from .model.placement import Placement


if TYPE_CHECKING:
    from .model.topology import Topology
    from .policies.base import PlacementRequest, Policy


def with_prediction(request: PlacementRequest) -> PlacementRequest:
    """Return the request with a prediction, made of its own samples if it has none."""
    if request.prediction is not None:
        return request
    return dataclasses.replace(request, prediction=Prediction.of_window(request.load))


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


def check_rules(placement: Placement, policy: Policy, request: PlacementRequest) -> None:
    """Check that a plan keeps the engine's rules.

    Raises:
        InvalidInputError: It does not: the rules ask for what the policy cannot do.
    """
    try:
        request.rules.check(placement)
    except InvalidPlacementError as error:
        raise InvalidInputError(
            "rules",
            f"Expected policy '{policy.name}' in {request.mode} mode to keep the engine's rules, "
            f"got a plan that does not: {error}",
        ) from error


def checked_foreign(placement: Placement, request: PlacementRequest) -> tuple[int, ...] | None:
    """Return the foreign replicas of each layer; None where experts have no home.

    Raises:
        InvalidPlacementError: There are more of them than were allowed.
    """
    if not request.mode.is_by_node:
        return None
    foreign: list[int] = foreign_replicas(placement, request.num_expert_groups).tolist()
    if max(foreign) > request.spill:
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected at most {request.spill} foreign replicas per layer, "
            f"got {max(foreign)} in layer {foreign.index(max(foreign))}.",
        )
    return tuple(foreign)
