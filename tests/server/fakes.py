"""Stand-ins at the service's seams: solver, store, clock."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import torch

from expertplane_planner import InvalidInputError
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.runtime import solver_worker
from expertplane_server.store import MemoryStore, StoreError

from . import builders


if TYPE_CHECKING:
    from expertplane_server.core.events import Instant
    from expertplane_server.core.plan import Plan, PlanDraft, Solution
    from expertplane_server.core.spec import Deployment, DeploymentSpec
    from expertplane_server.runtime.jobs import SolveJob


class InProcessSolver:
    """Solves on the event loop, with the worker's own code.

    Attributes:
        answer: what to answer instead of solving; None to solve.
        may_answer: cleared to hold answers back.
        asked: set once a job has come.
    """

    def __init__(self) -> None:
        self.answer: Solution | Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()

    async def solve(self, job: SolveJob) -> Solution:
        """Return the answer to a job."""
        self.asked.set()
        await self.may_answer.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        try:
            return solver_worker.run(job, torch.device("cpu"))
        except InvalidInputError as error:
            raise InvalidArgumentError(str(error), field=error.field) from error


class FailingStore(MemoryStore):
    """A store whose operations fail while they are named in `failing`.

    Attributes:
        calls: the operations asked for, in order.
        has_failed: set once one has failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failing: set[str] = set()
        self.calls: list[str] = []
        self.has_failed = threading.Event()

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            self.has_failed.set()
            raise StoreError(f"Expected to write, got: {name} fails.")

    def create_deployment(
        self, name: str, spec: DeploymentSpec, *, request_id: str, now_s: float
    ) -> tuple[Deployment, bool]:
        """Create, or fail."""
        self._note("create_deployment")
        return super().create_deployment(name, spec, request_id=request_id, now_s=now_s)

    def publish(self, draft: PlanDraft, *, epoch: int, now_s: float) -> Plan:
        """Publish, or fail."""
        self._note("publish")
        return super().publish(draft, epoch=epoch, now_s=now_s)

    def mark_applied(self, deployment: str, version: int) -> None:
        """Mark, or fail."""
        self._note("mark_applied")
        super().mark_applied(deployment, version)

    def plans(self, deployment: str, *, below: int, limit: int) -> list[Plan]:
        """List, or fail."""
        self._note("plans")
        return super().plans(deployment, below=below, limit=limit)

    def raise_counters(self, deployment: str, *, version: int, epoch: int) -> tuple[int, int]:
        """Raise, or fail."""
        self._note("raise_counters")
        return super().raise_counters(deployment, version=version, epoch=epoch)


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> Instant:
        """Return this moment."""
        return builders.at(self.now_s)
