"""Serving engines for tests against real planners, and a witness of all that they were told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.v1 import deployment_pb2, plan_pb2
from expertplane_client import (
    Backoff,
    Client,
    Participant,
    PlanCache,
    PlanUnacceptableError,
)

from .deployments import NUM_EXPERTS, NUM_LAYERS, NUM_RANKS, NUM_SLOTS, small_spec


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    import numpy.typing as npt

    from expertplane_client import Plan

PATIENCE_S = 60.0
"""How long a test waits for another process before it fails."""
QUICK = Backoff(initial_s=0.05, max_s=0.3)


async def eventually(holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Waits for another process to bring something about; fails when it does not."""
    async with asyncio.timeout(timeout_s):
        # What is waited for happens in another process: there is no event to wait on.
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def coordinated_spec(**rollout: Any) -> deployment_pb2.DeploymentSpec:
    """The small deployment, with plans that all members stage before any may switch."""
    spec = small_spec()
    spec.rollout.MergeFrom(
        deployment_pb2.RolloutParameters(mode="ROLLOUT_MODE_COORDINATED", **rollout)
    )
    return spec


def placement(number: int) -> npt.NDArray[np.int32]:
    """A placement of the small deployment; each number's differs, 0 is the start placement."""
    row = (np.arange(NUM_SLOTS, dtype=np.int32) + number) % NUM_EXPERTS
    return np.tile(row, (NUM_LAYERS, 1))


async def settled(address: str, name: str) -> None:
    """Waits until the committed plan of a deployment is applied by all: another may follow."""
    async with Client(address) as client, asyncio.timeout(PATIENCE_S):
        while True:
            plans = await client.list_plans(name)
            status = (await client.get_deployment(name)).status
            states = {plan.version: plan.state for plan in plans}
            state = states.get(status.committed_version)
            if state == plan_pb2.PLAN_STATE_APPLIED and not status.staging_version:
                return
            await asyncio.sleep(0.02)


class Engine:
    """A serving node with an equal part of the ranks, which switches at once.

    Attributes:
        seen: digests by version, of all that it was asked to stage or to switch to.
        applied: versions that it has switched to.
        unstaged: versions that it has dropped.
        may_stage: staging waits for it.
        is_staging: it was asked to stage something.
        is_unwilling: it refuses to stage anything, for good.
    """

    def __init__(
        self, address: str, name: str, index: int, num_engines: int, folder: Path | None
    ) -> None:
        self.seen: dict[int, set[str]] = {}
        self.applied: list[int] = []
        self.unstaged: list[int] = []
        self.may_stage = asyncio.Event()
        self.may_stage.set()
        self.is_staging = asyncio.Event()
        self.is_unwilling = False
        share = NUM_RANKS // num_engines
        self.participant = Participant(
            address,
            name,
            f"node-{index}",
            range(index * share, (index + 1) * share),
            engine_run_id="run-1",
            apply=self._apply,
            stage=self._stage,
            unstage=self._unstage,
            cache=PlanCache(folder / f"cache-{index}") if folder is not None else None,
            backoff=QUICK,
        )

    async def _stage(self, plan: Plan, deadline_s: float) -> None:
        self.seen.setdefault(plan.version, set()).add(plan.digest)
        self.is_staging.set()
        if self.is_unwilling:
            raise PlanUnacceptableError("This engine cannot hold it.")
        await self.may_stage.wait()

    async def _unstage(self, version: int) -> None:
        self.unstaged.append(version)

    async def _apply(self, plan: Plan) -> int:
        self.seen.setdefault(plan.version, set()).add(plan.digest)
        self.applied.append(plan.version)
        return len(self.applied)


class Engines:
    """All engines of a deployment; they take part for the time of the block.

    Args:
        address: of the planner.
        name: of a deployment that exists.
        folder: where their caches lie; None keeps none.
        num_engines: divides the four ranks.
    """

    def __init__(
        self, address: str, name: str, folder: Path | None = None, *, num_engines: int = 2
    ) -> None:
        self._engines = [
            Engine(address, name, index, num_engines, folder) for index in range(num_engines)
        ]
        self._stack = AsyncExitStack()
        self._address = address
        self._name = name

    async def __aenter__(self) -> Self:
        for engine in self._engines:
            await self._stack.enter_async_context(engine.participant)
        await self.connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        for engine in self._engines:
            engine.may_stage.set()
        await self._stack.aclose()

    def __getitem__(self, index: int) -> Engine:
        return self._engines[index]

    async def connected(self) -> None:
        """Waits until every engine has been welcomed."""
        await eventually(lambda: all(e.participant.is_connected for e in self._engines))

    async def disconnected(self) -> None:
        """Waits until every engine knows that the planner is gone."""
        await eventually(lambda: not any(e.participant.is_connected for e in self._engines))

    async def serve(self, version: int) -> None:
        """Waits until every engine serves with a version."""
        await eventually(
            lambda: all(e.participant.applied_version == version for e in self._engines)
        )

    async def settled(self) -> None:
        """Waits until the planner knows that the committed plan is applied by all."""
        await settled(self._address, self._name)

    async def check_history(self) -> dict[int, str]:
        """Checks what must hold whatever has happened; returns the states of plans by version.

        All that an engine was ever shown is in the store, with the same content; no engine went
        back; all serve with the committed plan.
        """
        async with Client(self._address) as client:
            status = (await client.get_deployment(self._name)).status
            stored = {plan.version: plan for plan in await client.list_plans(self._name)}
        for engine in self._engines:
            for version, digests in engine.seen.items():
                assert digests == {stored[version].digest}, f"version {version}"
            assert engine.applied == sorted(set(engine.applied))
            assert engine.participant.applied_version == status.committed_version
            assert engine.participant.plan is not None
            assert engine.participant.plan.digest == stored[status.committed_version].digest
        assert status.head_version == max(stored)
        return {
            version: plan_pb2.PlanState.Name(plan.state).removeprefix("PLAN_STATE_")
            for version, plan in stored.items()
        }
