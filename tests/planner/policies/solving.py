"""How the tests of policies have an instance solved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from expertplane_planner import ExpertLoad, Placement, Plan, solve

from ...support import instances
from .table import ROWS, Row


if TYPE_CHECKING:
    from ...support.instances import Instance


NAMES = sorted(instances.adversarial())

every_row = pytest.mark.parametrize("row", ROWS, ids=str)
every_instance = pytest.mark.parametrize("name", NAMES)


def plan(row: Row, instance: Instance, load: ExpertLoad | None = None, *, seed: int = 1) -> Plan:
    """Return a policy's plan for an instance, or for another load in its place."""
    return solve(
        load or instance.load,
        instance.topology,
        num_expert_groups=instance.num_expert_groups,
        mode=instance.mode,
        policy=row.make(),
        spill=instance.spill,
        seed=seed,
    )


def place(
    row: Row, instance: Instance, load: ExpertLoad | None = None, *, seed: int = 1
) -> Placement:
    """Return the placement of `plan`."""
    return plan(row, instance, load, seed=seed).placement
