from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from expertplane_planner.traces import PRESETS
from expertplane_planner.traces.profiles import cap_shares, draw_profiles


def test_the_hottest_expert_is_capped_and_the_others_keep_their_ratios() -> None:
    """Shares 8 : 1 : 1 with top-2 routing become one half and two quarters."""
    assert cap_shares(np.array([8.0, 1.0, 1.0]), 2).tolist() == pytest.approx([0.5, 0.25, 0.25])


def test_capping_one_can_push_another_over_the_cap() -> None:
    """Shares 90 : 45 : 10 : 5 with top-2: both hot ones reach one half, nothing is left."""
    assert cap_shares(np.array([90.0, 9.0, 0.9, 0.1]), 2).tolist() == pytest.approx(
        [0.5, 0.45, 0.045, 0.005]
    )
    assert cap_shares(np.array([1e9, 1e9, 1.0, 0.0]), 2).tolist() == pytest.approx(
        [0.5, 0.5, 0.0, 0.0], abs=1e-8
    )


def test_top_k_of_all_is_uniform() -> None:
    """Where every token goes to every expert, all shares are equal."""
    assert cap_shares(np.array([5.0, 2.0, 1.0]), 3).tolist() == pytest.approx([1 / 3] * 3)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12), st.data())
def test_shares_are_shares(weights: list[float], data: st.DataObject) -> None:
    """Shares sum to 1, stay under the cap and keep the order of the weights."""
    top_k = data.draw(st.integers(1, len(weights)))

    share = cap_shares(np.array(weights), top_k)

    assert share.sum() == pytest.approx(1.0)
    assert share.max() <= 1 / top_k + 1e-12
    order = np.argsort(weights)
    assert (np.diff(share[order]) >= -1e-12).all()


def test_a_few_experts_are_cold_in_every_domain() -> None:
    """With a flat body and one expert in four a factor e colder, just those stand out, always."""
    config = dataclasses.replace(
        PRESETS["glm52"], domain_sds=(0.0, 0.0), base_sd=0.0, cold_fraction=0.25, cold_shift=1.0
    )

    first, second = draw_profiles(config, np.random.default_rng(0))

    ratio = first.max(axis=-1, keepdims=True) / first
    assert set(np.unique(ratio.round(6)).tolist()) == {1.0, round(np.e, 6)}
    assert np.mean(ratio > 2) == pytest.approx(0.25, abs=0.02)
    assert np.array_equal(first, second)


def test_layers_differ_in_skew_and_not_alike_in_every_domain() -> None:
    """The log spread of a layer varies by layer_sd, independently from domain to domain."""
    config = dataclasses.replace(
        PRESETS["glm52"],
        num_layers=256,
        domain_sds=(0.3, 0.3),
        base_sd=0.0,
        cold_fraction=0.0,
        layer_sd=0.4,
    )

    log_spread = np.log(np.log(draw_profiles(config, np.random.default_rng(0))).std(axis=-1))

    assert log_spread.std(axis=-1) == pytest.approx([0.4, 0.4], rel=0.15)
    assert abs(np.corrcoef(log_spread)[0, 1]) < 0.2


def test_the_top_k_cap_holds_in_profiles() -> None:
    """No profile gives an expert more than one in eight picks, and some reach that bound."""
    profiles = draw_profiles(PRESETS["glm52"], np.random.default_rng(0))

    assert profiles.shape == (10, 75, 256)
    assert profiles.sum(axis=-1) == pytest.approx(1.0)
    assert profiles.max() <= 1 / 8 + 1e-12
