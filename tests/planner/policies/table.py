"""One row per policy; the invariants and the device tests go through all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from expertplane_planner.policies.deepseek import DeepSeekPolicy


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane_planner.policies import Policy


@dataclass(frozen=True)
class Row:
    """A policy as the tests drive it."""

    name: str
    make: Callable[[], Policy]

    def __str__(self) -> str:
        return self.name


ROWS = (Row("deepseek", DeepSeekPolicy),)
