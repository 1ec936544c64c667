"""The service's end of the solver process: starts it, feeds it, replaces it when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from expertplane_server.core import limits
from expertplane_server.core.errors import (
    ExhaustedError,
    InvalidArgumentError,
    UnavailableError,
)
from expertplane_server.runtime import solver_entry
from expertplane_server.runtime.jobs import (
    Answer,
    Failure,
    Lacking,
    PolicyJob,
    Ready,
    Rejection,
    SolveJob,
    Taken,
)


if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from expertplane_server.core.plan import Solution
    from expertplane_server.core.spec import PolicyChoice
    from expertplane_server.runtime.jobs import ForecastStatus, Job, Reply, Result
    from expertplane_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0
_MAX_POLICY_CHECKS = 8
_MAX_PENDING = limits.MAX_DEPLOYMENTS + limits.MAX_COMPUTES + _MAX_POLICY_CHECKS
"""One job of each deployment, and as many of each other kind as there may be at a time."""


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
    """One solver process, one job at a time, a short queue.

    Args:
        device: "auto", "cpu" or "cuda:N".
        solve_timeout_s: a solve that takes longer is taken for lost, and the process replaced.
        metrics: where solves are counted.
    """

    def __init__(self, device: str, *, solve_timeout_s: float, metrics: Metrics) -> None:
        self._device = device
        self._solve_timeout_s = solve_timeout_s
        self._metrics = metrics
        self._num_pending = 0
        self._policy_checks = asyncio.Semaphore(_MAX_POLICY_CHECKS)
        self._is_stopping = False
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        # Its one thread waits for the process, so that the event loop does not; its queue is the
        # queue of jobs.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="solver")

    async def start(self) -> Ready:
        """Starts the process and waits until it is warm.

        Raises:
            UnavailableError: it did not come up, or cannot use its device.
        """
        loop = asyncio.get_running_loop()
        ready = await loop.run_in_executor(self._thread, self._spawn)
        self._metrics.solver_device.labels(ready.device).set(1)
        return ready

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
        future = self._thread.submit(self._exchange, job)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _call_if_open(loop, self._finish_one))
        # A caller who gives up takes a waiting job out of the queue. One that the process has runs
        # to its end, or the pipe would be out of step.
        return unpack(await asyncio.wrap_future(future))

    async def stop(self) -> None:
        """Ends the process at once; jobs that wait are dropped."""
        self._is_stopping = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        # Frees the thread when it waits for the process.
        if self._process is not None:
            _kill(self._process)
        await asyncio.to_thread(self._thread.shutdown)
        self._end()

    def _finish_one(self) -> None:
        """Makes room for another job; runs on the event loop."""
        self._num_pending -= 1

    # In the solver thread.

    def _spawn(self) -> Ready:
        """Starts a process and returns its first word."""
        # Never fork: grpc's threads would not survive it.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=solver_entry.main, args=(theirs, self._device), name="solver", daemon=True
        )
        try:
            process.start()
        except OSError as error:
            ours.close()
            raise _unavailable(self._device, f"it could not be started: {error}") from error
        finally:
            theirs.close()
        self._process, self._connection = process, ours
        reply = self._receive(_START_TIMEOUT_S)
        if not isinstance(reply, Ready):
            self._end()
            message = reply.message if isinstance(reply, Failure) else "it did not come up"
            raise _unavailable(self._device, message)
        logger.info("solver ready on %s, torch %s", reply.device, reply.torch_version)
        return reply

    def _exchange(self, job: Job) -> Reply:
        """Sends a job and returns the reply; a lost process is a failure, and is replaced."""
        if self._is_stopping:
            return Failure("the service is stopping")
        if self._process is None:
            self._spawn()
        start_s = time.perf_counter()
        reply = self._ask(job)
        if reply is None:
            self._end()
            reply = Failure(f"the solver was lost or took over {self._solve_timeout_s:g} s")
            self._metrics.solver_restarts.inc()
            logger.error("solver lost; the next solve starts another")
        if isinstance(job, SolveJob) and not isinstance(reply, Lacking):
            self._metrics.solves.labels(type(reply).__name__.lower()).inc()
            self._metrics.solve_seconds.observe(time.perf_counter() - start_s)
        return reply

    def _ask(self, job: Job) -> Reply | None:
        """Sends a job and returns the reply, or None when the process is dead, stuck or late."""
        assert self._connection is not None
        assert self._process is not None
        # A process that does not read lets even the sending hang; its end lets go of both.
        watchdog = threading.Timer(self._solve_timeout_s, _kill, (self._process,))
        watchdog.start()
        try:
            self._connection.send(job)
            return self._receive(self._solve_timeout_s)
        except OSError:
            return None
        finally:
            watchdog.cancel()

    def _receive(self, timeout_s: float) -> Reply | None:
        """Returns the next reply, or None when the process is dead or late."""
        assert self._connection is not None
        try:
            if not self._connection.poll(timeout_s):
                return None
            reply: Reply = self._connection.recv()
        except (EOFError, OSError):
            return None
        return reply

    def _end(self) -> None:
        """Ends the process and closes its pipe."""
        if self._process is None or self._connection is None:
            return
        self._connection.close()
        _kill(self._process)
        self._process.join()
        self._process.close()
        self._process = self._connection = None


def _unavailable(device: str, message: str) -> UnavailableError:
    """Returns the refusal of a service that has no solver."""
    return UnavailableError(
        f"Expected a solver process on device {device}, got: {message}",
        reason="SOLVER_UNAVAILABLE",
    )


def _kill(process: SpawnProcess) -> None:
    """Kills a process, which keeps nothing that is worth a goodbye; no-op when it is gone."""
    with contextlib.suppress(ValueError):  # closed by the solver thread meanwhile
        process.kill()


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
        case Ready():
            raise AssertionError("the solver process spoke out of turn")
        case _:
            return reply
