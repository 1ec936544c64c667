"""What layers have in common: kept exactly while there is room, and it pays out of sample."""

from __future__ import annotations

import pytest
import torch

from expertplane_planner.forecast import FactoredCovariance, Forecast, ForecastParams
from expertplane_planner.forecast.common import CommonFactors
from expertplane_planner.forecast.shares import shares_of

from .loads import small_trace, windows


def _factors(rank: int, max_bytes: int = 2**20) -> CommonFactors:
    return CommonFactors.empty(2, 4, max_bytes=max_bytes, max_rank=rank, device=None)


def test_factors_are_the_joint_moments_while_there_is_room() -> None:
    """Outer products over both layers at once, each layer forgotten by its own decay."""
    generator = torch.Generator().manual_seed(0)
    factors, exact = _factors(8), torch.zeros(8, 8, dtype=torch.float64)
    window = shares_of(torch.randint(1, 9, (1, 2, 4), generator=generator))

    for decay in ((1.0, 0.5), (0.25, 0.75), (0.5, 1.0)):
        strays = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
        factors.fold(torch.tensor(decay, dtype=torch.float64), strays, window)
        columns = strays.transpose(1, 2).reshape(8, 3)
        scale = torch.tensor(decay, dtype=torch.float64).sqrt().repeat_interleave(4)
        exact = scale[:, None] * exact * scale + columns @ columns.T

    flat = factors.errors.double().flatten(0, 1)
    torch.testing.assert_close(flat @ flat.T, exact, rtol=1e-4, atol=1e-5)
    assert not factors.swings.any()  # a window of one sample has none


def test_swings_are_steps_around_their_own_window() -> None:
    """Steps of (3/4, 1/4) and (1/4, 3/4) swing by 1/4 each way, whatever was forecast."""
    factors = CommonFactors.empty(1, 2, max_bytes=2**20, max_rank=2, device=None)
    window = shares_of(torch.tensor([[[3, 1]], [[1, 3]]]))
    decay = torch.tensor([0.5], dtype=torch.float64)

    factors.fold(decay, torch.zeros(1, 2, 2, dtype=torch.float64), window)

    # Swings forget 12 times as quickly; their variance is 2 * (1/4)^2, divided by 2 - 1.
    expected = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) / 8 * (1 - 0.5**12)
    torch.testing.assert_close(factors.swings[0] @ factors.swings[0].T, expected)
    assert not factors.errors.any()


def test_a_change_is_followed_along_known_directions() -> None:
    """One direction over both layers and an empty one: what is across it is not followed."""
    factors = _factors(2)
    direction = torch.tensor([[3.0, -3.0, 0.0, 0.0], [0.0, 0.0, 4.0, -4.0]])
    factors.errors[..., 0] = direction
    along = direction.double() / 7
    across = torch.tensor([[4.0, -4.0, 0.0, 0.0], [0.0, 0.0, -3.0, 3.0]], dtype=torch.float64)

    followed = factors.follow(along + across)

    torch.testing.assert_close(followed, along, rtol=1e-5, atol=1e-6)
    assert not _factors(2).follow(across).any()
    assert _factors(0).follow(across) is across


def test_size_decides_the_number_of_directions() -> None:
    """Two factors of 2 x 4 float32 take 64 bytes a direction."""
    assert _factors(16, max_bytes=64 * 3).rank == 3
    assert _factors(16, max_bytes=63).rank == 0
    assert _factors(2).rank == 2


def test_what_is_common_takes_nothing_from_a_layer() -> None:
    """The sum of a layer's variances is as without, and no combination has a negative one."""
    forecast = Forecast(4, 32)
    for window in windows(small_trace(seed=0), 20):
        forecast.observe(window)
    predicted = forecast.predict()
    covariance = predicted.dense_covariance().double()
    own = forecast._parts.moment.mean(forecast._parts.means.weight)
    assert isinstance(own, torch.Tensor)

    torch.testing.assert_close(covariance, covariance.mT)
    torch.testing.assert_close(
        predicted.variance().sum(dim=1),
        own.diagonal(dim1=1, dim2=2).sum(dim=1),
        rtol=1e-3,
        atol=0.0,
    )
    lowest = torch.linalg.eigvalsh(covariance)[:, 0]
    assert (lowest > -1e-6 * covariance.diagonal(dim1=1, dim2=2).amax(dim=1)).all()


def test_both_forms_blend_alike() -> None:
    """A factor and a diagonal are blended to what their dense matrix is blended to."""
    forecast = Forecast(4, 32)
    for window in windows(small_trace(seed=0), 6):
        forecast.observe(window)
    generator = torch.Generator().manual_seed(0)
    own = FactoredCovariance(
        torch.randn(4, 32, 3, generator=generator) / 1e3, torch.full((4, 32), 1e-5)
    )
    weight = forecast._parts.means.weight
    common = forecast._parts.common

    factored = common.blend(own, weight)
    dense = common.blend(own.dense(), weight)

    assert isinstance(factored, FactoredCovariance)
    torch.testing.assert_close(factored.dense(), dense, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("mix_rho", [0.95, 0.9])
def test_the_mean_is_nearer_to_the_mix_than_any_layer_alone_could_say(mix_rho: float) -> None:
    """On traffic that shifts in all layers at once, a fifth of the squared error goes."""
    errors = {16: 0.0, 0: 0.0}
    for seed in range(3):
        trace = small_trace(seed, num_layers=12, mix_rho=mix_rho)
        both = {rank: Forecast(12, 32, params=ForecastParams(common_rank=rank)) for rank in errors}
        for t in range(40):
            (window,) = windows(trace, 1)
            for rank, forecast in both.items():
                forecast.observe(window)
                if t >= 15:
                    off = forecast.predict().mean - torch.from_numpy(trace.expected_shares())
                    errors[rank] += float(off.square().sum())

    assert errors[16] < 0.8 * errors[0]


def test_layers_that_share_nothing_lose_nothing() -> None:
    """Layers of traffic of their own are foreseen within 2 % as well as each alone."""
    errors = {16: 0.0, 0: 0.0}
    for seed in range(3):
        traces = [small_trace(10 * seed + i, num_layers=1) for i in range(6)]
        both = {rank: Forecast(6, 32, params=ForecastParams(common_rank=rank)) for rank in errors}
        for t in range(30):
            window = torch.cat([windows(trace, 1)[0] for trace in traces], dim=1)
            share = window.double() / window.sum(dim=-1, keepdim=True)
            for rank, forecast in both.items():
                if t >= 10:
                    errors[rank] += float((share - forecast.predict().mean).square().sum())
                forecast.observe(window)

    assert errors[16] < 1.02 * errors[0]
