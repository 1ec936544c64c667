"""What a solve may know of the load, and what it is judged by. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from expertplane_planner.kernels.threads import single_threaded_ops
from expertplane_server.runtime.jobs import Expected


if TYPE_CHECKING:
    import numpy as np

    from expertplane_planner import Forecast, Prediction
    from expertplane_server.runtime.jobs import ForecastStatus, SolveJob

_KEEP_BACK_FROM = 8
"""Samples below which keeping some back would cost the plan more than the honesty is worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a solve may know, and what it is judged by.

    Attributes:
        shown: [K, num_layers, num_logical_experts] tokens.
        held_out: further samples, kept back; None when there are too few.
        prediction: what to expect of the coming steps; None leaves it to the policy.
        judged: [J, num_layers, num_logical_experts] tokens, what balance is measured on.
    """

    shown: torch.Tensor
    held_out: torch.Tensor | None
    prediction: Prediction | None
    judged: torch.Tensor


def learn(forecast: Forecast, samples: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    """Shows a window to a forecast.

    Raises:
        InvalidInputError: the samples break a rule of the planner.
    """
    with single_threaded_ops():
        forecast.observe(torch.from_numpy(samples.copy()))


def expect(forecast: Forecast, status: ForecastStatus) -> Expected:
    """Writes down what a forecast that knows a window expects of the next samples."""
    with single_threaded_ops():
        prediction = forecast.predict()
        tokens = prediction.scale.unsqueeze(-1)
        deviation = prediction.variance().to(torch.float64).clamp_min(0.0).sqrt()
        mean, spread = prediction.mean * tokens, deviation * tokens
    return Expected(
        mean=mean.to("cpu", torch.float32).numpy(),
        standard_deviation=spread.to("cpu", torch.float32).numpy(),
        forecast=status,
    )


def evidence_of(job: SolveJob, forecast: Forecast | None) -> Evidence:
    """Returns what a solve may know, and lets the forecast learn the samples where it should.

    Args:
        job: whose samples they are.
        forecast: of the deployment's load; None leaves it at the samples alone.

    Raises:
        InvalidInputError: the samples break a rule of the planner.
    """
    samples = torch.from_numpy(job.samples.copy())
    with single_threaded_ops():
        if forecast is None:
            return _of_load(samples)
        return _of_window(samples, forecast) if job.teaches else _of_known(samples, forecast)


def _of_load(samples: torch.Tensor) -> Evidence:
    """Returns the evidence of a load that belongs to no deployment: all there is.

    It is judged as a whole, as its sender summed it.
    """
    judged = samples.sum(dim=0, keepdim=True)
    return Evidence(shown=samples, held_out=None, prediction=None, judged=judged)


def _of_known(samples: torch.Tensor, forecast: Forecast) -> Evidence:
    """Returns the evidence of samples that the forecast has been shown: none to keep back.

    A forecast that has lost them is not taught them again; a copy of it is.
    """
    if not forecast.num_windows:
        forecast = forecast.clone()
        forecast.observe(samples)
    return _as_predicted(samples, forecast)


def _as_predicted(samples: torch.Tensor, forecast: Forecast) -> Evidence:
    """Returns evidence that is judged by what the forecast expects."""
    prediction = forecast.predict()
    judged = (prediction.mean * prediction.scale.unsqueeze(-1)).unsqueeze(0).cpu()
    return Evidence(shown=samples, held_out=None, prediction=prediction, judged=judged)


def _of_window(samples: torch.Tensor, forecast: Forecast) -> Evidence:
    """Lets the forecast learn a window, and returns what its solve may know of it."""
    if len(samples) < _KEEP_BACK_FROM:
        forecast.observe(samples)
        return _as_predicted(samples, forecast)
    is_kept_back = torch.zeros(len(samples), dtype=torch.bool)
    is_kept_back[3::4] = True
    shown, held_out = samples[~is_kept_back], samples[is_kept_back]
    partial = forecast.clone()
    partial.observe(shown)
    prediction = partial.predict()
    forecast.observe(samples)
    return Evidence(shown=shown, held_out=held_out, prediction=prediction, judged=held_out)
