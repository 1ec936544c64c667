from __future__ import annotations

import numpy as np
import pytest

from expertplane_planner import InvalidInputError
from expertplane_planner.traces import RecordedTrace


RECORDED = np.array([[400.0, 300.0, 200.0, 100.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])


def test_samples_scatter_around_the_recording() -> None:
    """On average an expert keeps its recorded share, sample by sample it does not."""
    trace = RecordedTrace(RECORDED, seed=0, num_requests=64, tokens_per_sample=10_000, top_k=1)

    window = next(trace.windows(400))

    mean_share = window.mean(axis=0) / 10_000
    assert mean_share[0] == pytest.approx([0.4, 0.3, 0.2, 0.1], rel=0.05)
    assert mean_share[2] == pytest.approx([0.25] * 4, rel=0.05)
    assert window[:, 0, 3].std() / window[:, 0, 3].mean() > 0.08


def test_rows_without_load_stay_zero() -> None:
    """A dense layer of the recording stays dense, the others see every token."""
    window = next(RecordedTrace(RECORDED, seed=0, tokens_per_sample=100, top_k=2).windows(3))

    assert window.dtype == np.int64
    assert (window.sum(axis=-1) == [200, 0, 200]).all()
    assert (window[:, 1] == 0).all()


def test_the_seed_decides() -> None:
    """One seed gives one trace, another seed another."""
    one, same, other = (
        RecordedTrace(RECORDED, seed, top_k=2).next_sample() for seed in (1, 1, 2)
    )  # fmt: skip

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_recording_is_not_mutated() -> None:
    """The array handed in is the same after drawing as before."""
    recorded = RECORDED.copy()

    RecordedTrace(recorded, seed=0, top_k=2).next_sample()

    assert np.array_equal(RECORDED, recorded)


@pytest.mark.parametrize(
    ("weight", "arguments", "field", "message"),
    [
        (np.ones(3), {}, "weight", r"Expected weight of shape .*, got \[3\]\."),
        ([[1.0, np.nan]], {}, "weight", r"non-negative token counts, got nan at \[0, 1\]\."),
        ([[1.0, -2.0]], {}, "weight", r"non-negative token counts, got -2\.0 at \[0, 1\]\."),
        (RECORDED, {"top_k": 5}, "top_k", r"Expected top_k in \[1, 4\], got 5\."),
        ([[1.0, 0.0]], {"top_k": 2}, "weight", r"at least top_k = 2 .*, got 1 in layer 0\."),
        (RECORDED, {"num_requests": 0}, "num_requests", "to be positive, got 0"),
        (RECORDED, {"request_cv": 9.0}, "request_cv", r"in \[0\.01, 3\.0\], got 9\.0"),
        (RECORDED, {"seed": -1}, "seed", r"to be non-negative, got -1"),
    ],
)
def test_arguments_out_of_range_are_named(
    weight: object, arguments: dict[str, float], field: str, message: str
) -> None:
    """What cannot be drawn from is refused with the offending parameter and value."""
    usual: dict[str, float] = {"seed": 0, "top_k": 1}

    with pytest.raises(InvalidInputError, match=message) as caught:
        RecordedTrace(weight, **(usual | arguments))  # type: ignore[arg-type]  # wrong on purpose

    assert caught.value.field == field
