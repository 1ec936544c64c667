"""The search from a placement in force on CUDA: step by step what the host finds, no races."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from expertplane_planner.kernels import host_improve, improving
from expertplane_planner.kernels.host_tables import Bounds, Search

from ...support import reference_improve as reference
from ...support.triton_dry import run_uninterpreted
from ...support.triton_races import races
from .improve_case import Case, cases
from .legs import needs_triton
from .test_improve import even_cases


if TYPE_CHECKING:
    from torch import Tensor


pytestmark = needs_triton
interpreted = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled where a GPU is"
)
few = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])


def _on_triton(*tensors: Tensor, **options: Any) -> Search:
    from expertplane_planner.kernels import triton_improve

    with races():
        return triton_improve.improve_by_risk(*tensors, **options)


def _check_equal(found: Search, expected: Search) -> int:
    """Compare to the bit what means something, and return how many steps that are."""
    assert found.num_steps.tolist() == expected.num_steps.tolist()
    for row, count in enumerate(expected.num_steps.tolist()):
        for name in ("slots", "experts"):
            mine, theirs = getattr(found, name)[row, :count], getattr(expected, name)[row, :count]
            assert mine.tolist() == theirs.tolist(), (name, row)
        for name in ("peak", "moved"):
            mine, theirs = getattr(found, name)[row], getattr(expected, name)[row]
            assert mine[: count + 1].tolist() == theirs[: count + 1].tolist(), (name, row)
    return int(expected.num_steps.sum())


def _check(case: Case) -> int:
    return _check_equal(case.found(_on_triton), case.found())


def _layer(seed: int, shape: tuple[int, int, int], **changes: Any) -> Case:
    """Return a layer of (experts, ranks, slots per rank), its search free but for the changes."""
    num_experts, num_ranks, per_rank = shape
    rng = np.random.default_rng(seed)
    mean = changes.get("mean", rng.gamma(0.7, size=num_experts))
    factor = rng.normal(size=(num_experts, 3)) * 0.05 * changes.get("spread", 1.0)
    more = rng.integers(0, num_experts, num_ranks * per_rank - num_experts)
    row = changes.get("row", rng.permutation([*range(num_experts), *more.tolist()]).tolist())
    layer = reference.Layer(
        mean=list(mean),
        covariance=(factor @ factor.T).tolist(),
        slowness=changes.get("slowness", [1.0] * num_ranks),
        node=changes.get("node", [0] * num_ranks),
        home=changes.get("home", [-1] * num_experts),
        origin=changes.get("origin", row),
        risk=1.5,
    )
    bounds = reference.Bounds(
        max_moved=changes.get("max_moved", num_ranks * per_rank),
        max_count=changes.get("max_count", num_ranks),
        tolerance=1e-6,
        price=changes.get("price", 0.0),
    )
    return Case(layers=[layer], rows=[row], bounds=bounds, max_steps=changes.get("max_steps", 3))


@interpreted
def test_each_step_is_that_of_the_host() -> None:
    """On any small layers the steps, peaks and moved slots are the host's, to the bit."""

    @few
    @given(cases(), st.integers(0, 4))
    def check(case: Case, max_steps: int) -> None:
        layers, rows = case.layers[:2], case.rows[:2]
        _check(dataclasses.replace(case, layers=layers, rows=rows, max_steps=max_steps))

    check()


@interpreted
def test_ties_are_settled_as_on_the_host() -> None:
    """Where many moves gain alike, the one that the host looks at first is taken."""

    @few
    @given(even_cases())
    def check(case: Case) -> None:
        _check(case)

    check()


_SHAPE = (9, 4, 3)
_EVEN = [3.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0]
_MIXED = [5.0, 2.0, 6.0, 1.0, 4.0, 2.0, 9.0, 1.0, 3.0]
_TWICE = {"mean": _MIXED, "row": [2, 0, 6, 0, 0, 3, 4, 5, 2, 7, 8, 1]}  # 0, on one rank


@interpreted
@pytest.mark.parametrize(
    ("changes", "num_steps"),
    [
        ({}, 3),
        ({"mean": [0.0] * 9, "spread": 0.0}, 0),
        ({"mean": _EVEN, "spread": 0.0}, 2),
        (_TWICE, 3),
        ({**_TWICE, "origin": [-1] * 3 + [0, 0, 3, 4, 5, 2, 7, 8, 1]}, 3),
        ({**_TWICE, "origin": [2, 0, 3, 0, 0, 6, 7, 5, 2, 4, 8, 1], "max_moved": 0}, 1),
        ({"max_moved": 0}, 0),
        ({"max_moved": 1}, 1),
        ({"price": 0.05}, 3),
        ({"price": 9.0}, 0),
        ({"max_count": 1}, 3),
        ({"slowness": [0.5, 1.0, 1.5, 2.0]}, 3),
        ({**_TWICE, "node": [0, 0, 1, 1], "home": [0, 1, 0, 0, 1, 1, 0, 1, 1]}, 2),
        ({"max_steps": 0}, 0),
    ],
    ids=str,
)
def test_what_bounds_the_search_does_so_as_on_the_host(
    changes: dict[str, Any], num_steps: int
) -> None:
    """Ties, no load, budgets, prices, repeats, homes and slow ranks; steps as many as told."""
    assert _check(_layer(3, _SHAPE, **changes)) == num_steps


@interpreted
def test_what_the_others_have_to_carry_counts_as_if_nothing_came_to_their_relief() -> None:
    """Of two replacements that leave the same, the one that needs no relief is taken."""
    mean, row = [12.0, 21.0, 6.0, 3.0, 2.0, 1.0, 1.0, 3.0, 3.0], [0, 1, 0, 2, 2, 3, 4, 5, 4, 6]
    case = _layer(
        0,
        (9, 7, 2),
        mean=mean,
        spread=0.0,
        row=[*row, 1, 7, 1, 8],
        max_moved=1,
        max_count=3,
        max_steps=1,
    )

    assert _check(case) == 1
    assert case.found(_on_triton).slots.tolist() == [[[6, -1]]]


@interpreted
def test_what_looks_best_is_judged_by_all_ranks_before_it_is_taken() -> None:
    """Ranks 2 * (3 2.25 1.25) | 3 9.9 0 | 2.25 8 1 | 1 1 1 | 1 1 1: the second counts as well.

    A third replica of the 6 on the fourth rank brings the worst from 13 to 11, one of the 4.5 only
    to 11.5; but with the 6 the second rank keeps 11.9.
    """
    case = _layer(
        0,
        (12, 5, 3),
        mean=[6.0, 4.5, 1.25, 9.9, 0.0, 2.0, 8.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        spread=0.0,
        row=[0, 1, 2, 0, 3, 4, 1, 6, 7, 5, 8, 9, 5, 10, 11],
        slowness=[2.0, 1.0, 1.0, 1.0, 1.0],
        max_moved=1,
        max_count=3,
        max_steps=1,
    )

    assert _check(case) == 1
    found = case.found(_on_triton)
    assert (found.slots.tolist(), found.experts.tolist()) == ([[[9, -1]]], [[[1, -1]]])


@interpreted
def test_tables_that_are_worked_on_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tables wider than what fits at a time, and as many steps as there are, all is equal."""
    from expertplane_planner.kernels import triton_improve

    monkeypatch.setattr(triton_improve, "_NUM_TILE_VALUES", 16)

    assert _check(_layer(5, (13, 5, 4), max_steps=40)) > 6


@interpreted
def test_each_start_has_its_layer_and_its_bounds() -> None:
    """Two layers, five starts: each in its layer, with its limit and its price."""
    layers = [_layer(seed, _SHAPE).layers[0] for seed in (1, 2)]
    rows = torch.tensor([_layer(seed, _SHAPE).rows[0] for seed in (2, 1, 2, 2, 1)])
    tensors = (
        torch.tensor([layer.mean for layer in layers], dtype=torch.float64),
        torch.tensor([layer.covariance for layer in layers], dtype=torch.float32),
        torch.full((2, 9), -1),
        torch.ones(4, dtype=torch.float64),
        torch.zeros(4, dtype=torch.int64),
        rows,
        rows,
        torch.tensor([1, 0, 1, 1, 0]),
    )
    bounds = Bounds(np.array([12, 12, 1, 12, 0]), 4, 1e-6, np.array([0.0, 0.0, 0.0, 9.0, 0.0]))
    found, expected = (
        improve(*tensors, risk=1.5, max_steps=3, bounds=bounds)
        for improve in (_on_triton, host_improve.improve_by_risk)
    )

    _check_equal(found, expected)
    assert found.num_steps.tolist() == [3, 3, 1, 0, 0]


@interpreted
def test_triton_is_taken_where_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that Triton serves go there, layers that are too large for it go to the host."""
    from expertplane_planner.kernels import triton_improve

    monkeypatch.setattr(improving, "has_triton", lambda device: True)
    case = _layer(3, _SHAPE, max_steps=1)
    with races():  # a kernel runs
        found = case.found(improving.improve_by_risk)
    _check_equal(found, case.found())

    monkeypatch.setattr(triton_improve, "serves", lambda *sizes: False)
    with pytest.raises(AssertionError, match="no kernel ran"), races():
        case.found(improving.improve_by_risk)


_COMPILE = """
import json, numpy as np, torch
from expertplane_planner.kernels import triton_improve
from expertplane_planner.kernels.host_tables import Bounds
from tests.support.triton_dry import dry_launches

num_experts, num_ranks, per_rank = {sizes}
reals = lambda *shape: torch.zeros(shape, dtype=torch.float64)
whole = lambda *shape: torch.zeros(shape, dtype=torch.int64)
layers = reals(2, num_experts), torch.zeros(2, num_experts, num_experts, dtype={dtype})
with dry_launches() as launches:
    for num_starts, max_steps in ((3, 8), (1, 0), (2, 1)):
        held = whole(num_starts, num_ranks * per_rank)
        bounds = Bounds(np.zeros(num_starts, dtype=np.int64), 4, 1e-5, np.zeros(num_starts))
        triton_improve.improve_by_risk(
            *layers, whole(2, num_experts), reals(num_ranks), whole(num_ranks), held, held,
            whole(num_starts), risk=2.6, max_steps=max_steps, bounds=bounds,
        )
(cache,) = triton_improve.improve_kernel.device_caches.values()
for launch in launches:
    more = dict(ptx=None, contracts="fma." in launch.ptx, num_compiled=len(cache[0]))
    print(json.dumps(dict(vars(launch), **more)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's assembler is for Linux")
@pytest.mark.xdist_group("triton")
@pytest.mark.parametrize(
    ("sizes", "dtype", "num_stack_bytes"),
    [((256, 32, 9), "torch.float32", 512), ((1024, 32, 64), "torch.float64", 2048)],
)
def test_the_search_compiles_to_one_launch(
    sizes: tuple[int, ...], dtype: str, num_stack_bytes: int
) -> None:
    """A program a start, compiled once; nothing is contracted, little is spilled."""
    printed = run_uninterpreted(_COMPILE.format(sizes=sizes, dtype=dtype))
    launches = [json.loads(line) for line in printed.splitlines()]
    launch = launches[0]

    assert [each["grid"] for each in launches] == [[3, 1, 1], [1, 1, 1], [2, 1, 1]]
    assert launch["num_compiled"] == 1
    assert not launch["contracts"]
    assert launch["num_stack_bytes"] <= num_stack_bytes


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(256, 32, 9), (256, 8, 36), (128, 64, 3)], ids=str)
def test_a_gpu_finds_what_the_host_finds(shape: tuple[int, int, int]) -> None:
    """58 layers at full size: as good to within 1e-5, nearly all of them step by step the same."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    (num_experts, num_ranks, per_rank), num_layers = shape, 58
    generator = torch.Generator().manual_seed(7)
    skew = torch.randn(num_layers, num_experts, generator=generator, dtype=torch.float64)
    mean = skew.exp() / skew.exp().sum(dim=1, keepdim=True)
    factor = torch.randn(num_layers, num_experts, 9, generator=generator, dtype=torch.float64)
    factor = factor * mean.unsqueeze(2) * 0.3
    more = torch.randint(num_experts, (num_layers, num_ranks * per_rank - num_experts))
    rows = torch.cat([torch.arange(num_experts).expand(num_layers, -1), more], dim=1)
    tensors = (
        mean,
        (factor @ factor.transpose(1, 2)).to(torch.float32),
        torch.full((num_layers, num_experts), -1),
        torch.ones(num_ranks, dtype=torch.float64),
        torch.arange(num_ranks) // 8,
        rows,
        rows,
        torch.arange(num_layers),
    )
    bounds = Bounds(np.full(num_layers, rows.shape[1]), 8, 1e-5, np.zeros(num_layers))
    options: dict[str, Any] = {"risk": 2.6, "max_steps": 256, "bounds": bounds}
    found = improving.improve_by_risk(*(each.cuda() for each in tensors), **options)
    expected = host_improve.improve_by_risk(*tensors, **options)
    every = np.arange(num_layers)

    assert found.peak[every, found.num_steps] == pytest.approx(
        expected.peak[every, expected.num_steps], rel=1e-5
    )
    assert (found.num_steps == expected.num_steps).mean() > 0.9


@interpreted
@pytest.mark.parametrize("wrong", ["mean", "origin", "layer"])
def test_the_launcher_refuses_what_the_kernel_would_misread(wrong: str) -> None:
    """Pointers know neither dtype nor shape: the launcher looks at both."""
    case = _layer(0, (6, 3, 3))

    def spoiled(*tensors: Tensor, **options: Any) -> Search:
        names = ("mean", "covariance", "home", "slowness", "node", "phy2log", "origin", "layer")
        chosen = dict(zip(names, tensors, strict=True))
        chosen[wrong] = chosen[wrong].to(torch.int32)
        return _on_triton(*chosen.values(), **options)

    with pytest.raises(AssertionError, match=f"Expected {wrong} of"):
        case.found(spoiled)
