"""A forecast lives on its device: nothing but the checks of nouns waits for values."""

from __future__ import annotations

import pytest
import torch

from expertplane_planner.forecast import Forecast, ForecastParams, Prediction

from .loads import small_trace, windows


FORMS = pytest.mark.parametrize("max_bytes", [2**20, 5 * 4 * 32 * 4], ids=["dense", "factored"])


@FORMS
def test_a_forecast_runs_without_values(max_bytes: int) -> None:
    """On tensors that have shapes but no values, windows go in and a prediction comes out."""
    forecast = Forecast(4, 32, params=ForecastParams(max_bytes=max_bytes), device="meta")
    for num_samples in (1, 6):
        forecast.observe(torch.empty((num_samples, 4, 32), dtype=torch.int64, device="meta"))

    predicted = forecast.predict()

    assert predicted.device.type == predicted.scale.device.type == "meta"
    assert predicted.dense_covariance().shape == (4, 32, 32)
    assert forecast.surprise.per_layer.shape == (4,)
    assert forecast.surprise.is_drifting.device.type == "meta"


def test_a_window_without_values_comes_to_the_right_place() -> None:
    """Samples on another device are brought to the forecast's."""
    forecast = Forecast(4, 32, device="meta")
    forecast.observe(windows(small_trace(seed=0), 1)[0])

    assert forecast.predict().device.type == "meta"


@pytest.mark.gpu
@FORMS
def test_a_gpu_forecasts_alike(max_bytes: int) -> None:
    """On CUDA the numbers are the CPU's but for rounding, and a checkpoint changes sides."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    params = ForecastParams(max_bytes=max_bytes)
    host, device = Forecast(4, 32, params=params), Forecast(4, 32, params=params, device="cuda")
    stream = windows(small_trace(seed=0), 6)
    for window in stream[:5]:
        host.observe(window)
        device.observe(window.cuda())
    moved = Forecast.from_bytes(host.to_bytes(), "cuda")
    for forecast in (host, device, moved):
        forecast.observe(stream[5])

    expected = host.predict()
    for forecast in (device, moved):
        predicted = forecast.predict().to("cpu")
        torch.testing.assert_close(predicted.mean, expected.mean)
        torch.testing.assert_close(
            predicted.dense_covariance(), expected.dense_covariance(), rtol=1e-3, atol=1e-8
        )


@pytest.mark.gpu
@FORMS
def test_a_gpu_makes_the_host_wait_for_checks_only(
    max_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the checks of nouns left out and waiting an error, windows still go in and out."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    forecast = Forecast(4, 32, params=ForecastParams(max_bytes=max_bytes), device="cuda")
    stream = [window.cuda() for window in windows(small_trace(seed=0), 3)]
    forecast.observe(stream[0])
    monkeypatch.setattr("expertplane_planner.forecast.online.ExpertLoad", lambda _: None)
    monkeypatch.setattr(Prediction, "_check_values", lambda _: None)

    torch.cuda.set_sync_debug_mode("error")
    try:
        for window in stream[1:]:
            forecast.observe(window)
            forecast.predict()
    finally:
        torch.cuda.set_sync_debug_mode("default")
