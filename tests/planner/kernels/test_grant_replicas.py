"""Replicas are granted as the obvious loop does it, on every leg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import kernels

from ...support import instances, reference
from .legs import LEGS, every_leg


if TYPE_CHECKING:
    from types import ModuleType


DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


def _rows(result: tuple[torch.Tensor, ...]) -> list[tuple[list[int], ...]]:
    parts = [part.tolist() for part in result]
    return list(zip(*parts, strict=True))


@every_leg
def test_each_replica_goes_to_the_largest_quotient(leg: ModuleType) -> None:
    """Loads 9, 4, 3: D'Hondt gives to 9, 9 / 2 and 4, Sainte-Lague to 9, 4 and 9 / 3."""
    weight, ones = torch.tensor([[9.0, 4.0, 3.0]]), torch.ones(1, 3, dtype=torch.int64)

    dhondt = leg.grant_replicas(weight, ones, 3, slope=1, max_count=6)
    sainte_lague = leg.grant_replicas(weight, ones, 3, slope=2, max_count=6)

    assert _rows(dhondt) == [([0, 0, 1], [1, 2, 1], [3, 2, 1])]
    assert _rows(sainte_lague) == [([0, 1, 0], [1, 1, 2], [3, 2, 1])]


@every_leg
def test_nobody_gets_more_than_the_bound(leg: ModuleType) -> None:
    """Loads 100, 1, 0 and at most 3 replicas: the rest goes to the light, even to the idle."""
    weight, ones = torch.tensor([[100.0, 1.0, 0.0]]), torch.ones(1, 3, dtype=torch.int64)

    granted = leg.grant_replicas(weight, ones, 6, slope=1, max_count=3)

    assert _rows(granted) == [([0, 0, 1, 1, 2, 2], [1, 2, 1, 2, 1, 2], [3, 3, 3])]


@every_leg
def test_nothing_to_give_away_changes_nothing(leg: ModuleType) -> None:
    """With no replica to give, nobody got one and the counts stay."""
    counts = torch.tensor([[2, 5]])

    granted = leg.grant_replicas(torch.tensor([[3.0, 1.0]]), counts, 0, slope=1, max_count=9)

    assert _rows(granted) == [([], [], [2, 5])]
    assert granted[0].shape == granted[1].shape == (1, 0)


@every_leg
def test_the_input_is_not_mutated(leg: ModuleType) -> None:
    """Weights and counts are the same after as before."""
    weight, counts = torch.tensor([[3.0, 1.0]]), torch.tensor([[1, 2]])

    leg.grant_replicas(weight, counts, 3, slope=2, max_count=9)

    assert (weight.tolist(), counts.tolist()) == ([[3.0, 1.0]], [[1, 2]])


def _assert_as_the_reference(
    weight: torch.Tensor, counts: torch.Tensor, num_more: int, **arguments: Any
) -> None:
    expected = [
        reference.grant_replicas(*row, num_more, **arguments, dtype=DTYPES[weight.dtype])
        for row in zip(weight.tolist(), counts.tolist(), strict=True)
    ]
    for leg in LEGS:
        assert expected == _rows(leg.grant_replicas(weight, counts, num_more, **arguments))


@settings(deadline=None, max_examples=60)
@given(
    st.data(),
    instances.rows(),
    st.integers(0, 20),
    st.sampled_from([1, 2]),
    st.sampled_from(list(DTYPES)),
)
def test_every_leg_equals_the_obvious_loop(
    data: st.DataObject, rows: list[list[float]], num_more: int, slope: int, dtype: torch.dtype
) -> None:
    """Whatever the weights, counts, bound, slope and type: the same replicas in the same order."""
    weight = torch.tensor(rows, dtype=dtype)
    counts = torch.tensor(
        [data.draw(st.lists(st.integers(1, 4), min_size=len(r), max_size=len(r))) for r in rows]
    )
    fewest = -(-(num_more + int(counts.sum(dim=1).max())) // weight.shape[1])
    max_count = max(4, fewest) + data.draw(st.sampled_from([0, 1, 100]))

    _assert_as_the_reference(weight, counts, num_more, slope=slope, max_count=max_count)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("slope", [1, 2])
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([[2.0**53, 2.0**53 - 1, 2.0**53 - 2]], id="huge"),
        pytest.param([[256 * 2.0**53, 1.0, 0.0]], id="as large as loads get"),
        pytest.param([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], id="nothing to do"),
        pytest.param([[6.0, 4.0, 2.0, 12.0]], id="ties between quotients"),
        pytest.param([[1 / 3, 2 / 3, 1.0]], id="ties by rounding"),
        pytest.param([[5e-324, 1e-300, 1e-40]], id="tiny"),
        pytest.param([[7.0]], id="one item"),
    ],
)
def test_extremes_equal_the_obvious_loop(
    rows: list[list[float]], slope: int, dtype: torch.dtype
) -> None:
    """Quotients round alike everywhere, at either end of the range and at ties."""
    weight = torch.tensor(rows, dtype=dtype)
    ones = torch.ones(weight.shape, dtype=torch.int64)

    _assert_as_the_reference(weight, ones, 40, slope=slope, max_count=41)


def test_the_front_door_takes_any_layout() -> None:
    """A transposed, strided and shared weight gives what its contiguous copy gives."""
    weight = torch.arange(12.0).reshape(4, 3).T[:, ::2]
    counts = torch.ones(1, 1, dtype=torch.int64).expand(3, 2)

    odd = kernels.grant_replicas(weight, counts, 3, slope=1, max_count=4)
    plain = kernels.grant_replicas(
        weight.contiguous(), counts.contiguous(), 3, slope=1, max_count=4
    )

    assert _rows(odd) == _rows(plain)
