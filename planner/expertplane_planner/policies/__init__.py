"""Named planning algorithms, one module each, behind one interface."""

from .base import (
    Departure,
    Improvement,
    ImprovingPolicy,
    JointlyImprovingPolicy,
    PlacementRequest,
    Policy,
)
from .registry import DEFAULT_POLICY, ENTRY_POINT_GROUP, get_policy, policy_names


__all__ = [
    "DEFAULT_POLICY",
    "ENTRY_POINT_GROUP",
    "Departure",
    "Improvement",
    "ImprovingPolicy",
    "JointlyImprovingPolicy",
    "PlacementRequest",
    "Policy",
    "get_policy",
    "policy_names",
]
