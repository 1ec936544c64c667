"""The jobs that wait for the solver process, and which of them go to it together."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from expertplane_server.core.limits import MAX_WINDOW_ENTRIES
from expertplane_server.runtime.jobs import (
    CheckpointJob,
    ExpectJob,
    LearnJob,
    SolveJob,
)


if TYPE_CHECKING:
    from expertplane_server.runtime.jobs import ForecastRef, Job, Reply

MAX_BATCH_SOLVES = 32
_MAX_BATCH_BYTES = 8 * MAX_WINDOW_ENTRIES
"""As much as the largest window alone."""


@dataclass(frozen=True, slots=True, eq=False)
class WaitingJob:
    """A job, and where its reply goes."""

    job: Job
    future: Future[Reply] = field(default_factory=Future)


class JobQueue:
    """Jobs in the order in which they came. May be used by several threads.

    A solve may be taken together with solves that came after it. They then overtake the jobs in
    between, but none of their own deployment. Nobody waits for ever: the first always goes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[WaitingJob] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, job: Job) -> Future[Reply]:
        """Queues a job; who cancels the future before the job is taken takes it out."""
        waiting = WaitingJob(job)
        with self._lock:
            self._waiting.append(waiting)
        waiting.future.add_done_callback(lambda _: self._drop(waiting))
        return waiting.future

    def take(self, max_solves: int) -> list[WaitingJob]:
        """Returns what is to be done next: one job, or several solves; empty when none waits.

        Their futures can be cancelled no more.

        Args:
            max_solves: how many solves to take at once.
        """
        with self._lock:
            while self._waiting:
                # One that is cancelled at this moment leaves the rest to be taken.
                taken = [each for each in self._pop(max_solves) if _start(each)]
                if taken:
                    return taken
        return []

    def cancel_all(self) -> None:
        """Cancels every job that waits."""
        with self._lock:
            waiting = list(self._waiting)
        for each in waiting:  # outside of the lock, which their callbacks take
            each.future.cancel()

    def _pop(self, max_solves: int) -> list[WaitingJob]:
        """Takes out the first job and, if it is a solve, others that may go with it."""
        first = self._waiting.popleft()
        taken = [first]
        if not isinstance(first.job, SolveJob):
            return taken
        num_bytes = _num_bytes(first.job)
        passed: set[str] = set()
        for each in list(self._waiting):
            if len(taken) >= max_solves:
                break
            ref = _forecast_of(each.job)
            if not isinstance(each.job, SolveJob) or (ref and ref.deployment in passed):
                passed |= {ref.deployment} if ref else set()
                continue
            num_bytes += _num_bytes(each.job)
            if num_bytes > _MAX_BATCH_BYTES:
                break
            taken.append(each)
            self._waiting.remove(each)
        return taken

    def _drop(self, waiting: WaitingJob) -> None:
        """Takes out a job that was cancelled; one that was taken is out already."""
        if not waiting.future.cancelled():
            return
        with self._lock:
            if waiting in self._waiting:
                self._waiting.remove(waiting)


def _start(waiting: WaitingJob) -> bool:
    """Tells whether a job is still wanted; it is then to be done."""
    return waiting.future.set_running_or_notify_cancel()


def _forecast_of(job: Job) -> ForecastRef | None:
    """Returns the forecast that a job is about, if it is about one."""
    if isinstance(job, SolveJob | LearnJob | ExpectJob | CheckpointJob):
        return job.forecast
    return None


def _num_bytes(job: SolveJob) -> int:
    """Returns what a solve takes on its way to the process, give or take."""
    num_bytes = job.samples.nbytes
    if job.incumbent is not None:
        num_bytes += job.incumbent.nbytes
    start = job.forecast.start if job.forecast is not None else None
    if start is not None and start.checkpoint is not None:
        num_bytes += len(start.checkpoint)
    return num_bytes
