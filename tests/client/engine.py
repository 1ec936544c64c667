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


class StagingEngine(Engine):
    """Keeps what it is told to do, in order; prepares a plan when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []
        self.may_stage = asyncio.Event()
        self.may_stage.set()
        self.is_staging = asyncio.Event()
        self.has_unstaged = asyncio.Event()
        self.deadlines_s: list[float] = []
        self.stage_failures: list[Exception] = []

    async def stage(self, plan: Plan, deadline_s: float) -> None:
        """Fetches the weights of a plan."""
        self.calls.append(("stage", plan.version))
        self.deadlines_s.append(deadline_s)
        self.is_staging.set()
        await self.may_stage.wait()
        if self.stage_failures:
            raise self.stage_failures.pop()

    async def unstage(self, version: int) -> None:
        """Drops them."""
        self.calls.append(("unstage", version))
        self.has_unstaged.set()

    async def apply(self, plan: Plan) -> int:
        """Switches the ranks."""
        self.calls.append(("apply", plan.version))
        return await super().apply(plan)


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
