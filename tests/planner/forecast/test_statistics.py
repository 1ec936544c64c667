"""What is predicted comes true, as far as it can: checked out of sample on synthetic load."""

from __future__ import annotations

import numpy as np
import pytest

from expertplane_planner.forecast import Forecast, ForecastParams

from .loads import SwitchingTrace, shares, small_trace, windows


def _variance_ratios(trace: SwitchingTrace, num_windows: int, num_samples: int) -> list[float]:
    """Return, window by window, realised over predicted squared error of the steps."""
    first, *others = windows(trace, num_windows, num_samples)
    forecast = Forecast(first.shape[1], first.shape[2])
    forecast.observe(first)
    ratios = []
    for window in others:
        predicted = forecast.predict()
        error = shares(window) - predicted.mean.numpy()
        ratios.append(np.square(error).mean(axis=0).sum() / predicted.variance().sum().item())
        forecast.observe(window)
    return ratios


@pytest.mark.parametrize(
    ("num_requests", "mix_rho", "num_samples"),
    [(64, 0.95, 8), (64, 0.9, 16), (512, 0.97, 16), (16, 0.95, 4)],
)
def test_predicted_variance_matches_the_error_to_come(
    num_requests: int, mix_rho: float, num_samples: int
) -> None:
    """After 20 windows the variance is right within a quarter, over 5 traces of 40 windows."""
    ratios = [
        _variance_ratios(
            small_trace(
                seed,
                num_requests=num_requests,
                mix_rho=mix_rho,
                samples_per_mix_step=num_samples,
            ),
            60,
            num_samples,
        )[20:]
        for seed in range(5)
    ]

    assert 0.75 < np.mean(ratios) < 1.25


@pytest.mark.parametrize("num_samples", [2, 4, 16])
def test_steady_traffic_is_foreseen_from_one_window(num_samples: int) -> None:
    """Without drift the first window's own covariance is the next one's error, within a fifth."""
    ratios = [
        _variance_ratios(small_trace(seed, mix_rho=0.9999, mix_sd=0.5), 2, num_samples)[0]
        for seed in range(20)
    ]

    assert 0.8 < np.mean(ratios) < 1.2


def test_rank_loads_vary_as_the_covariance_says() -> None:
    """Sums over 8 experts, which hang on the covariances, are off by what was predicted."""
    ratios = []
    for seed in range(5):
        first, *others = windows(small_trace(seed), 50)
        forecast = Forecast(4, 32)
        forecast.observe(first)
        for t, window in enumerate(others):
            predicted = forecast.predict()
            error = (shares(window) - predicted.mean.numpy()).reshape(8, 4, 4, 8).sum(axis=-1)
            blocks = predicted.dense_covariance().reshape(4, 4, 8, 4, 8).sum(dim=(2, 4))
            variance = blocks.diagonal(dim1=1, dim2=2).sum().item()
            if t >= 20:
                ratios.append(np.square(error).mean(axis=0).sum() / variance)
            forecast.observe(window)

    assert 0.75 < np.mean(ratios) < 1.25


@pytest.mark.parametrize("mix_rho", [0.95, 0.9999])
def test_learned_shrinkage_foresees_no_worse_than_none(mix_rho: float) -> None:
    """Under steady traffic of few samples it wins a tenth, under drift it loses nothing much."""
    errors = dict.fromkeys((None, 0.0), 0.0)
    for seed in range(4):
        stream = windows(small_trace(seed, mix_rho=mix_rho, samples_per_mix_step=3), 50, 3)
        for shrinkage in errors:
            forecast = Forecast(4, 32, params=ForecastParams(shrinkage=shrinkage))
            for t, window in enumerate(stream):
                if t >= 10:
                    mean = forecast.predict().mean.numpy()
                    errors[shrinkage] += float(np.square(shares(window) - mean).sum())
                forecast.observe(window)

    assert errors[None] < errors[0.0] * (0.9 if mix_rho > 0.99 else 1.01)


def test_the_alarm_goes_off_at_a_switch_and_rarely_else() -> None:
    """10 traces turn over in window 30: found at once, and at most 1 false alarm in 500."""
    found = false = 0
    for seed in range(10):
        trace = small_trace(seed, num_layers=8, num_logical_experts=64)
        forecast = Forecast(8, 64)
        for t in range(50):
            if t == 30:
                trace.switch()
            forecast.observe(windows(trace, 1)[0])
            if forecast.is_drifting:
                found += t == 30
                false += t != 30

    assert found == 10
    assert false <= 1


def test_after_an_alarm_the_mean_follows_and_the_covariance_stays() -> None:
    """Three windows count as recent, but none from before a switch; variance grows by half."""
    params = ForecastParams(recent_windows=3)
    trace = small_trace(seed=0, num_layers=8, num_logical_experts=64)
    forecast = Forecast(8, 64, params=params)
    for window in windows(trace, 30):
        forecast.observe(window)
    before = forecast.predict().variance().sum().item()
    assert not forecast.is_drifting

    trace.switch()
    (window,) = windows(trace, 1)
    forecast.observe(window)
    after = forecast.predict()

    surprise = forecast.surprise
    assert forecast.is_drifting
    assert surprise.overall > surprise.threshold > 1
    assert surprise.per_layer.min() > 1
    np.testing.assert_allclose(after.mean, shares(window).mean(axis=0), rtol=1e-9)
    assert before < after.variance().sum().item() < 1.5 * before
