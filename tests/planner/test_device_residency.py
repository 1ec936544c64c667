"""Stages and policies stay on their device: nothing in them waits for a tensor's values."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import expertplane_planner
from expertplane_planner import ExpertLoad, Mode
from expertplane_planner.policies import PlacementRequest
from expertplane_planner.stages import pack_lpt, replicate_greedy

from ..support import builders
from .policies.table import ROWS, Row


ROUND_TRIPS = {"item", "tolist", "cpu", "numpy", "any", "all", "nonzero", "unique"}
CONVERSIONS = {"int", "float", "bool"}
PACKAGE = Path(expertplane_planner.__file__).parent
MODULES = sorted([*PACKAGE.glob("stages/**/*.py"), *PACKAGE.glob("policies/**/*.py")])


def _round_trips(source: str) -> list[str]:
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    methods = [call.attr for call in calls if isinstance(call, ast.Attribute)]
    functions = [call.id for call in calls if isinstance(call, ast.Name)]
    return [m for m in methods if m in ROUND_TRIPS] + [f for f in functions if f in CONVERSIONS]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_asks_a_tensor_for_its_values(module: Path) -> None:
    """No stage and no policy calls anything that copies values to the host."""
    assert _round_trips(module.read_text()) == []


def test_the_scan_sees_a_round_trip() -> None:
    """The scan itself finds a method, a chained call and a conversion."""
    assert _round_trips("a.item(); (b > 0).any(); int(c)") == ["item", "any", "int"]


def test_stages_run_without_values() -> None:
    """On tensors that have a shape but no values, both stages still work out their shapes."""
    weight = torch.empty(3, 12, device="meta")

    assert replicate_greedy(weight, 16).item.shape == (3, 16)
    assert pack_lpt(weight, 4).pack.shape == (3, 12)


@pytest.mark.parametrize("mode", [Mode.HIERARCHICAL, Mode.GLOBAL])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_policies_run_without_values(row: Row, mode: Mode) -> None:
    """On a load that has a shape but no values, every policy still works out its map's shape."""
    # Birth checks the values, so this load is put together around it.
    load = ExpertLoad.__new__(ExpertLoad)
    object.__setattr__(load, "samples", torch.empty(2, 3, 12, device="meta"))
    request = PlacementRequest(
        load=load,
        topology=builders.readme_topology(),
        num_expert_groups=builders.README_NUM_EXPERT_GROUPS,
        mode=mode,
        seed=0,
    )

    assert row.make().place(request).shape == (3, 16)
