"""A recording with more samples than somebody can take."""

from __future__ import annotations

import numpy as np
import pytest

from expertplane_client.errors import FormatError
from expertplane_client.formats import Recording


def recording(samples: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Recording:
    """Returns a recording of one layer of two experts."""
    return Recording(samples=samples, layer_ids=(3,), source="the test", notes=("First.",))


def test_neighbours_are_summed() -> None:
    """Five samples become two: the first three in one, the last two in the other."""
    samples = np.array([[[1, 2**53]], [[2, 1]], [[4, 0]], [[8, 0]], [[16, 2**53 + 1]]])
    whole = recording(samples)
    found = whole.at_most(2)

    assert found.samples.tolist() == [[[7, 2**53 + 1]], [[24, 2**53 + 1]]]
    assert found.samples.dtype == np.int64
    assert (found.layer_ids, found.source, found.num_rows) == ((3,), "the test", None)
    assert found.notes[0] == "First."
    assert "5 samples" in found.notes[1]


@pytest.mark.parametrize("num_samples", [5, 6])
def test_few_samples_are_left_alone(num_samples: int) -> None:
    """There is nothing to sum and nothing to tell."""
    whole = recording(np.ones((5, 1, 2), dtype=np.int64))

    assert whole.at_most(num_samples) is whole


def test_a_sum_that_does_not_fit_is_refused() -> None:
    """Tokens never wrap around to negative ones."""
    whole = recording(np.full((3, 1, 2), 2**62))

    with pytest.raises(FormatError, match="2\\^63 tokens"):
        whole.at_most(1)
