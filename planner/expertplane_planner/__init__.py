"""Placement planning for Mixture-of-Experts inference: load in, verified plan out."""

from .balance import balancedness, layer_balancedness, rank_load, report
from .errors import (
    InvalidInputError,
    InvalidLoadError,
    InvalidPlacementError,
    InvalidTopologyError,
    PlannerError,
    UnknownPolicyError,
)
from .model import BalanceReport, ExpertLoad, Mode, Placement, Plan, Topology, digest_phy2log
from .policies import Policy, get_policy, policy_names
from .solve import solve, warm_up


__all__ = [
    "BalanceReport",
    "ExpertLoad",
    "InvalidInputError",
    "InvalidLoadError",
    "InvalidPlacementError",
    "InvalidTopologyError",
    "Mode",
    "Placement",
    "Plan",
    "PlannerError",
    "Policy",
    "Topology",
    "UnknownPolicyError",
    "balancedness",
    "digest_phy2log",
    "get_policy",
    "layer_balancedness",
    "policy_names",
    "rank_load",
    "report",
    "solve",
    "warm_up",
]
