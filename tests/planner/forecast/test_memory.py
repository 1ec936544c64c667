"""Memory has a bound: dense where that fits, of low rank plus a diagonal beyond it."""

from __future__ import annotations

import pytest
import torch

from expertplane_planner import InvalidInputError
from expertplane_planner.forecast import FactoredCovariance, Forecast, ForecastParams, Prediction
from expertplane_planner.forecast.covariance import FactoredMoment

from .loads import small_trace, windows


def _num_bytes(forecast: Forecast) -> dict[str, int]:
    """Return the bytes of each tensor in the state, taken from the state itself."""
    return {
        name: value.nbytes
        for name, value in forecast.state().items()
        if not isinstance(value, int | float)
    }


def test_a_deepseek_sized_forecast_is_dense_and_small() -> None:
    """58 layers of 256 experts take 15.2 MB of pairs and less than 18 MB in all."""
    sizes = _num_bytes(Forecast(58, 256))

    assert sizes["moment.second"] == 58 * 256 * 256 * 4
    assert sizes["common.errors"] == sizes["common.swings"] == 58 * 256 * 16 * 4
    assert sum(sizes.values()) < 18_000_000


def test_memory_does_not_grow() -> None:
    """A forecast of twenty windows is as large as a fresh one."""
    for params in (ForecastParams(), ForecastParams(max_bytes=4 * 4 * 32 * 5)):
        forecast = Forecast(4, 32, params=params)
        fresh = _num_bytes(forecast)
        for window in windows(small_trace(seed=0), 20):
            forecast.observe(window)

        assert _num_bytes(forecast) == fresh


@pytest.mark.parametrize(
    ("num_columns", "is_dense", "rank"),
    [(32, True, 0), (31, False, 30), (7, False, 6), (2, False, 1)],
)
def test_size_decides_the_form(num_columns: int, is_dense: bool, rank: int) -> None:
    """All columns fit: dense. One less: as many as fit, one of them the diagonal."""
    forecast = Forecast(4, 32, params=ForecastParams(max_bytes=num_columns * 4 * 32 * 4))
    sizes = _num_bytes(forecast)

    if is_dense:
        assert sizes["moment.second"] == num_columns * 4 * 32 * 4
    else:
        assert sizes["moment.factor"] == rank * 4 * 32 * 4
        assert sizes["moment.factor"] + sizes["moment.variance"] <= num_columns * 4 * 32 * 4


def test_the_largest_deployment_keeps_its_bound() -> None:
    """256 layers of 4096 experts: rank 15 in 64 MiB, worked out without taking the memory."""
    forecast = Forecast(256, 4096, device="meta")

    moment = forecast._parts.moment
    assert isinstance(moment, FactoredMoment)
    assert moment.factor.nbytes + moment.variance.nbytes <= 64 * 2**20
    assert moment.factor.shape[-1] == 15
    common = forecast._parts.common
    assert common.errors.nbytes + common.swings.nbytes <= 8 * 2**20


def test_too_little_memory_is_refused() -> None:
    """A diagonal and one column are the least."""
    least = 2 * 4 * 32 * 4
    with pytest.raises(InvalidInputError, match=f"at least {least} .*, got {least - 1}") as caught:
        Forecast(4, 32, params=ForecastParams(max_bytes=least - 1))

    assert caught.value.field == "forecast.max_bytes"


def _both_forms(num_columns: int) -> tuple[Prediction, Prediction]:
    dense = Forecast(4, 32, params=ForecastParams(common_rank=0))
    factored = Forecast(4, 32, params=ForecastParams(max_bytes=num_columns * 4 * 32 * 4))
    for window in windows(small_trace(seed=0), 30):
        dense.observe(window)
        factored.observe(window)
    return dense.predict(), factored.predict()


@pytest.mark.parametrize(("num_columns", "rank", "error"), [(5, 4, 0.35), (13, 12, 0.1)])
def test_low_rank_keeps_what_matters(num_columns: int, rank: int, error: float) -> None:
    """Means and variances are exact; the rest nearly the best that this rank can be."""
    dense, factored = _both_forms(num_columns)

    assert isinstance(factored.covariance, FactoredCovariance)
    exact = dense.dense_covariance()
    assert torch.equal(factored.mean, dense.mean)
    torch.testing.assert_close(factored.variance(), dense.variance(), rtol=1e-4, atol=1e-10)
    assert (factored.dense_covariance() - exact).norm() < error * exact.norm()
    captured = factored.covariance.factor.square().sum(dim=(1, 2))
    best = torch.linalg.eigvalsh(exact.double())[:, -rank:].sum(dim=1)
    assert (captured > 0.9 * best).all()
    assert (captured < 1.0001 * best).all()


def test_both_forms_are_positive_semidefinite() -> None:
    """No combination of experts has a negative variance."""
    for predicted in _both_forms(5):
        covariance = predicted.dense_covariance().double()
        lowest = torch.linalg.eigvalsh(covariance)[:, 0]

        assert torch.equal(covariance, covariance.mT)
        assert (lowest > -1e-5 * covariance.diagonal(dim1=1, dim2=2).amax(dim=1)).all()


def test_the_same_windows_give_the_same_bytes() -> None:
    """Nothing is random, in either form."""
    for max_bytes in (2**20, 5 * 4 * 32 * 4):
        one, same = (Forecast(4, 32, params=ForecastParams(max_bytes=max_bytes)) for _ in "ab")
        for window in windows(small_trace(seed=0), 3):
            one.observe(window)
            same.observe(window)

        assert one.to_bytes() == same.to_bytes()
