"""Policies by name: the built-in ones, and those that other distributions bring along.

Another distribution adds a policy with an entry point in the group `expertplane.policies`: the
entry point's name is the policy's, its object is a callable without arguments, usually the class,
that returns a `Policy`. It is imported when somebody asks for it, not before; a built-in name
cannot be taken over.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING

from expertplane_planner.errors import UnknownPolicyError

from .balanced import BalancedPolicy
from .base import Policy
from .batched_swap import BatchedSwapPolicy
from .deepseek import DeepSeekPolicy
from .hybrid import HybridPolicy
from .multistart import MultistartPolicy
from .parallel_l2 import ParallelL2Policy
from .parameters import with_parameters
from .restarts import RestartsPolicy
from .robust import RobustPolicy


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


ENTRY_POINT_GROUP = "expertplane.policies"

DEFAULT_POLICY = "robust"
"""Who plans unless somebody else is asked for."""

_BUILT_IN: Mapping[str, Callable[[], Policy]] = MappingProxyType(
    {
        "deepseek": DeepSeekPolicy,
        "robust": RobustPolicy,
        "balanced": BalancedPolicy,
        "restarts": RestartsPolicy,
        "multistart": MultistartPolicy,
        "parallel-l2": ParallelL2Policy,
        "hybrid": HybridPolicy,
        "batched-swap": BatchedSwapPolicy,
    }
)


def policy_names() -> tuple[str, ...]:
    """Return the names of all policies, built-in ones first; imports no third-party policy."""
    installed = sorted(entry_points(group=ENTRY_POINT_GROUP).names - _BUILT_IN.keys())
    return (*_BUILT_IN, *installed)


def get_policy(name: str, parameters: Mapping[str, str] | None = None) -> Policy:
    """Return a policy with its default parameters, or some of them changed.

    Args:
        name: One of `policy_names`.
        parameters: Values by parameter, written as in TOML: `{"risk": "1.5"}`. Policies of other
            distributions take them if their class, made without arguments otherwise, has a field
            `params`.

    Raises:
        UnknownPolicyError: No policy has this name, or the installed one cannot be loaded.
        InvalidInputError: The policy has no such parameter, or does not take the value; the field
            is `policy.params.<parameter>`.
    """
    policy = _default(name)
    return with_parameters(policy, parameters) if parameters else policy


def _default(name: str) -> Policy:
    built_in = _BUILT_IN.get(name)
    if built_in is not None:
        return built_in()
    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return _load(entry_point)
    raise UnknownPolicyError(
        "policy", f"Expected policy to be one of {', '.join(policy_names())}, got '{name}'."
    )


def _load(entry_point: EntryPoint) -> Policy:
    try:
        policy = entry_point.load()()
    except Exception as error:  # other people's code: whatever it raises, it is not available
        raise UnknownPolicyError(
            "policy",
            f"Expected policy '{entry_point.name}' to load from {entry_point.value}, "
            f"got {type(error).__name__}: {error}.",
        ) from error
    if not isinstance(policy, Policy):
        raise UnknownPolicyError(
            "policy",
            f"Expected policy '{entry_point.name}' to have name, params and place, "
            f"got a {type(policy).__name__}.",
        )
    if policy.name != entry_point.name:
        raise UnknownPolicyError(
            "policy",
            f"Expected the policy of entry point '{entry_point.name}' to have its name, "
            f"got '{policy.name}'.",
        )
    return policy
