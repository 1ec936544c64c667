"""What a plan is worth, by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from expertplane_planner import Basis, BenefitTerms, InvalidInputError, NetBenefit


TERMS = BenefitTerms(
    horizon_s=100.0,
    moe_time_fraction=0.5,
    stall_fraction=0.25,
    safety=2.0,
    min_gain=0.01,
    bytes_per_expert=10,
)


def _benefit(before: float, after: float, migration_s: float = 0.0, **terms: Any) -> NetBenefit:
    return NetBenefit(
        maximum_before=before,
        maximum_after=after,
        moved_slots=3,
        migration_s=migration_s,
        basis=Basis.PREDICTED,
        terms=dataclasses.replace(TERMS, **terms),
    )


def test_every_term_by_hand() -> None:
    """From 20 to 15 is a quarter: 12.5 of 50 s; 8 s of migration stall 2 s, which count twice."""
    benefit = _benefit(20.0, 15.0, 8.0)

    assert benefit.gain == 0.25
    assert benefit.gain_s == 12.5
    assert benefit.cost_s == 2.0
    assert benefit.net_s == 8.5
    assert benefit.moved_bytes == 30
    assert benefit.is_worthwhile


@pytest.mark.parametrize(
    ("after", "migration_s", "min_gain", "is_worthwhile"),
    [
        (15.0, 0.0, 0.25, False),  # a quarter is not more than a quarter
        (15.0, 0.0, 0.24, True),
        (15.0, 24.0, 0.0, True),  # 12.5 s are gained, and 24 s of migration count 12 s
        (15.0, 25.0, 0.0, False),
        (20.0, 0.0, 0.0, False),
        (21.0, 0.0, 0.0, False),
    ],
)
def test_small_gains_are_not_worthwhile(
    after: float, migration_s: float, min_gain: float, is_worthwhile: bool
) -> None:
    """A plan has to gain more than the least gain, and more than it costs."""
    benefit = _benefit(20.0, after, migration_s, min_gain=min_gain)

    assert benefit.is_worthwhile is is_worthwhile


def test_without_load_there_is_nothing_to_gain() -> None:
    """No tokens, no gain, and no division by zero."""
    benefit = _benefit(0.0, 0.0, 1.0)

    assert (benefit.gain, benefit.gain_s) == (0.0, 0.0)
    assert benefit.net_s == -0.5
    assert not benefit.is_worthwhile


def test_a_plan_that_serves_no_time_is_not_worthwhile() -> None:
    """However much it gains."""
    assert not _benefit(20.0, 1.0, horizon_s=0.0).is_worthwhile
    assert not _benefit(20.0, 1.0, moe_time_fraction=0.0).is_worthwhile


def _changed(field: str, value: Any) -> BenefitTerms:
    return dataclasses.replace(TERMS, **{field: value})


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(BenefitTerms)][:-1])
@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, -math.inf, 1e400])
def test_a_bad_term_is_refused_by_name(field: str, value: float) -> None:
    """Terms are finite and not negative."""
    with pytest.raises(InvalidInputError, match=f"^Expected {field} to be a ") as caught:
        _changed(field, value)

    assert caught.value.field == f"terms.{field}"


@pytest.mark.parametrize("field", ["moe_time_fraction", "stall_fraction", "min_gain"])
def test_fractions_are_at_most_one(field: str) -> None:
    """A share of more than all is none."""
    with pytest.raises(InvalidInputError) as caught:
        _changed(field, 1.01)

    assert caught.value.field == f"terms.{field}"


def test_the_least_gain_is_below_one() -> None:
    """Its range is half open, as documented: nothing gains more than all."""
    with pytest.raises(InvalidInputError) as caught:
        dataclasses.replace(TERMS, min_gain=1.0)

    assert caught.value.field == "terms.min_gain"
