"""Kernels, stages and policies stay on their device: nothing waits for a tensor's values."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings, strategies as st

import expertplane_planner
from expertplane_planner import ExpertLoad, Mode, Topology, kernels
from expertplane_planner.forecast import Prediction
from expertplane_planner.policies import PlacementRequest
from expertplane_planner.policies.robust import RobustParams, RobustPolicy
from expertplane_planner.stages import (
    Packing,
    inverse_permutation,
    keep_best,
    noisy_keys,
    pack_distinct,
    pack_load,
    pack_lpt,
    refine_gap,
    refine_half_gap,
    refine_peak,
    refine_squares,
    replicate_greedy,
    replicate_hybrid,
    spill_replicas,
)

from ..support import instances
from .policies.solving import place
from .policies.table import ROWS, Row


if TYPE_CHECKING:
    from ..support.instances import Instance


# Methods of tensors and functions of torch whose result depends on values that the host must see.
ROUND_TRIPS = {
    "item", "tolist", "cpu", "numpy", "any", "all", "nonzero", "argwhere", "unique",
    "unique_consecutive", "masked_select", "equal", "allclose", "is_nonzero", "bincount",
}  # fmt: skip
CONVERSIONS = {"int", "float", "bool", "any", "all"}
# What the host knows of a tensor without waiting for it.
KNOWN_ATTRIBUTES = {"shape", "dtype", "device"}
KNOWN_CALLS = {
    "is_floating_point", "is_contiguous", "dim", "size", "numel", "len", "isinstance",
    "_is_compiled",
}  # fmt: skip

PACKAGE = Path(expertplane_planner.__file__).parent
FOLDERS = ("kernels", "stages", "policies")
# The search from a placement in force has a host form only; compiling.py is what it runs on.
HOST_ONLY = {
    *(PACKAGE / "kernels" / name for name in ("numba_cpu.py", "numba_risk.py", "compiling.py")),
    *PACKAGE.glob("kernels/host_*.py"),
}
MODULES = sorted(
    {path for name in FOLDERS for path in PACKAGE.glob(f"{name}/**/*.py")} - HOST_ONLY
)


def _round_trips(source: str) -> list[str]:
    """Return what in a module would make the host wait, as far as its text tells."""
    tree = ast.parse(source)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    methods = [call.attr for call in calls if isinstance(call, ast.Attribute)]
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    looks = [look for function in defined for look in _looks_at_tensors(function)]
    return [method for method in methods if method in ROUND_TRIPS] + looks


def _looks_at_tensors(function: ast.FunctionDef) -> list[str]:
    """Return conditions on a tensor argument or what was made from one, and conversions of it."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    tensors = {
        argument.arg
        for argument in arguments
        if argument.annotation is not None and "Tensor" in ast.unparse(argument.annotation)
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _has_values(node.value, tensors):
            targets = [name for target in node.targets for name in ast.walk(target)]
            tensors |= {name.id for name in targets if isinstance(name, ast.Name)}
        if isinstance(node, ast.For) and _has_values(node.iter, tensors):
            tensors |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}
    looks: list[ast.expr] = []
    for node in ast.walk(function):
        match node:
            case ast.If() | ast.While() | ast.IfExp() | ast.Assert():
                looks.append(node.test)
            case ast.Call(func=ast.Name(id=name)) if name in CONVERSIONS:
                looks.extend(node.args)
    return [ast.unparse(look) for look in looks if _has_values(look, tensors)]


def _has_values(expression: ast.AST, tensors: set[str]) -> bool:
    """Return whether an expression uses a tensor for more than its shape or identity."""
    match expression:
        case ast.Attribute(attr=name) if name in KNOWN_ATTRIBUTES:
            return False
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in KNOWN_CALLS:
            return False
        case ast.Compare(ops=[ast.Is() | ast.IsNot()]):
            return False
        case ast.Name(id=name):
            return name in tensors
    return any(_has_values(child, tensors) for child in ast.iter_child_nodes(expression))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_asks_a_tensor_for_its_values(module: Path) -> None:
    """Only compiled kernels copy values to the host; no other module does, or branches on them."""
    assert _round_trips(module.read_text()) == []


def test_the_scan_covers_all_three_folders() -> None:
    """Kernels, stages and policies are among the modules, front doors included."""
    names = {str(path.relative_to(PACKAGE)) for path in MODULES}

    assert {f"{folder}/__init__.py" for folder in FOLDERS} <= names
    assert {"kernels/torch_ops.py", "stages/refine.py", "policies/pipeline.py"} <= names
    assert not names & {"kernels/numba_cpu.py", "kernels/host_moves.py"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("a.item(); (b > 0).any()", ["item", "any"]),
        ("torch.equal(a, b)", ["equal"]),
        ("def f(a: Tensor, n: int):\n return int(a[0]) + float(n) + int(a.shape[0])", ["a[0]"]),
        ("def f(a: Tensor):\n if a > 0: return 1", ["a > 0"]),
        ("def f(a: Tensor | None):\n b, c = a.max(dim=0)\n while b: pass", ["b"]),
        ("def f(a: Tensor):\n for b in a.unbind(1): x = 1 if b else 2", ["b"]),
        ("def f(a: Tensor):\n assert a.shape[0] % 2 == 0 and len(a) > 1", []),
        ("def f(a: Tensor | None, n: int):\n if a is None or n: return a", []),
    ],
)
def test_the_scan_sees_a_round_trip(source: str, found: list[str]) -> None:
    """The scan itself finds methods, functions, conversions and branches, and spares shapes."""
    assert _round_trips(source) == found


def _shape(*sizes: int) -> torch.Tensor:
    """Return a tensor that has a shape but no values."""
    return torch.empty(*sizes, device="meta")


def _ids(*sizes: int) -> torch.Tensor:
    return torch.empty(*sizes, dtype=torch.int64, device="meta")


def test_kernels_run_without_values() -> None:
    """The torch leg works out its shapes from shapes alone, through the front door."""
    granted = kernels.grant_replicas(_shape(3, 12), _ids(3, 12), 4, slope=2, max_count=3)
    packed = kernels.pack_distinct(_shape(3, 12), _ids(3, 12), 4, max_swaps=2, tolerance=0.1)

    assert [part.shape for part in granted] == [(3, 4), (3, 4), (3, 12)]
    assert packed.shape == (3, 12)


def test_replication_and_packing_run_without_values() -> None:
    """So do the stages that give out replicas and pack them."""
    weight = _shape(3, 12)
    packing = pack_lpt(weight, 4, order_by=_shape(3, 12))

    assert replicate_greedy(weight, 16).item.shape == (3, 16)
    assert replicate_hybrid(weight, 16).load(weight).shape == (3, 16)
    assert packing.pack.shape == pack_lpt(weight, 12).place.shape == (3, 12)
    assert pack_load(weight, packing, 4).shape == (3, 4)
    assert pack_distinct(weight, _ids(3, 12), 4, max_swaps=2, tolerance=0.1).pack.shape == (3, 12)
    assert inverse_permutation(packing.contents(4)).shape == (3, 12)


def test_searches_and_candidates_run_without_values() -> None:
    """So do the searches, and the choice among their results."""
    weight, packing = _shape(6, 12), Packing(_ids(6, 12), _ids(6, 12))
    half_gap = refine_half_gap(weight, packing, 4, num_steps=2, num_heaviest=3)

    assert half_gap.pack.shape == (6, 12)
    for refine in (refine_squares, refine_gap, refine_peak):
        assert refine(weight, packing, 4, num_steps=2).place.shape == (6, 12)
    assert keep_best(packing, _shape(6), 3).pack.shape == (2, 12)
    keys = noisy_keys(weight, num_candidates=3, seed=0, low=0.9, high=1.1)
    assert (keys.shape, keys.device.type) == ((18, 12), "meta")


def test_spill_runs_without_values() -> None:
    """So does spill, whose result is as large as there are slots, whatever the counts."""
    spilled = spill_replicas(
        _shape(3, 12), _ids(3, 12), num_nodes=2, num_slots=16, spill=2, max_copies=4
    )

    assert spilled.expert.shape == spilled.load.shape == (3, 2, 8)


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.AUTO])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_policies_run_without_values(row: Row, mode: Mode) -> None:
    """On a load that has a shape but no values, every policy still works out its map's shape."""
    # Birth checks the values, so this load is put together around it.
    load = ExpertLoad.__new__(ExpertLoad)
    object.__setattr__(load, "samples", _shape(2, 3, 12))
    request = PlacementRequest(
        load=load,
        topology=Topology(num_nodes=2, num_ranks=8, num_slots=16),
        num_expert_groups=4,
        mode=mode,
        spill=2 if mode is Mode.SOFT_HIERARCHICAL else 0,
        seed=0,
    )

    assert row.make().place(request).shape == (3, 16)


@pytest.mark.parametrize("name", sorted(instances.adversarial()))
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_policy_without_numba_gives_the_same_plan(
    row: Row, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The torch leg, which every device but the CPU takes, agrees with the compiled one."""
    instance = instances.adversarial()[name]
    compiled = place(row, instance)
    monkeypatch.setattr(kernels, "_HAS_NUMBA", False)

    assert place(row, instance).digest() == compiled.digest()


def test_the_legs_agree_on_any_small_instance() -> None:
    """The same holds for whatever hypothesis comes up with, for the policies with own kernels."""
    rows = [row for row in ROWS if row.name in ("balanced", "hybrid")]

    @settings(deadline=None, max_examples=25)
    @given(instances.instances(), st.sampled_from(rows))
    def check(instance: Instance, row: Row) -> None:
        compiled = place(row, instance)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "_HAS_NUMBA", False)
            assert place(row, instance).digest() == compiled.digest()

    check()


@pytest.mark.gpu
@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.AUTO])
@pytest.mark.parametrize("row", [row for row in ROWS if not row.is_random], ids=str)
def test_a_gpu_never_makes_the_host_wait(row: Row, mode: Mode) -> None:
    """With synchronising calls turned into errors, every policy that draws nothing still plans."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    weight = torch.arange(1, 37, device="cuda").view(3, 12)
    load = ExpertLoad.from_weight(weight)
    request = PlacementRequest(
        load=load,
        topology=Topology(num_nodes=2, num_ranks=8, num_slots=24),
        num_expert_groups=4,
        mode=mode,
        spill=2 if mode is Mode.SOFT_HIERARCHICAL else 0,
        seed=0,
        # Made and checked beforehand, which waits.
        prediction=Prediction.of_window(load.to("cpu")).to(weight.device),
    )
    # Left to itself, it tries more starts where there is room for them.
    policy = RobustPolicy(RobustParams(num_starts=1)) if row.name == "robust" else row.make()
    torch.cuda.set_sync_debug_mode("error")
    try:
        phy2log = policy.place(request)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert torch.equal(phy2log.cpu(), policy.place(_on_the_cpu(request)))


def _on_the_cpu(request: PlacementRequest) -> PlacementRequest:
    assert request.prediction is not None
    return dataclasses.replace(
        request, load=request.load.to("cpu"), prediction=request.prediction.to("cpu")
    )
