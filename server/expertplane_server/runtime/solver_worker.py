"""The solver process: it owns the device, takes one job at a time, and dies with its parent.

It alone imports torch, so that neither a long solve nor a broken device can hold up the service.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from expertplane_planner import InvalidInputError, get_policy, policy_names, warm_up
from expertplane_server.core.limits import MAX_FORECAST_BYTES
from expertplane_server.runtime import planning
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
)


if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from expertplane_planner import Forecast


_WIRE_FIELDS = {
    "policy.params": "policy.parameters",
    "rules": "engine",
    "incumbent": "incumbent_phy2log",
}


def main(connection: Connection, device: str, num_threads: int) -> None:
    """Serves jobs until the other end of the connection is gone.

    Args:
        connection: jobs in, replies out.
        device: "auto", "cpu" or "cuda:N".
        num_threads: CPU threads to plan with.
    """
    # A solve has time; the event loop of the service has none.
    os.nice(10)
    torch.set_num_threads(num_threads)
    try:
        torch_device = _pick_device(device)
        warm_up(torch_device)
    except InvalidInputError as error:
        connection.send(Failure(str(error)))
        return
    connection.send(
        Ready(
            device=str(torch_device),
            torch_version=torch.__version__,
            policies=tuple(policy_names()),
        )
    )
    worker = Worker(torch_device)
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(worker.reply(job))


def _pick_device(device: str) -> torch.device:
    """Returns the device to plan on; "auto" takes the first CUDA device, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


class Worker:
    """Does jobs, one after another, and remembers forecasts between them.

    Args:
        device: where to plan.
        max_forecast_bytes: bound of what is remembered.
    """

    def __init__(
        self, device: torch.device, *, max_forecast_bytes: int = MAX_FORECAST_BYTES
    ) -> None:
        self._device = device
        self._shelf = ForecastShelf(device, max_bytes=max_forecast_bytes)

    def reply(self, job: Job) -> Reply:
        """Returns the reply to one job; nothing that a job does ends the process."""
        try:
            return self.do(job)
        except InvalidInputError as error:
            return _rejection(error)
        except Exception as error:
            return Failure(f"{type(error).__name__}: {error}")

    def do(self, job: Job) -> Result | Rejection:
        """Does one job.

        Raises:
            InvalidInputError: the job breaks a rule of the planner.
        """
        match job:
            case SolveJob(forecast=None):
                return Answer(planning.run(job, self._device, None))
            case SolveJob() | LearnJob() | ExpectJob():
                return self._do_with_forecast(job)
            case CheckpointJob(ref):
                forecast = self._shelf.find(ref)
                return Lacking() if forecast is None else Checkpoint(forecast.to_bytes())
            case ScheduleJob():
                return planning.schedule(job)
            case PolicyJob():
                _check_policy(job)
                return Taken()

    def _do_with_forecast(self, job: SolveJob | LearnJob | ExpectJob) -> Result | Rejection:
        """Does a job that needs the forecast of a deployment."""
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
                planning.learn(forecast, job.samples)
                return Learned(_status(forecast, refusal))
            case ExpectJob():
                if not forecast.num_windows:
                    return Lacking()
                return planning.expect(forecast, _status(forecast, refusal))
            case SolveJob():
                return self._plan(job, forecast, refusal)

    def _plan(self, job: SolveJob, forecast: Forecast, refusal: str) -> Result | Rejection:
        """Plans for a window of a deployment."""
        num_known = forecast.num_windows
        try:
            solution = planning.run(job, self._device, forecast)
        except InvalidInputError as error:
            if forecast.num_windows == num_known:
                raise
            # Learned all the same, and worth a checkpoint: all windows of a deployment may end so.
            return _rejection(error, _status(forecast, refusal))
        status = _status(forecast, refusal)
        return Answer(replace(solution, is_drifting=status.is_drifting), status)


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
