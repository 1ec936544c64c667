from __future__ import annotations

import pytest
import torch

from expertplane_planner import ExpertLoad, InvalidLoadError


def _samples_with(value: float, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    samples = torch.ones(2, 4, 20, dtype=dtype)
    samples[0, 3, 17] = value
    samples[1, 0, 0] = value
    return samples


def test_total_sums_over_samples() -> None:
    """Two samples [[1, 2]] and [[3, 4]] total [[4, 6]], in float64."""
    load = ExpertLoad(torch.tensor([[[1, 2]], [[3, 4]]]))

    total = load.total()

    assert torch.equal(torch.tensor([[4.0, 6.0]], dtype=torch.float64), total)
    assert (load.num_samples, load.num_layers, load.num_logical_experts) == (2, 1, 2)


def test_small_integers_do_not_overflow() -> None:
    """Four int16 samples of 32767 tokens total 131068."""
    load = ExpertLoad(torch.full((4, 1, 1), 32767, dtype=torch.int16))

    assert load.total().tolist() == [[131068.0]]


@pytest.mark.parametrize(
    "dtype", [torch.int16, torch.int32, torch.int64, torch.float32, torch.float64]
)
def test_every_documented_dtype_is_accepted(dtype: torch.dtype) -> None:
    """Counts may come as any of the five dtypes, and add up to the same."""
    assert ExpertLoad(torch.full((2, 1, 3), 5, dtype=dtype)).total().tolist() == [[10.0] * 3]


@pytest.mark.parametrize(
    ("value", "printed"),
    [(float("nan"), "nan"), (float("inf"), "inf"), (-1.0, "-1.0")],
)
def test_what_is_no_count_is_refused_where_it_stands(value: float, printed: str) -> None:
    """NaN, infinity and negative counts are refused with the first index that holds one."""
    with pytest.raises(InvalidLoadError) as caught:
        ExpertLoad(_samples_with(value))

    expected = f"Expected finite, non-negative token counts, got {printed} at [0, 3, 17]."
    assert str(caught.value) == expected
    assert caught.value.field == "load.samples"


def test_a_negative_integer_is_refused() -> None:
    """Integer counts are checked for their sign as well."""
    with pytest.raises(InvalidLoadError, match=r"got -5 at \[0, 3, 17\]\.$"):
        ExpertLoad(_samples_with(-5, dtype=torch.int16))


def test_counts_are_bounded() -> None:
    """2^53 tokens are accepted, the next integer is refused."""
    ExpertLoad(torch.tensor([[[2**53]]]))

    with pytest.raises(InvalidLoadError, match=r"at most 9007199254740992, got 9007199254740993"):
        ExpertLoad(torch.tensor([[[2**53 + 1]]]))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.ones(2, 3), "Expected samples of shape"),
        (torch.ones(0, 1, 1), r"Expected num_samples in \[1, 256\], got 0\."),
        (torch.ones(257, 1, 1), r"Expected num_samples in \[1, 256\], got 257\."),
        (torch.ones(1, 257, 1), r"Expected num_layers in \[1, 256\], got 257\."),
        (torch.ones(1, 1, 4097), r"Expected num_logical_experts in \[1, 4096\], got 4097\."),
        (torch.ones(1, 1, 1, dtype=torch.float16), r"got torch\.float16\.$"),
        (torch.ones(1, 1, 1, dtype=torch.bool), r"got torch\.bool\.$"),
    ],
)
def test_shape_and_dtype_are_checked(samples: torch.Tensor, message: str) -> None:
    """Dimensions out of bounds and other dtypes are refused by name and value."""
    with pytest.raises(InvalidLoadError, match=message):
        ExpertLoad(samples)


def test_a_weight_is_one_sample() -> None:
    """An aggregate [layers, experts] becomes a load of a single sample."""
    load = ExpertLoad.from_weight(torch.tensor([[1, 2, 3]]))

    assert load.num_samples == 1
    assert load.total().tolist() == [[1.0, 2.0, 3.0]]


def test_a_weight_has_two_dimensions() -> None:
    """Samples handed in as an aggregate are refused under the name they came by."""
    with pytest.raises(InvalidLoadError, match=r"got \[1, 2, 3\]\.$") as caught:
        ExpertLoad.from_weight(torch.ones(1, 2, 3))

    assert caught.value.field == "load.weight"


def test_loads_can_be_stacked() -> None:
    """Totals of both, layer after layer, exactly; there may be more than a load may have."""
    long = ExpertLoad(torch.full((3, 200, 2), 2**52, dtype=torch.int64))
    short = ExpertLoad(torch.tensor([[[1.5, 2.0]]]))

    stacked = ExpertLoad.stacked([long, short, long])

    assert stacked.samples.shape == (1, 401, 2)
    assert torch.equal(stacked.total(), torch.cat([each.total() for each in (long, short, long)]))


def test_to_the_same_device_is_free() -> None:
    """A load that is on the device already is returned as it is."""
    load = ExpertLoad(torch.ones(1, 1, 1))

    assert load.to("cpu") is load
