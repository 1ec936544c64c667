from __future__ import annotations

import dataclasses
from typing import cast

import pytest
import torch

from expertplane_planner import (
    ExpertLoad,
    InvalidInputError,
    Mode,
    UnknownPolicyError,
    report,
    solve,
    warm_up,
)
from expertplane_planner.policies import PlacementRequest
from expertplane_planner.policies.deepseek import DeepSeekPolicy

from ..support import builders


def test_a_plan_says_where_it_came_from() -> None:
    """Policy, parameters, resolved mode, seed, time and balance are in the plan."""
    plan = builders.plan(seed=7)

    assert (plan.policy, plan.policy_params, plan.seed) == ("deepseek", {}, 7)
    assert plan.mode is Mode.HIERARCHICAL
    assert plan.seconds > 0
    assert plan.balance == report(plan.placement, builders.readme_load())
    assert plan.digest == plan.placement.digest()


def test_a_policy_can_be_handed_in() -> None:
    """A policy object does what its name does."""
    by_object = solve(builders.load(), builders.topology(), policy=DeepSeekPolicy())

    assert by_object.digest == solve(builders.load(), builders.topology()).digest


def test_a_device_can_be_named() -> None:
    """The placement lies on the device that was asked for."""
    plan = solve(builders.load(), builders.topology(), device="cpu")

    assert plan.placement.phy2log.device == torch.device("cpu")


@pytest.mark.gpu
def test_a_gpu_gives_the_same_plan() -> None:
    """On a CUDA device the maps are those of the CPU, and stay there."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    topology = builders.readme_topology()
    for mode in (Mode.HIERARCHICAL, Mode.GLOBAL):
        on_gpu = solve(
            builders.readme_load(), topology, num_expert_groups=4, mode=mode, device="cuda"
        )

        assert on_gpu.placement.phy2log.is_cuda
        assert on_gpu.digest == builders.plan(mode=mode).digest


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    """An unknown or absent device is an input error, not a failure deep inside torch."""
    with pytest.raises(InvalidInputError, match=f"can use here, got '{device}'") as caught:
        solve(builders.load(), builders.topology(), device=device)

    assert caught.value.field == "device"


def test_layers_without_load_are_planned() -> None:
    """An empty layer gets a complete placement like any other."""
    plan = solve(builders.load((5, 3, 1), (0, 0, 0)), builders.topology())

    assert set(plan.placement.phy2log[1].tolist()) == {0, 1, 2}
    assert plan.balance.per_layer[1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "field", "message"),
    [
        pytest.param(
            {"topology": builders.topology(num_slots=2)},
            "topology.num_slots",
            "Expected a slot for every logical expert, got 2 slots and 4 experts.",
            id="too few slots",
        ),
        pytest.param(
            {"num_expert_groups": 3},
            "num_expert_groups",
            "Expected num_logical_experts to be a multiple of num_expert_groups, got 4 and 3.",
            id="groups do not divide",
        ),
        pytest.param(
            {"num_expert_groups": 0},
            "num_expert_groups",
            "Expected num_expert_groups to be positive, got 0.",
            id="no group",
        ),
        pytest.param(
            {"seed": -1}, "seed", "Expected seed in [0, 2^63), got -1.", id="negative seed"
        ),
        pytest.param(
            {"mode": "sideways"},
            "mode",
            "Expected mode to be one of auto, hierarchical, global, got 'sideways'.",
            id="unknown mode",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    arguments: dict[str, object], field: str, message: str
) -> None:
    """What cannot be planned is refused with the offending parameter and both values."""
    usual: dict[str, object] = {"load": builders.load(), "topology": builders.topology()}

    with pytest.raises(InvalidInputError) as caught:
        solve(**(usual | arguments))  # type: ignore[arg-type]  # one of them is wrong on purpose

    assert str(caught.value) == message
    assert caught.value.field == field


def test_an_unknown_policy_is_refused() -> None:
    """A policy name that nobody registered is an error of its own."""
    with pytest.raises(UnknownPolicyError):
        solve(builders.load(), builders.topology(), policy="magic")


def test_a_request_is_checked_by_itself() -> None:
    """A request with an unresolved mode cannot be made: a policy never sees 'auto'."""
    request = PlacementRequest(
        load=builders.load(),
        topology=builders.topology(),
        num_expert_groups=1,
        mode=Mode.GLOBAL,
        seed=0,
    )

    with pytest.raises(InvalidInputError, match=r"Expected a resolved mode, got 'auto'\."):
        dataclasses.replace(request, mode=Mode.AUTO)


def test_the_name_of_a_mode_is_not_taken_for_global() -> None:
    """The string 'hierarchical' plans hierarchically."""
    plan = builders.plan(mode=cast("Mode", "hierarchical"))

    assert plan.mode is Mode.HIERARCHICAL
    assert plan.digest == builders.plan(mode=Mode.HIERARCHICAL).digest


def test_warm_up_needs_no_input() -> None:
    """A process can pay first-call costs before the first load arrives."""
    warm_up()


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.float32, torch.float64])
def test_the_dtype_of_a_load_does_not_matter(dtype: torch.dtype) -> None:
    """The same counts in another dtype give the same plan."""
    samples = builders.readme_load().samples.to(dtype)

    plan = solve(ExpertLoad(samples), builders.readme_topology(), num_expert_groups=4)

    assert plan.digest == builders.plan().digest
