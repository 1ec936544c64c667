"""The solver process: it owns the device, does the jobs that it is sent, and dies with its parent.

It alone imports torch, so that neither a long solve nor a broken device can hold up the service.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from expertplane_planner import (
    InvalidInputError,
    get_policy,
    policy_names,
    solve_many,
)
from expertplane_server.core.errors import ServiceError
from expertplane_server.core.limits import MAX_FORECAST_BYTES
from expertplane_server.runtime import evidence, planning, solutions
from expertplane_server.runtime.device_faults import DeviceFaults
from expertplane_server.runtime.device_trouble import (
    is_device_trouble,
    reason_of,
    trouble_of,
)
from expertplane_server.runtime.forecast_shelf import ForecastShelf
from expertplane_server.runtime.jobs import (
    Answer,
    Checkpoint,
    CheckpointJob,
    ExpectJob,
    Failure,
    ForecastStatus,
    Job,
    Lacking,
    Learned,
    LearnJob,
    PolicyJob,
    Ready,
    Rejection,
    Reply,
    Result,
    ScheduleJob,
    SolveJob,
    Taken,
    Told,
    Trouble,
    TroubleReason,
    WarmJob,
)
from expertplane_server.runtime.solver_device import CPU, let_go_of, open_device, status_of


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

    from expertplane_planner import Forecast, Plan
    from expertplane_server.runtime.planning import Prepared, SolveMany


_WIRE_FIELDS = {
    "policy.params": "policy.parameters",
    "rules": "engine",
    "incumbent": "incumbent_phy2log",
}


def main(connection: Connection, device: str, num_threads: int, *, insists: bool) -> None:
    """Serves jobs until the other end of the connection is gone.

    Args:
        connection: tuples of jobs in, messages out.
        device: "auto", "cpu" or "cuda:N".
        num_threads: CPU threads to plan with.
        insists: "cuda:N" is to be had, or the process ends; else the CPU does.
    """
    # A solve has time; the event loop of the service has none.
    os.nice(10)
    torch.set_num_threads(num_threads)
    try:
        faults = DeviceFaults.from_environment(os.environ)
        torch_device, trouble = open_device(device, insists=insists, faults=faults)
    except ServiceError as error:
        connection.send(Failure(error.message))
        return
    connection.send(
        Ready(
            status=status_of(torch_device),
            torch_version=torch.__version__,
            policies=tuple(policy_names()),
            trouble=trouble,
        )
    )
    worker = Worker(torch_device, plan=faults.around(solve_many))
    while True:
        try:
            jobs = connection.recv()
        except (EOFError, OSError):
            return
        for message in worker.tell(jobs):
            connection.send(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnderWay:
    """A solve that lacks its plan.

    Attributes:
        prepared: what to plan for.
        forecast: after it has learned the window; None without one.
    """

    prepared: Prepared
    forecast: ForecastStatus | None


class Worker:
    """Does jobs, several solves at a time, and remembers forecasts between them.

    A device that fails is left for the CPU at once, and the jobs at hand are done there. What was
    remembered on it is forgotten, for an update may have been half done.

    Args:
        device: where to plan.
        max_forecast_bytes: bound of what is remembered.
        plan: the library's planning, or what stands for it.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        max_forecast_bytes: int = MAX_FORECAST_BYTES,
        plan: SolveMany = solve_many,
    ) -> None:
        self._device = device
        self._max_forecast_bytes = max_forecast_bytes
        self._solve_many = plan
        self._shelf = ForecastShelf(device, max_bytes=max_forecast_bytes)

    def reply(self, job: Job) -> Reply:
        """Returns the reply to one job; nothing that a job does ends the process."""
        return next(each.reply for each in self.tell((job,)) if isinstance(each, Told))

    def tell(self, jobs: Sequence[Job]) -> Iterator[Told | Trouble]:
        """Yields the reply to each job, in their order, the plans being made together.

        Should the device fail, that is told first, and the rest is done one by one.
        """
        num_told = 0
        try:
            for told in self._do(jobs):
                num_told += 1
                yield told
        except Exception as error:
            if not self._is_trouble(error):
                raise
            trouble = trouble_of(error, self._device)
        else:
            return
        # The error has gone, and with it the last hold on what it was about.
        self._leave_device()
        yield trouble
        for job in jobs[num_told:]:
            yield from self._do((job,))

    def _do(self, jobs: Sequence[Job]) -> Iterator[Told]:
        """Yields the replies; only trouble with the device comes through."""
        begun = [self._begin(job) for job in jobs]
        start_s = time.perf_counter()
        plans = self._plan([each.prepared for each in begun if isinstance(each, _UnderWay)])
        plan_s = time.perf_counter() - start_s
        for each in begun:
            if isinstance(each, _UnderWay):
                yield self._finish(each, next(plans), plan_s)
            else:
                yield self._told(each)

    def _begin(self, job: Job) -> _UnderWay | Reply:
        """Returns the reply to a job, or a solve that lacks its plan."""
        try:
            match job:
                case SolveJob(forecast=None):
                    return _UnderWay(prepared=planning.prepare(job, None), forecast=None)
                case SolveJob() | LearnJob() | ExpectJob():
                    return self._begin_with_forecast(job)
                case CheckpointJob(ref):
                    forecast = self._shelf.find(ref)
                    return Lacking() if forecast is None else Checkpoint(forecast.to_bytes())
                case ScheduleJob():
                    return solutions.schedule(job)
                case PolicyJob():
                    _check_policy(job)
                    return Taken()
                case WarmJob():
                    if self._device != CPU:
                        planning.warm(job, self._solve_many, self._device)
                    return Taken()
        except Exception as error:
            return self._excuse(error)

    def _begin_with_forecast(
        self, job: SolveJob | LearnJob | ExpectJob
    ) -> _UnderWay | Result | Rejection:
        """Does what a job needs the forecast of a deployment for."""
        ref, refusal = job.forecast, ""
        assert ref is not None
        if ref.start is None:
            forecast = self._shelf.find(ref)
            if forecast is None:
                return Lacking()
        else:
            forecast, refusal = self._shelf.begin(ref, *_dimensions(job))
        match job:
            case LearnJob():
                evidence.learn(forecast, job.samples)
                return Learned(_status(forecast, refusal))
            case ExpectJob():
                if not forecast.num_windows:
                    return Lacking()
                return evidence.expect(forecast, _status(forecast, refusal))
            case SolveJob():
                return _prepare(job, forecast, refusal)

    def _plan(self, prepared: Sequence[Prepared]) -> Iterator[Plan | Exception]:
        """Returns the plans in order, or why there is none."""
        if not prepared:
            return iter(())
        tasks = [each.task for each in prepared]
        try:
            return iter(self._solve_many(tasks, device=self._device))
        except Exception as error:
            is_too_much = len(prepared) > 1 and reason_of(error) is TroubleReason.OUT_OF_MEMORY
            if self._is_trouble(error) and not is_too_much:
                raise
            if len(prepared) == 1:
                return iter((error,))
        # One of them is the cause, and the others are not to suffer; or there is room for each,
        # now that the error and what it held on to have gone.
        let_go_of(self._device)
        return iter([next(self._plan((each,))) for each in prepared])

    def _finish(self, solve: _UnderWay, plan: Plan | Exception, plan_s: float) -> Told:
        """Returns the reply to a solve that has its plan."""
        learned = solve.forecast if solve.prepared.job.teaches else None
        if isinstance(plan, Exception):
            return self._told(self._excuse(plan, learned))
        try:
            solution, phases = planning.finish(solve.prepared, plan, plan_s=plan_s)
        except Exception as error:
            return self._told(self._excuse(error, learned))
        if solve.forecast is not None:
            solution = replace(solution, is_drifting=solve.forecast.is_drifting)
        return replace(self._told(Answer(solution, solve.forecast)), phases=phases)

    def _told(self, reply: Reply) -> Told:
        """Returns a reply with how the device is doing."""
        return Told(reply=reply, status=status_of(self._device))

    def _excuse(self, error: Exception, forecast: ForecastStatus | None = None) -> Reply:
        """Returns the reply to a job that failed.

        Raises:
            Exception: the same one, if it is the device that failed.
        """
        if self._is_trouble(error):
            raise error
        if isinstance(error, InvalidInputError):
            return _rejection(error, forecast)
        return Failure(f"{type(error).__name__}: {error}")

    def _is_trouble(self, error: Exception) -> bool:
        """Tells whether an error is one of a device that can be left."""
        return self._device != CPU and is_device_trouble(error)

    def _leave_device(self) -> None:
        """Plans on the CPU from now on, and remembers nothing."""
        failed, self._device = self._device, CPU
        self._shelf = ForecastShelf(CPU, max_bytes=self._max_forecast_bytes)
        let_go_of(failed)


def _prepare(job: SolveJob, forecast: Forecast, refusal: str) -> _UnderWay | Rejection:
    """Has a forecast learn a window, and gathers what the plan for it needs.

    Raises:
        InvalidInputError: the window breaks a rule of the planner.
    """
    num_known = forecast.num_windows
    try:
        prepared = planning.prepare(job, forecast)
    except InvalidInputError as error:
        if forecast.num_windows == num_known:
            raise
        # Learned all the same, and worth a checkpoint: all windows of a deployment may end so.
        return _rejection(error, _status(forecast, refusal))
    return _UnderWay(prepared=prepared, forecast=_status(forecast, refusal))


def _dimensions(job: SolveJob | LearnJob | ExpectJob) -> tuple[int, int]:
    """Returns the layers and experts that a job is about."""
    if isinstance(job, ExpectJob):
        return job.num_layers, job.num_logical_experts
    _, num_layers, num_experts = job.samples.shape
    return num_layers, num_experts


def _rejection(error: InvalidInputError, forecast: ForecastStatus | None = None) -> Rejection:
    """Returns the reply to a job that breaks a rule of the planner."""
    return Rejection(field=wire_field(error.field), message=str(error), forecast=forecast)


def _check_policy(job: PolicyJob) -> None:
    """Checks that a policy takes what a deployment asks of it.

    Raises:
        InvalidInputError: it does not.
    """
    policy = get_policy(job.policy.name, dict(job.policy.parameters))
    if job.has_slow_ranks and not getattr(policy, "weighs_ranks", False):
        raise InvalidInputError(
            "topology.rank_capacities",
            f"Expected equal capacities for '{policy.name}', which does not weigh ranks, "
            "got unequal ones.",
        )


def wire_field(field: str) -> str:
    """Returns the name in a request of what the planner calls `field`."""
    for ours, theirs in _WIRE_FIELDS.items():
        if field == ours or field.startswith(f"{ours}."):
            return theirs + field.removeprefix(ours)
    return field


def _status(forecast: Forecast, refusal: str) -> ForecastStatus:
    """Returns what the service is told of a forecast."""
    return ForecastStatus(
        num_windows=forecast.num_windows, is_drifting=forecast.is_drifting, refusal=refusal
    )
