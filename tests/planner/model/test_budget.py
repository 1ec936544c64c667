"""Budgets are checked, and bytes become slots."""

from __future__ import annotations

from typing import Any

import pytest

from expertplane_planner import InvalidInputError, MoveBudget


@pytest.mark.parametrize("name", ["slots_per_layer", "total_slots"])
def test_a_negative_limit_is_refused_by_name(name: str) -> None:
    """A limit of 0 is one, -1 is not."""
    limit: dict[str, Any] = {name: 0}
    assert getattr(MoveBudget(**limit), name) == 0
    expected = f"^Expected {name} to be a whole number from 0, got -1"
    with pytest.raises(InvalidInputError, match=expected) as caught:
        MoveBudget(**{name: -1})

    assert caught.value.field == f"budget.{name}"


@pytest.mark.parametrize("name", ["slots_per_layer", "total_slots"])
@pytest.mark.parametrize("value", [1.5, float("nan"), True])
def test_a_limit_is_a_whole_number(name: str, value: Any) -> None:
    """What is no whole number is refused by name."""
    with pytest.raises(InvalidInputError) as caught:
        MoveBudget(**{name: value})

    assert caught.value.field == f"budget.{name}"


@pytest.mark.parametrize(
    ("total_bytes", "slots"), [(0, 0), (99, 0), (100, 1), (199, 1), (10**15, 10**13)]
)
def test_bytes_buy_whole_experts(total_bytes: int, slots: int) -> None:
    """At 100 bytes an expert, 199 bytes are one slot."""
    budget = MoveBudget.of_bytes(total_bytes, 100, slots_per_layer=7)

    assert budget == MoveBudget(slots_per_layer=7, total_slots=slots)


@pytest.mark.parametrize(
    ("total_bytes", "bytes_per_expert", "field"),
    [(-1, 1, "total_bytes"), (1, 0, "bytes_per_expert"), (1, -5, "bytes_per_expert")],
)
def test_bad_sizes_are_refused_by_name(
    total_bytes: int, bytes_per_expert: int, field: str
) -> None:
    """Nothing weighs nothing here, and no budget is negative."""
    with pytest.raises(InvalidInputError) as caught:
        MoveBudget.of_bytes(total_bytes, bytes_per_expert)

    assert caught.value.field == f"budget.{field}"
