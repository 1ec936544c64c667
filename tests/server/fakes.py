"""Stand-ins at the service's seams: solver, store, clock."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import torch

from expertplane_server.runtime.jobs import Answer, ForecastStatus, PolicyJob, SolveJob
from expertplane_server.runtime.solver import unpack
from expertplane_server.runtime.solver_worker import Worker
from expertplane_server.store import MemoryStore, StoreError

from . import builders


if TYPE_CHECKING:
    from expertplane_server.core.events import Instant
    from expertplane_server.core.plan import Decision, ParkedPlan, Plan, PlanDraft, Solution
    from expertplane_server.core.recovered import Recovered
    from expertplane_server.core.spec import Deployment, DeploymentSpec, PolicyChoice
    from expertplane_server.runtime.jobs import Job, Result
    from expertplane_server.store.base import Answered


class InProcessSolver:
    """Solves on the event loop, with the worker's own code.

    Attributes:
        worker: what does the jobs; replaced, it has forgotten everything.
        jobs: all that came, in order.
        answer: what to answer instead of solving; None to solve.
        may_answer: cleared to hold answers back.
        asked: set once a job has come.
    """

    def __init__(self) -> None:
        self.worker = Worker(torch.device("cpu"))
        self.jobs: list[Job] = []
        self.answer: Solution | Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()

    async def solve(self, job: SolveJob) -> Solution:
        """Return the plan for a job."""
        result = await self.run(job)
        assert isinstance(result, Answer)
        return result.solution

    async def check_policy(self, policy: PolicyChoice, *, has_slow_ranks: bool) -> None:
        """Refuse parameters or ranks that a policy does not take."""
        await self.run(PolicyJob(policy, has_slow_ranks))

    async def warm(self, spec: DeploymentSpec) -> None:
        """Compile nothing: on the CPU nothing depends on the shape."""

    async def run(self, job: Job) -> Result:
        """Return the result of a job."""
        self.jobs.append(job)
        if isinstance(job, SolveJob):
            self.asked.set()
            await self.may_answer.wait()
            if isinstance(self.answer, Exception):
                raise self.answer
            if self.answer is not None:
                return Answer(self.answer, ForecastStatus(num_windows=1, is_drifting=False))
        return unpack(self.worker.reply(job))


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
        self._fail(name)

    def _fail(self, name: str) -> None:
        if name in self.failing:
            self.has_failed.set()
            raise StoreError(f"Expected to write, got: {name} fails.")

    def create_deployment(
        self, name: str, spec: DeploymentSpec, *, request_id: str, now_s: float
    ) -> tuple[Deployment, bool]:
        """Create, or fail."""
        self._note("create_deployment")
        return super().create_deployment(name, spec, request_id=request_id, now_s=now_s)

    def update_deployment(self, name: str, spec: DeploymentSpec, **told: Any) -> Deployment:
        """Update, or fail."""
        self._note("update_deployment")
        return super().update_deployment(name, spec, **told)

    def set_paused(self, name: str, **told: Any) -> Deployment:
        """Pause, or fail."""
        self._note("set_paused")
        return super().set_paused(name, **told)

    def publish(self, draft: PlanDraft, **told: Any) -> Plan:
        """Publish, or fail."""
        self._note("publish")
        return super().publish(draft, **told)

    def commit(self, deployment: str, version: int, *, epoch: int) -> None:
        """Commit, or fail."""
        self._note("commit")
        super().commit(deployment, version, epoch=epoch)

    def abort(self, deployment: str, version: int, **told: Any) -> None:
        """Abort, or fail."""
        self._note("abort")
        super().abort(deployment, version, **told)

    def mark_applied(self, deployment: str, version: int, *, epoch: int) -> None:
        """Mark, or fail."""
        self._note("mark_applied")
        super().mark_applied(deployment, version, epoch=epoch)

    def record(self, deployment: str, decision: Decision, **told: Any) -> None:
        """Record, or fail; not among the calls."""
        self._fail("record")
        super().record(deployment, decision, **told)

    def park(self, deployment: str, parked: ParkedPlan, *, epoch: int) -> None:
        """Park, or fail."""
        self._note("park")
        super().park(deployment, parked, epoch=epoch)

    def supersede(self, deployment: str, incarnation: str, *, epoch: int) -> None:
        """Supersede, or fail; not among the calls."""
        self._fail("supersede")
        super().supersede(deployment, incarnation, epoch=epoch)

    def recover(self, deployment: str, *, num_plans: int) -> Recovered:
        """Recover, or fail."""
        self._note("recover")
        return super().recover(deployment, num_plans=num_plans)

    def answered(self, request_id: str) -> Answered | None:
        """Return what a request id was used for, or fail; not among the calls."""
        self._fail("answered")
        return super().answered(request_id)

    def plans(
        self, deployment: str, *, below: int, limit: int, has_transfers: bool = True
    ) -> list[Plan]:
        """List, or fail."""
        self._note("plans")
        return super().plans(deployment, below=below, limit=limit, has_transfers=has_transfers)

    def save_forecast(
        self, deployment: str, generation: int, checkpoint: bytes, *, now_s: float
    ) -> None:
        """Save, or fail; not among the calls."""
        self._fail("save_forecast")
        super().save_forecast(deployment, generation, checkpoint, now_s=now_s)

    def forecast(self, deployment: str, generation: int) -> bytes | None:
        """Return what was saved, or fail; not among the calls."""
        self._fail("forecast")
        return super().forecast(deployment, generation)

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
