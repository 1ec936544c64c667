"""All that a group remembers, as a value to compare: what is refused must leave no trace in it."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core.plan import Decision, Plan
from expertplane_server.core.spec import Deployment, DeploymentSpec


if TYPE_CHECKING:
    from expertplane_server.core.group import Group


SIGNS_OF_LIFE = {"last_seen_s", "_ticked_at_s", "_heartbeat_at_s"}
"""What changes with every word, whatever it says."""
_PLAIN = (type(None), bool, int, float, str, bytes, enum.Enum, Decision, Deployment)


def observe(group: Group) -> Any:
    """Return everything about a group that an event may change, but for signs of life."""
    return _frozen(group, set())


def _frozen(thing: Any, seen: set[int]) -> Any:
    if isinstance(thing, (*_PLAIN, DeploymentSpec)) or callable(thing):
        return thing if not callable(thing) else None
    if isinstance(thing, np.ndarray):
        return thing.shape, thing.tobytes()
    if isinstance(thing, Plan):
        return thing.version, thing.state, thing.digest
    if isinstance(thing, Mapping):
        return [(key, _frozen(value, seen)) for key, value in thing.items()]
    if isinstance(thing, Set):
        return sorted(thing)
    if isinstance(thing, tuple | list | deque):
        return [_frozen(each, seen) for each in thing]
    if id(thing) in seen:
        return None  # shown where it was met first
    seen.add(id(thing))
    slots = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
    names = [*getattr(thing, "__dict__", ()), *slots]
    return {
        name: _frozen(getattr(thing, name), seen)
        for name in names
        if name not in SIGNS_OF_LIFE and name not in ("_handlers", "_recovered")
    }
