"""Keeps a solver process going: starts it, talks to it, gets along without a device that fails.

All of it blocks, and is called by one thread alone, but for `kill` and the questions.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from expertplane_server.core.errors import UnavailableError
from expertplane_server.runtime.comeback import Comeback
from expertplane_server.runtime.job_queue import MAX_BATCH_SOLVES
from expertplane_server.runtime.jobs import (
    Answer,
    DeviceStatus,
    Failure,
    Lacking,
    SolveJob,
    Told,
    Trouble,
    TroubleReason,
)
from expertplane_server.runtime.solver_child import SolverChild


if TYPE_CHECKING:
    from expertplane_server.runtime.clock import Clock
    from expertplane_server.runtime.job_queue import WaitingJob
    from expertplane_server.runtime.jobs import Job, Ready, Reply
    from expertplane_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0
# Where there is something to fall back on, one after the other.
_DEVICE_START_TIMEOUT_S = 90.0
_CPU_START_TIMEOUT_S = 50.0
LONGEST_START_S = max(_START_TIMEOUT_S, _DEVICE_START_TIMEOUT_S + _CPU_START_TIMEOUT_S)
"""What a startup probe must have patience for."""
_MAX_LOST_ON_DEVICE = 2
"""Processes lost one after another without a plan in between; then it is the device's fault."""
_SOLVES_ALONE = 32
"""Solves that go one by one after a batch was lost: one of them may do it again."""


class SolverHost:
    """A solver process that is replaced when it is lost, and when its device is to be tried again.

    Args:
        device: "auto", "cpu" or "cuda:N".
        solve_timeout_s: a process that is silent for longer is taken for lost.
        metrics: where solves are counted.
        clock: tells when to try a device again that has failed.
        batches_on_cpu: plans for several solves together on the CPU as well.
    """

    def __init__(
        self,
        device: str,
        *,
        solve_timeout_s: float,
        metrics: Metrics,
        clock: Clock,
        batches_on_cpu: bool,
    ) -> None:
        self._device = device
        self._solve_timeout_s = solve_timeout_s
        self._metrics = metrics
        self._batches_on_cpu = batches_on_cpu
        self._comeback = Comeback(clock)
        self._child: SolverChild | None = None
        self._is_stopping = False
        self._is_on_cpu = True
        self._shown = ("", "")
        self._num_lost_on_device = 0
        self._num_alone = 0

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process."""
        return self._child.pid if self._child is not None else None

    def may_try_device(self, *, is_idle: bool) -> bool:
        """Tells whether to replace the process for the sake of a device that it has left.

        Args:
            is_idle: no job waits; one that does is not to wait for a new process as well, unless
                there is always one.
        """
        return self._comeback.is_overdue() or (is_idle and self._comeback.is_due())

    def max_solves(self) -> int:
        """Returns how many solves may go together; none waits for company that is not there.

        On a CPU they would take as long as one after another, and the first wait for the last.
        """
        if self._num_alone or (self._is_on_cpu and not self._batches_on_cpu):
            return 1
        return MAX_BATCH_SOLVES

    def start(self) -> Ready:
        """Starts the first process and returns its first word.

        Raises:
            UnavailableError: it does not come up, or cannot use the one device that it may have.
        """
        return self._spawn(insists=self._device != "auto")

    def ensure(self) -> None:
        """Sees to it that there is a process.

        Raises:
            UnavailableError: there is none to be had.
        """
        if self._child is None:
            self._spawn()

    def _spawn(self, insists: bool = False) -> Ready:
        """Starts a process and returns its first word.

        Args:
            insists: on the device that it is to have; else the CPU does, until the comeback.

        Raises:
            UnavailableError: it does not come up.
        """
        if self._comeback.is_away or self._device == "cpu":
            ready = self._spawn_on("cpu", _START_TIMEOUT_S)
        elif insists:
            ready = self._spawn_on(self._device, _START_TIMEOUT_S, insists=True)
        else:
            try:
                ready = self._spawn_on(self._device, _DEVICE_START_TIMEOUT_S)
            except UnavailableError as error:
                if self._is_stopping:
                    raise
                self._note_trouble(_lost(self._device, error.message))
                ready = self._spawn_on("cpu", _CPU_START_TIMEOUT_S)
        if ready.trouble is not None:
            self._device = ready.trouble.device
            self._note_trouble(ready.trouble)
        elif not self._comeback.is_away:
            self._device = ready.status.device
        self._note_status(ready.status)
        logger.info("solver ready on %s, torch %s", _said_of(ready.status), ready.torch_version)
        return ready

    def _spawn_on(self, device: str, timeout_s: float, *, insists: bool = False) -> Ready:
        """Starts a process on a device and returns its first word.

        Raises:
            UnavailableError: it does not come up, or the service is stopping.
        """
        if self._is_stopping:
            raise UnavailableError("The service is stopping.")
        self._child = SolverChild(device, insists=insists)
        if self._is_stopping:  # said after the question above, and to no process
            self._child.kill()
        try:
            return self._child.wait_until_ready(timeout_s)
        except UnavailableError:
            self._child = None
            raise

    def try_device(self) -> None:
        """Replaces a process that has left its device.

        Raises:
            UnavailableError: no process comes up; `ensure` tries again.
        """
        self.end()
        self._comeback.on_try()
        self._num_lost_on_device = 0
        self._spawn()

    def exchange(self, jobs: list[WaitingJob]) -> None:
        """Sends jobs to the process that there is, and delivers the replies.

        A process that is lost fails what it has not answered.
        """
        assert self._child is not None
        num_solves = sum(isinstance(each.job, SolveJob) for each in jobs)
        if num_solves:
            self._metrics.solver_batch_solves.observe(num_solves)
            self._num_alone = max(0, self._num_alone - num_solves)
        unanswered = deque(jobs)
        start_s = time.perf_counter()
        try:
            for message in self._child.ask([each.job for each in jobs], self._solve_timeout_s):
                if isinstance(message, Trouble):
                    self._note_trouble(message)
                else:
                    self._deliver(unanswered.popleft(), message, time.perf_counter() - start_s)
        except Exception:  # whatever it was, the pipe may be out of step
            self.end()
            raise
        if unanswered:
            self._give_up(unanswered, time.perf_counter() - start_s)

    def _deliver(self, waiting: WaitingJob, told: Told, seconds: float) -> None:
        """Gives a job its reply, and counts it."""
        self._note_status(told.status)
        for phase, phase_s in told.phases:
            self._metrics.solver_phase_seconds.labels(phase).observe(phase_s)
        if isinstance(told.reply, Answer):
            self._num_lost_on_device = 0
        self._count(waiting.job, told.reply, seconds)
        waiting.future.set_result(told.reply)

    def _give_up(self, unanswered: deque[WaitingJob], seconds: float) -> None:
        """Fails what a lost process had, and ends it."""
        self.end()
        self._metrics.solver_restarts.inc()
        logger.error("solver lost; the next solve starts another")
        if len(unanswered) > 1:
            self._num_alone = _SOLVES_ALONE
        if not self._is_on_cpu:
            self._num_lost_on_device += 1
            if self._num_lost_on_device >= _MAX_LOST_ON_DEVICE:
                what = f"the solver process was lost {self._num_lost_on_device} times in a row"
                self._note_trouble(_lost(self._device, what))
        failure = Failure(f"the solver was lost or took over {self._solve_timeout_s:g} s")
        for each in unanswered:
            self._count(each.job, failure, seconds)
            each.future.set_result(failure)

    def _count(self, job: Job, reply: Reply, seconds: float) -> None:
        """Counts a reply to a solve."""
        if isinstance(job, SolveJob) and not isinstance(reply, Lacking):
            self._metrics.solves.labels(type(reply).__name__.lower()).inc()
            self._metrics.solve_seconds.observe(seconds)

    def _note_trouble(self, trouble: Trouble) -> None:
        """Tells of a device that has failed, and when it will be tried again."""
        self._comeback.on_failure()
        self._note_status(DeviceStatus(device="cpu"))
        self._metrics.solver_device_failures.labels(trouble.reason).inc()
        logger.warning(
            "solver: device %s failed (%s), planning on the CPU, next attempt in %g s: %s",
            trouble.device,
            trouble.reason,
            self._comeback.delay_s,
            trouble.error,
        )

    def _note_status(self, status: DeviceStatus) -> None:
        """Shows where the process plans."""
        metrics = self._metrics
        self._is_on_cpu = status.device == "cpu"
        if self._shown != (status.device, status.name):
            self._shown = (status.device, status.name)
            metrics.solver_device.clear()
            metrics.solver_device.labels(*self._shown).set(1)
        metrics.solver_device_used_bytes.set(status.used_bytes)
        metrics.solver_device_total_bytes.set(status.total_bytes)

    def kill(self) -> None:
        """Ends the process at once, for good; frees a thread that waits for it."""
        self._is_stopping = True
        child = self._child  # the solver thread may be about to end it
        if child is not None:
            child.kill()

    def end(self) -> None:
        """Ends the process and closes its pipe."""
        if self._child is not None:
            self._child.end()
            self._child = None


def _lost(device: str, error: str) -> Trouble:
    """Returns the trouble of a process that cannot tell of it."""
    return Trouble(device=device, reason=TroubleReason.LOST, error=error)


def _said_of(status: DeviceStatus) -> str:
    """Returns a device as the log names it."""
    return f"{status.device} ({status.name})" if status.name else status.device
