"""Simulated ranks behind a participant."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client import Backoff, Participant, Plan

from . import builders


if TYPE_CHECKING:
    from .scripted_planner import ScriptedPlanner


QUICK = Backoff(initial_s=0.001, max_s=0.01)
COUNTS = np.array([[4, 3, 2], [1, 1, 8]])


class Engine:
    """Switches at steps 100, 101 and so on; keeps what it switched to."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.failures: list[Exception] = []
        self.may_switch = asyncio.Event()
        self.may_switch.set()
        self.is_switching = asyncio.Event()

    async def apply(self, plan: Plan) -> int:
        """Switches the ranks, when the test lets it."""
        self.is_switching.set()
        await self.may_switch.wait()
        if self.failures:
            raise self.failures.pop()
        self.versions.append(plan.version)
        return 99 + len(self.versions)


def participant(planner: ScriptedPlanner, engine: Engine, **changes: Any) -> Participant:
    """Returns a participant that retries at once."""
    arguments: dict[str, Any] = {
        "engine_run_id": "run-1",
        "apply": engine.apply,
        "backoff": QUICK,
        "rng": random.Random(0),
    }
    return Participant(
        planner.address, builders.DEPLOYMENT, "node-0", (0, 1), **(arguments | changes)
    )
