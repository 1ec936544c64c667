"""The service's end of the solver process: starts it, feeds it, replaces it when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from expertplane_server.core import limits
from expertplane_server.core.errors import (
    ExhaustedError,
    InvalidArgumentError,
    ServiceError,
    UnavailableError,
)
from expertplane_server.runtime.clock import SystemClock
from expertplane_server.runtime.job_queue import JobQueue
from expertplane_server.runtime.jobs import (
    Answer,
    Failure,
    PolicyJob,
    Rejection,
    SolveJob,
    Taken,
    WarmJob,
)
from expertplane_server.runtime.solver_host import SolverHost


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from expertplane_server.core.plan import Solution
    from expertplane_server.core.spec import DeploymentSpec, PolicyChoice
    from expertplane_server.runtime.clock import Clock
    from expertplane_server.runtime.jobs import ForecastStatus, Job, Ready, Reply, Result
    from expertplane_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_MAX_POLICY_CHECKS = 8
_MAX_PENDING = 2 * limits.MAX_DEPLOYMENTS + limits.MAX_COMPUTES + _MAX_POLICY_CHECKS
"""One job of each deployment and what compiles for it, and as many of each other kind as there may
be at a time."""
_CARE_INTERVAL_S = 5.0


class RefusedJobError(InvalidArgumentError):
    """The planner refuses a job.

    Args:
        message: as of every refusal.
        field: as of every refusal.
        reason: as of every refusal.
        forecast: where the forecast has learned the window all the same.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        reason: str = "",
        forecast: ForecastStatus | None = None,
    ) -> None:
        super().__init__(message, field=field, reason=reason)
        self.forecast = forecast


class SolverProcess:
    """One solver process and a short queue: one job at a time, or several solves on a device.

    A device that fails is no outage: plans are made on the CPU until it can be used again.

    Args:
        device: "auto", "cpu" or "cuda:N".
        solve_timeout_s: a process that is silent for longer is taken for lost, and replaced. What
            is planned for together is one such silence; after trouble with the device solves go
            one by one, and each has as long.
        metrics: where solves are counted.
        clock: tells when to try a device again that has failed.
        batches_on_cpu: plans for several solves together on the CPU as well, where it gains
            nothing, and the first answer waits for the last; for tests.
    """

    def __init__(
        self,
        device: str,
        *,
        solve_timeout_s: float,
        metrics: Metrics,
        clock: Clock | None = None,
        batches_on_cpu: bool = False,
    ) -> None:
        self._host = SolverHost(
            device,
            solve_timeout_s=solve_timeout_s,
            metrics=metrics,
            clock=clock or SystemClock(),
            batches_on_cpu=batches_on_cpu,
        )
        self._num_pending = 0
        self._policy_checks = asyncio.Semaphore(_MAX_POLICY_CHECKS)
        self._queue = JobQueue()
        # Its one thread waits for the process, so that the event loop does not. For every job it
        # takes one turn, in which there may be nothing left to do.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="solver")

    async def start(self) -> Ready:
        """Starts the process and waits until it is warm.

        Raises:
            UnavailableError: it did not come up, or cannot use the device that it is to have.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._host.start)

    async def solve(self, job: SolveJob) -> Solution:
        """Returns a plan for a load that belongs to no deployment; raises as `run` does."""
        result = await self.run(job)
        assert isinstance(result, Answer), f"unexpected result {type(result).__name__}"
        return result.solution

    async def check_policy(self, policy: PolicyChoice, *, has_slow_ranks: bool) -> None:
        """Refuses parameters and ranks that a policy does not take; raises as `run` does."""
        async with self._policy_checks:
            result = await self.run(PolicyJob(policy, has_slow_ranks))
        assert isinstance(result, Taken), f"unexpected result {type(result).__name__}"

    async def warm(self, spec: DeploymentSpec) -> None:
        """Has compiled what plans for a deployment need; whatever goes wrong can wait for them."""
        job = WarmJob(
            topology=spec.topology,
            num_logical_experts=spec.num_logical_experts,
            num_expert_groups=spec.num_expert_groups,
            policy=spec.policy,
            rules=spec.engine_rules,
        )
        with contextlib.suppress(ServiceError):
            await self.run(job)

    async def run(self, job: Job) -> Result:
        """Returns the result of a job, when its turn has come.

        Raises:
            ExhaustedError: too many jobs are waiting.
            RefusedJobError: the job breaks a rule of the planner; an InvalidArgumentError.
            UnavailableError: the process failed or was lost; it is replaced.
        """
        if self._num_pending >= _MAX_PENDING:
            raise ExhaustedError(
                f"Expected at most {_MAX_PENDING} solves in flight.",
                retry_after_s=1.0,
                reason="SOLVER_BUSY",
            )
        self._num_pending += 1
        future = self._queue.put(job)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _call_if_open(loop, self._finish_one))
        self._thread.submit(self._take_turn)
        # A caller who gives up takes a waiting job out of the queue. One that the process has runs
        # to its end, or the pipe would be out of step.
        return unpack(await asyncio.wrap_future(future))

    async def regain_device(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Replaces a process that has left its device, if it is time to try the device again.

        Not while jobs wait, unless they do so without end: the new process takes seconds to come.

        Args:
            prepare: saves what the process remembers.

        Raises:
            UnavailableError: no process came up; the next job tries again.
        """
        if not self._may_try_device():
            return
        await prepare()
        # What was saved were jobs, and others may have come meanwhile.
        if self._may_try_device():
            await asyncio.get_running_loop().run_in_executor(self._thread, self._host.try_device)

    async def stop(self) -> None:
        """Ends the process at once; jobs that wait are dropped."""
        self._queue.cancel_all()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._host.kill()
        await asyncio.to_thread(self._thread.shutdown)
        self._host.end()

    def _finish_one(self) -> None:
        """Makes room for another job; runs on the event loop."""
        self._num_pending -= 1

    def _may_try_device(self) -> bool:
        """Tells whether the process may be replaced for the sake of its device."""
        return self._host.may_try_device(is_idle=not self._num_pending)

    def _take_turn(self) -> None:
        """Has the process do what is next in the queue; runs in the solver thread."""
        if not self._queue:
            return
        failure = None
        try:
            # First, as the device that it comes up on tells how many jobs may go together.
            self._host.ensure()
        except Exception as error:
            failure = error
        jobs = self._queue.take(self._host.max_solves())
        try:
            if failure is not None:
                raise failure
            if jobs:
                self._host.exchange(jobs)
        except Exception as error:
            for each in jobs:
                if not each.future.done():
                    each.future.set_exception(error)


async def care_for_device(solver: SolverProcess, prepare: Callable[[], Awaitable[None]]) -> None:
    """Tries, for ever, to get back a device that has failed; see `SolverProcess.regain_device`."""
    while True:
        await asyncio.sleep(_CARE_INTERVAL_S)
        try:
            await solver.regain_device(prepare)
        except UnavailableError as error:
            logger.error("solver: %s", error.message)


def _call_if_open(loop: asyncio.AbstractEventLoop, function: object) -> None:
    """Calls a function on the event loop, unless the loop has closed meanwhile."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)  # type: ignore[arg-type]


def unpack(reply: Reply) -> Result:
    """Returns the result that a reply is.

    Raises:
        RefusedJobError: it is a refusal.
        UnavailableError: the process failed or was lost.
    """
    match reply:
        case Rejection():
            raise RefusedJobError(reply.message, field=reply.field, forecast=reply.forecast)
        case Failure(message):
            raise UnavailableError(f"Expected an answer, got: {message}.", reason="SOLVER_FAILED")
        case _:
            return reply
