"""A prediction is checked at birth, and can be made of whatever load there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expertplane_planner import InvalidInputError
from expertplane_planner.forecast import FactoredCovariance, Prediction

from .loads import shares, small_trace, windows
from .reference import own_moment


def _parts() -> dict[str, torch.Tensor | FactoredCovariance]:
    return {
        "mean": torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64),
        "covariance": torch.eye(3).repeat(2, 1, 1),
        "scale": torch.tensor([100.0, 0.0], dtype=torch.float64),
    }


def test_a_prior_around_a_load_by_hand() -> None:
    """Shares .75 and .25 of 100 tokens and 289 requests: Poisson, and (.05 share)^2."""
    weight = torch.tensor([[75, 25], [0, 0]])

    predicted = Prediction.from_load(weight, num_requests=289)

    assert predicted.mean.tolist() == [[0.75, 0.25], [0.0, 0.0]]
    assert predicted.scale.tolist() == [100.0, 0.0]
    expected = [0.0075 + 0.0025 * 0.5625, 0.0025 + 0.0025 * 0.0625]
    assert predicted.variance()[0].tolist() == pytest.approx(expected, rel=1e-12)
    assert predicted.variance()[1].tolist() == [0.0, 0.0]
    assert predicted.covariance_of(0)[0, 1].item() == 0.0


def test_a_load_of_several_steps_has_the_noise_of_one() -> None:
    """400 tokens of 4 steps are 100 a step."""
    one = Prediction.from_load(torch.tensor([[75, 25]]))
    four = Prediction.from_load(torch.tensor([[300, 100]]), num_samples=4)

    assert torch.equal(one.scale, four.scale)
    assert torch.equal(one.variance(), four.variance())


@pytest.mark.parametrize("num_samples", [1, 2, 16])
def test_samples_on_their_own_are_filled_up_with_the_prior(num_samples: int) -> None:
    """The covariance is the samples' own, the less of it the fewer they are."""
    (window,) = windows(small_trace(seed=1), 1, num_samples)

    predicted = Prediction.from_samples(window, num_requests=64)

    steps = shares(window)
    tokens = float(window[0, 0].sum())
    for layer in range(4):
        slow = own_moment([(step, tokens) for step in steps[:, layer]], 64)
        np.testing.assert_allclose(predicted.covariance_of(layer), slow, rtol=2e-4, atol=1e-10)
    assert predicted.mean.numpy() == pytest.approx(steps.mean(axis=0))


def test_a_single_sample_is_a_load() -> None:
    """One sample says nothing of its spread: both ways lead to the prior."""
    (window,) = windows(small_trace(seed=1), 1, num_samples=1)

    sampled, summed = Prediction.from_samples(window), Prediction.from_load(window[0])

    assert torch.equal(sampled.mean, summed.mean)
    torch.testing.assert_close(
        sampled.dense_covariance(), summed.dense_covariance(), check_dtype=False
    )


def test_samples_with_too_many_experts_give_a_factor() -> None:
    """Where dense would not fit, 7 columns and a diagonal keep all of 8 samples' covariance."""
    (window,) = windows(small_trace(seed=1), 1)

    dense = Prediction.from_samples(window)
    factored = Prediction.from_samples(window, max_bytes=8 * 4 * 4 * 32)

    assert isinstance(factored.covariance, FactoredCovariance)
    assert factored.covariance.factor.shape == (4, 32, 7)
    torch.testing.assert_close(
        factored.dense_covariance(), dense.dense_covariance(), rtol=1e-3, atol=1e-8
    )
    torch.testing.assert_close(
        factored.covariance_of(2), dense.covariance_of(2), rtol=1e-3, atol=1e-8
    )


def test_a_dense_covariance_has_a_bound() -> None:
    """What would take too much memory is refused; layer by layer it can still be had."""
    predicted = Prediction.from_load(torch.ones(4, 32))

    with pytest.raises(InvalidInputError, match="at most 32767 bytes, got 32768"):
        predicted.dense_covariance(max_bytes=4 * 32 * 32 * 8 - 1)
    assert predicted.dense_covariance(max_bytes=4 * 32 * 32 * 8).shape == (4, 32, 32)
    assert predicted.covariance_of(3).shape == (32, 32)


def test_a_prediction_moves_as_a_whole() -> None:
    """To another device, shapes and dtypes stay; to its own, it is itself."""
    for predicted in (Prediction(**_parts()), Prediction.from_load(torch.ones(2, 3))):  # type: ignore[arg-type]  # right by construction
        moved = predicted.to("meta")

        assert predicted.to("cpu") is predicted
        assert (moved.num_layers, moved.num_logical_experts) == (2, 3)
        assert {moved.device.type, moved.variance().device.type, moved.scale.device.type} == {
            "meta"
        }
        assert moved.dense_covariance().shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean", torch.ones(3), r"mean of shape .*, got \[3\]"),
        ("mean", torch.zeros(2, 3), r"torch\.float64 on cpu, got \[2, 3\] and torch\.float32"),
        ("covariance", torch.eye(3), r"covariance of shape \[2, 3, 3\].*, got \[3, 3\]"),
        ("covariance", torch.zeros(2, 3, 3, dtype=torch.int64), "got .* torch.int64"),
        ("covariance", torch.zeros(2, 3, 3, device="meta"), "on cpu, got .* on meta"),
        ("covariance", torch.full((2, 3, 3), torch.inf), "a finite norm .*, got inf"),
        ("covariance", -torch.eye(3).repeat(2, 1, 1), r"got -1\.0 at \[0, 0\]"),
        (
            "covariance",
            FactoredCovariance(torch.zeros(3, 3, 1), torch.zeros(3, 3)),
            r"of shape \[2, 3, 1\] .*, got \[3, 3, 1\]",
        ),
        (
            "covariance",
            FactoredCovariance(torch.zeros(2, 3, 1), torch.full((2, 3), torch.nan)),
            r"got nan at \[0, 0\]",
        ),
        ("scale", torch.ones(3, dtype=torch.float64), r"scale of shape \[2\]"),
        ("scale", torch.tensor([1.0, -2.0], dtype=torch.float64), r"got -2\.0 at \[1\]"),
        ("mean", torch.full((2, 3), 0.5, dtype=torch.float64), r"sum to 1, .*, got 1\.5 at \[0\]"),
        ("mean", torch.tensor([[1.5, -0.5, 0.0]] * 2, dtype=torch.float64), r"-0\.5 at \[0, 1\]"),
    ],
)
def test_what_is_no_prediction_is_refused(
    name: str, value: torch.Tensor | FactoredCovariance, message: str
) -> None:
    """Shapes, dtypes, devices and values are checked, and the offender is named."""
    with pytest.raises(InvalidInputError, match=message) as caught:
        Prediction(**(_parts() | {name: value}))  # type: ignore[arg-type]  # wrong on purpose

    assert caught.value.field == f"prediction.{name}"


def test_parts_of_a_factor_belong_together() -> None:
    """Factor and diagonal agree on shape and dtype."""
    with pytest.raises(InvalidInputError, match=r"got \[2, 3, 1\] and \[2, 4\]"):
        FactoredCovariance(torch.zeros(2, 3, 1), torch.zeros(2, 4))
    with pytest.raises(InvalidInputError, match="of one dtype on one device"):
        FactoredCovariance(torch.zeros(2, 3, 1), torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: Prediction.from_load(torch.ones(2, 3), num_samples=0), "num_samples"),
        (lambda: Prediction.from_load(torch.ones(2, 3), num_requests=0), "forecast.num_requests"),
        (lambda: Prediction.from_load(torch.ones(3)), "load.weight"),
        (lambda: Prediction.from_samples(torch.ones(2, 3)), "load.samples"),
        (lambda: Prediction.from_samples(torch.ones(1, 2, 3), max_bytes=1), "forecast.max_bytes"),
    ],
)
def test_what_cannot_be_predicted_from_is_refused(call: object, field: str) -> None:
    """The field says which argument it was."""
    with pytest.raises(InvalidInputError) as caught:
        call()  # type: ignore[operator]  # a row of the table

    assert caught.value.field == field


def test_predictions_can_be_stacked() -> None:
    """Layer after layer, to the bit; and what was checked once is taken for right."""
    one, other = (Prediction.from_samples(torch.rand(4, 2, 3) * 100) for _ in range(2))

    stacked = Prediction.stacked([one, other, one])

    assert (stacked.num_layers, stacked.num_logical_experts) == (6, 3)
    for layer in range(6):
        source = other if layer in (2, 3) else one
        assert torch.equal(stacked.mean[layer], source.mean[layer % 2])
        assert torch.equal(stacked.covariance_of(layer), source.covariance_of(layer % 2))
        assert stacked.scale[layer] == source.scale[layer % 2]


def test_a_factored_prediction_is_not_stacked() -> None:
    """Ranks may differ, and dense ones are small."""
    factored = Prediction.from_load(torch.ones(2, 3))

    with pytest.raises(InvalidInputError, match="got a factored one"):
        Prediction.stacked([factored, factored])
