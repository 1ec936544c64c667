"""Named planning algorithms, one module each, behind one interface."""

from .base import PlacementRequest, Policy
from .registry import ENTRY_POINT_GROUP, get_policy, policy_names


__all__ = ["ENTRY_POINT_GROUP", "PlacementRequest", "Policy", "get_policy", "policy_names"]
