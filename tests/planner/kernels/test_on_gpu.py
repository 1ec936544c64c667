"""On a CUDA device: the plans of the CPU, at full size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from expertplane_planner import ExpertLoad, Mode, Plan, Topology, get_policy, kernels, solve
from expertplane_planner.forecast import Prediction


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Where nothing else is said a GPU may try more starts than a CPU.
ONE_START = {"num_starts": "1"}
SHAPES = {
    "deepseek": (58, 256, Topology(num_nodes=4, num_ranks=32, num_slots=288)),
    "kimi": (60, 384, Topology(num_nodes=8, num_ranks=64, num_slots=448)),
    "wide": (4, 1024, Topology(num_nodes=32, num_ranks=256, num_slots=2048)),
    "deep": (4, 1024, Topology(num_nodes=4, num_ranks=32, num_slots=2048)),
    "beyond": (2, 1280, Topology(num_nodes=4, num_ranks=32, num_slots=1408)),
}


def _load(num_layers: int, num_experts: int, num_samples: int = 16) -> ExpertLoad:
    generator = torch.Generator().manual_seed(num_experts)
    shape = (num_samples, num_layers, num_experts)
    samples = torch.rand(shape, generator=generator) ** 4 * 4000
    return ExpertLoad(samples.to(torch.int64))


def _solved(shape: str, device: str, policy: str, params: dict[str, str], **options: Any) -> Plan:
    num_layers, num_experts, topology = SHAPES[shape]
    return solve(
        _load(num_layers, num_experts),
        topology,
        policy=get_policy(policy, params),
        device=device,
        **options,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_balanced_plans_the_same(shape: str) -> None:
    """To the bit, slot by slot."""
    options: dict[str, Any] = {"mode": Mode.GLOBAL}
    on_gpu, on_cpu = (
        _solved(shape, device, "balanced", {}, **options) for device in ("cuda", "cpu")
    )

    assert torch.equal(on_gpu.placement.phy2log.cpu(), on_cpu.placement.phy2log)


@pytest.mark.parametrize("mode", [Mode.HIERARCHICAL, Mode.SOFT_HIERARCHICAL])
@pytest.mark.parametrize("policy", ["balanced", "robust"])
def test_modes_by_node_plan_the_same(policy: str, mode: Mode) -> None:
    """Groups on nodes, replicas inside nodes, foreign ones where they are allowed."""
    options: dict[str, Any] = {
        "mode": mode,
        "num_expert_groups": 8,
        "spill": 8 if mode is Mode.SOFT_HIERARCHICAL else 0,
    }
    params = ONE_START if policy == "robust" else {}
    # Sums over samples differ in the last digits from device to device.
    prediction = Prediction.of_window(_load(*SHAPES["deepseek"][:2]))
    on_gpu, on_cpu = (
        _solved("deepseek", device, policy, params, prediction=prediction, **options)
        for device in ("cuda", "cpu")
    )

    _assert_as_good(on_gpu, on_cpu, options["mode"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_starts", ["1", "4"])
def test_robust_plans_as_well(shape: str, num_starts: str) -> None:
    """On one prediction, the objective is the same within 1e-5."""
    num_layers, num_experts, _ = SHAPES[shape]
    prediction = Prediction.of_window(_load(num_layers, num_experts))
    params = {"num_starts": num_starts}
    on_gpu, on_cpu = (
        _solved(shape, device, "robust", params, mode=Mode.GLOBAL, prediction=prediction)
        for device in ("cuda", "cpu")
    )

    _assert_as_good(on_gpu, on_cpu, Mode.GLOBAL, prediction)


def _assert_as_good(
    on_gpu: Plan, on_cpu: Plan, mode: Mode, prediction: Prediction | None = None
) -> None:
    if torch.equal(on_gpu.placement.phy2log.cpu(), on_cpu.placement.phy2log):
        return
    found, expected = on_gpu.balance.balancedness, on_cpu.balance.balancedness
    if prediction is not None:
        found, expected = (_peaks(plan, prediction) for plan in (on_gpu, on_cpu))
    assert found == pytest.approx(expected, rel=1e-5), mode


def _peaks(plan: Plan, prediction: Prediction) -> float:
    from expertplane_planner.migration.search import Terrain

    terrain = Terrain.of(prediction, plan.placement.topology, None)
    return float(terrain.peaks(plan.placement.phy2log.cpu(), 2.6).sum())


def test_triton_serves_a_gpu() -> None:
    """Where there is a CUDA device and Triton, kernels are launched by it."""
    assert kernels.fuses(torch.device("cuda"), 256, 288, 32)
