"""The forecast agrees with a slow one, and does by hand what its docstring says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expertplane_planner import InvalidInputError
from expertplane_planner.forecast import FactoredCovariance, Forecast, ForecastParams, Prediction

from .loads import small_trace, windows
from .reference import SlowForecast


def _ragged_windows() -> list[torch.Tensor]:
    """Return windows of 1 to 6 samples in which layers come, pause and are never seen."""
    rng = np.random.default_rng(0)
    trace = small_trace(seed=3, num_layers=5, num_logical_experts=12, samples_per_mix_step=4)
    ragged = []
    for t in range(24):
        if t == 16:
            trace.switch()
        window = next(trace.windows(int(rng.integers(1, 7))))
        window[:, 0] = 0
        window[rng.random(window.shape[:2]) < 0.3] = 0
        window[:, 1] *= t >= 6
        window[:, 2] *= t % 5 != 3
        ragged.append(torch.from_numpy(window))
    ragged.insert(9, torch.zeros_like(ragged[9]))
    return ragged


@pytest.mark.parametrize(
    "params",
    [
        ForecastParams(common_rank=0),
        ForecastParams(common_rank=0, recent_windows=3, half_life_windows=4.0, shrinkage=0.25),
        ForecastParams(
            common_rank=0,
            recent_windows=2,
            alarm_sds=1.0,
            alarm_warmup_windows=3,
            num_requests=8,
        ),
    ],
    ids=["usual", "shrunk", "alarmed"],
)
def test_a_forecast_is_what_a_slow_one_says(params: ForecastParams) -> None:
    """Each layer alone, window by window, and layers come and go: mean, covariance, surprise."""
    forecast, slow = Forecast(5, 12, params=params), SlowForecast(5, params)
    num_alarms = 0

    for window in _ragged_windows():
        forecast.observe(window)
        slow.observe(window.numpy())
        predicted = forecast.predict()

        mean = np.stack([slow.mean(layer, 12) for layer in slow.layers])
        covariance = np.stack([slow.covariance(layer, 12) for layer in slow.layers])
        np.testing.assert_allclose(predicted.mean, mean, rtol=1e-9, atol=1e-15)
        second = predicted.dense_covariance().numpy()
        np.testing.assert_allclose(second, covariance, rtol=2e-4, atol=1e-9)
        np.testing.assert_allclose(predicted.scale, [slow.scale(s) for s in slow.layers])
        surprise = forecast.surprise
        assert surprise.overall.item() == pytest.approx(slow.surprise, rel=1e-9)
        np.testing.assert_allclose(surprise.per_layer, slow.per_layer, rtol=1e-9)
        assert forecast.is_drifting == slow.is_drifting
        num_alarms += slow.is_drifting
    assert num_alarms > 0


def test_two_windows_by_hand() -> None:
    """Steps of (1/2, 1/2), then of (3/4, 1/4): the first was no news, the second off by 1/4."""
    forecast = Forecast(1, 2, params=ForecastParams(half_life_windows=1.0))
    forecast.observe(torch.tensor([[[4, 4]], [[8, 8]]]))
    first = forecast.predict()
    forecast.observe(torch.tensor([[[6, 2]]]))
    second = forecast.predict()

    assert isinstance(first.covariance, torch.Tensor)
    assert first.mean.tolist() == [[0.5, 0.5]]
    assert first.scale.tolist() == [12.0]
    assert first.covariance.tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    assert second.mean.tolist() == [[0.75, 0.25]]
    assert second.scale.tolist() == [8.0]
    # The later window counts twice as much as the earlier: 2/3 of (1/4)^2.
    expected = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) / 24
    torch.testing.assert_close(second.covariance_of(0), expected)


def test_a_step_counts_by_its_shares() -> None:
    """A sample of ten times the tokens moves the mean no more than another."""
    forecast = Forecast(1, 2)
    forecast.observe(torch.tensor([[[10, 0]], [[0, 100]]]))

    assert forecast.predict().mean.tolist() == [[0.5, 0.5]]


def test_after_one_window_it_is_the_prediction_from_samples() -> None:
    """A forecast of one window and `Prediction.from_samples` are the same thing."""
    (window,) = windows(small_trace(seed=0), 1)
    forecast = Forecast(4, 32)
    forecast.observe(window)

    online, direct = forecast.predict(), Prediction.from_samples(window)

    assert torch.equal(online.mean, direct.mean)
    assert torch.equal(online.scale, direct.scale)
    torch.testing.assert_close(online.covariance, direct.covariance)


def test_predictions_do_not_change_afterwards() -> None:
    """What has been handed out stays as it was when the next window comes."""
    first, second = windows(small_trace(seed=0), 2)
    forecast = Forecast(4, 32)
    forecast.observe(first)
    predicted, surprise = forecast.predict(), forecast.surprise
    before = [part.clone() for part in (predicted.mean, predicted.variance(), predicted.scale)]
    threshold = surprise.threshold.item()

    forecast.observe(second)

    after = (predicted.mean, predicted.variance(), predicted.scale)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert surprise.threshold.item() == threshold


def test_a_clone_goes_its_own_way() -> None:
    """Part of a window can be tried on a clone; the forecast then sees all of it."""
    first, second = windows(small_trace(seed=0), 2)
    forecast, undisturbed = Forecast(4, 32), Forecast(4, 32)
    for each in (forecast, undisturbed):
        each.observe(first)

    trial = forecast.clone()
    trial.observe(second[:6])
    forecast.observe(second)
    undisturbed.observe(second)

    assert forecast.to_bytes() == undisturbed.to_bytes()
    assert trial.to_bytes() != forecast.to_bytes()


def test_samples_are_not_mutated() -> None:
    """The window handed in is the same afterwards, also as float64, which needs no conversion."""
    window = windows(small_trace(seed=0), 1)[0].to(torch.float64)
    before = window.clone()
    forecast = Forecast(4, 32)

    forecast.observe(window)
    forecast.observe(window)

    assert torch.equal(window, before)


def test_units_do_not_matter_to_shares() -> None:
    """Load in units of a quarter of a token gives the same mean, in floats or integers."""
    (window,) = windows(small_trace(seed=0), 1)
    whole, quarters = Forecast(4, 32), Forecast(4, 32)
    whole.observe(window)
    quarters.observe(window.to(torch.float32) * 4)

    assert torch.equal(whole.predict().mean, quarters.predict().mean)
    assert torch.equal(whole.predict().scale * 4, quarters.predict().scale)


@pytest.mark.parametrize("max_bytes", [64 * 2**20, 4 * 3 * 8 * 4], ids=["dense", "factored"])
def test_windows_without_load_say_nothing(max_bytes: int) -> None:
    """Nothing but zeros before: zeros everywhere. Between others: all stays but the count."""
    forecast = Forecast(3, 8, params=ForecastParams(max_bytes=max_bytes))
    nothing = torch.zeros((4, 3, 8), dtype=torch.int64)
    forecast.observe(nothing)
    empty = forecast.predict()
    trace = small_trace(seed=0, num_layers=3, num_logical_experts=8)
    for window in windows(trace, 3):
        forecast.observe(window)
    before = forecast.predict()
    forecast.observe(nothing)
    after = forecast.predict()

    assert isinstance(empty.covariance, FactoredCovariance) == (max_bytes < 1000)
    assert not any(part.any() for part in (empty.mean, empty.dense_covariance(), empty.scale))
    assert torch.equal(before.mean, after.mean)
    torch.testing.assert_close(before.dense_covariance(), after.dense_covariance())
    assert forecast.surprise.per_layer.tolist() == [1.0] * 3
    assert not forecast.is_drifting


def test_extreme_load_stays_finite() -> None:
    """One expert, one expert that takes everything, 2^53 tokens and one token in all."""
    for window in (
        torch.full((2, 1, 1), 2**53),
        torch.tensor([[[2**53, 0, 0]]]),
        torch.tensor([[[0, 1, 0]], [[0, 0, 1]]]),
        torch.tensor([[[1e-30, 0.0, 0.0]]], dtype=torch.float64),
    ):
        forecast = Forecast(1, window.shape[2])
        for _ in range(12):
            forecast.observe(window)
        assert forecast.predict().mean.sum().item() == pytest.approx(1.0)
        assert torch.isfinite(forecast.surprise.overall)
        assert not forecast.is_drifting


def test_there_is_no_prediction_before_a_window() -> None:
    """Nothing is known then, and the message says where else to turn."""
    with pytest.raises(InvalidInputError, match="a window to be observed .* got 0"):
        Forecast(2, 4).predict()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.ones(1, 2, 5), r"2 layers and 4 experts, got \[1, 2, 5\]\."),
        (torch.ones(1, 3, 4), r"2 layers and 4 experts, got \[1, 3, 4\]\."),
        (torch.ones(2, 4), r"Expected samples of shape .*, got \[2, 4\]\."),
        (torch.full((1, 2, 4), torch.nan), r"got nan at \[0, 0, 0\]\."),
        (torch.full((1, 2, 4), -1.0), r"got -1\.0 at \[0, 0, 0\]\."),
    ],
)
def test_samples_that_do_not_fit_change_nothing(samples: torch.Tensor, message: str) -> None:
    """They are refused by name, and the forecast is as it was."""
    forecast = Forecast(2, 4)
    before = forecast.to_bytes()

    with pytest.raises(InvalidInputError, match=message):
        forecast.observe(samples)

    assert forecast.to_bytes() == before


@pytest.mark.parametrize(
    ("num_layers", "num_experts", "field"),
    [(0, 4, "num_layers"), (257, 4, "num_layers"), (2, 4097, "num_logical_experts")],
)
def test_dimensions_have_bounds(num_layers: int, num_experts: int, field: str) -> None:
    """As many layers and experts as a load may have."""
    with pytest.raises(InvalidInputError, match=rf"Expected {field} in \[1, ") as caught:
        Forecast(num_layers, num_experts)

    assert caught.value.field == f"forecast.{field}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recent_windows", 0),
        ("half_life_windows", 0.5),
        ("half_life_windows", float("nan")),
        ("shrinkage", 1.5),
        ("max_bytes", 0),
        ("max_rank", 0),
        ("common_rank", -1),
        ("num_requests", 0),
        ("alarm_sds", 0.0),
        ("alarm_warmup_windows", 1),
    ],
)
def test_parameters_have_ranges(name: str, value: float) -> None:
    """A parameter out of its range is named with its range."""
    with pytest.raises(
        InvalidInputError, match=rf"Expected {name} in \[.*, got {value}"
    ) as caught:
        ForecastParams(**{name: value})  # type: ignore[arg-type]  # wrong on purpose

    assert caught.value.field == f"forecast.{name}"
