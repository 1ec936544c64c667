"""Placement planning for Mixture-of-Experts inference: load in, verified plan out.

The names are imported when they are first asked for: torch takes a second, and a command that only
prints its help should not wait for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .balance import balancedness, layer_balancedness, rank_load, report
    from .errors import (
        InvalidInputError,
        InvalidLoadError,
        InvalidPlacementError,
        InvalidTopologyError,
        PlannerError,
        UnknownPolicyError,
    )
    from .forecast import Forecast, ForecastParams, Prediction
    from .model import BalanceReport, ExpertLoad, Mode, Placement, Plan, Topology, digest_phy2log
    from .model.benefit import Basis, BenefitTerms, Necessity, NetBenefit
    from .model.budget import MoveBudget
    from .model.homes import foreign_replicas, home_nodes
    from .model.incumbent import Incumbent
    from .model.rules import EngineRules
    from .model.transfers import LinkClass, LinkSpeed, TransferSchedule
    from .policies import Policy, get_policy, policy_names
    from .solving import SolveTask, solve, solve_many, warm_up


__all__ = [
    "BalanceReport",
    "Basis",
    "BenefitTerms",
    "EngineRules",
    "ExpertLoad",
    "Forecast",
    "ForecastParams",
    "Incumbent",
    "InvalidInputError",
    "InvalidLoadError",
    "InvalidPlacementError",
    "InvalidTopologyError",
    "LinkClass",
    "LinkSpeed",
    "Mode",
    "MoveBudget",
    "Necessity",
    "NetBenefit",
    "Placement",
    "Plan",
    "PlannerError",
    "Policy",
    "Prediction",
    "SolveTask",
    "Topology",
    "TransferSchedule",
    "UnknownPolicyError",
    "balancedness",
    "digest_phy2log",
    "foreign_replicas",
    "get_policy",
    "home_nodes",
    "layer_balancedness",
    "policy_names",
    "rank_load",
    "report",
    "solve",
    "solve_many",
    "warm_up",
]

_MODULES = {
    ".balance": (
        "balancedness",
        "layer_balancedness",
        "rank_load",
        "report",
    ),
    ".errors": (
        "InvalidInputError",
        "InvalidLoadError",
        "InvalidPlacementError",
        "InvalidTopologyError",
        "PlannerError",
        "UnknownPolicyError",
    ),
    ".forecast": ("Forecast", "ForecastParams", "Prediction"),
    ".model": (
        "BalanceReport",
        "ExpertLoad",
        "Mode",
        "Placement",
        "Plan",
        "Topology",
        "digest_phy2log",
    ),
    ".model.benefit": (
        "Basis",
        "BenefitTerms",
        "Necessity",
        "NetBenefit",
    ),
    ".model.budget": ("MoveBudget",),
    ".model.homes": (
        "foreign_replicas",
        "home_nodes",
    ),
    ".model.incumbent": ("Incumbent",),
    ".model.rules": ("EngineRules",),
    ".model.transfers": (
        "LinkClass",
        "LinkSpeed",
        "TransferSchedule",
    ),
    ".policies": (
        "Policy",
        "get_policy",
        "policy_names",
    ),
    ".solving": (
        "SolveTask",
        "solve",
        "solve_many",
        "warm_up",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would take it for a promise that every name exists

    def __getattr__(name: str) -> object:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"Expected a name of {__name__}, got {name!r}.")
        # Kept, so that the next look-up does not come here.
        globals()[name] = value = getattr(importlib.import_module(module, __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
