from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from expertplane_planner import InvalidInputError
from expertplane_planner.traces import PRESETS, TraceConfig


SMALL = TraceConfig(num_layers=2, num_logical_experts=8, top_k=2)


@pytest.mark.parametrize(("name", "num_layers"), [("dsv3", 58), ("glm52", 75)])
def test_presets_have_the_shape_of_their_model(name: str, num_layers: int) -> None:
    """Both models route every token to 8 of 256 experts in each MoE layer."""
    preset = PRESETS[name]

    assert (preset.num_layers, preset.num_logical_experts, preset.top_k) == (num_layers, 256, 8)
    assert preset.num_domains == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, r"Expected num_layers in \[1, 256\], got 0\."),
        ({"top_k": 9}, r"Expected top_k in \[1, 8\], got 9\."),
        ({"mix_rho": 1.0}, r"Expected mix_rho below 1, got 1\.0\."),
        ({"tail_dof": 2.0}, r"Expected tail_dof above 2, got 2\.0\."),
        ({"request_cv": 0.0}, r"Expected request_cv in \[0\.01, 3\.0\], got 0\.0\."),
        ({"mix_sd": float("nan")}, r"Expected mix_sd in \[0\.0, 10\.0\], got nan\."),
        ({"domain_sds": ()}, r"Expected at least one domain, .*got \(\)\."),
        ({"domain_sds": (-1.0,)}, r"spreads in \[0, 10\], got \(-1\.0,\)\."),
        ({"num_expert_groups": 3}, r"multiple of num_expert_groups, got 8 and 3\."),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, Any], message: str) -> None:
    """A setting that leaves its range is refused under its own name."""
    with pytest.raises(InvalidInputError, match=message) as caught:
        dataclasses.replace(SMALL, **change)

    assert caught.value.field == f"trace.{next(iter(change))}"
