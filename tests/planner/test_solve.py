from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest
import torch

from expertplane_planner import (
    ExpertLoad,
    InvalidInputError,
    InvalidPlacementError,
    Mode,
    Plan,
    UnknownPolicyError,
    report,
    solve,
    warm_up,
)
from expertplane_planner.policies import PlacementRequest
from expertplane_planner.policies.balanced import BalancedParams, BalancedPolicy
from expertplane_planner.policies.deepseek import DeepSeekParams, DeepSeekPolicy

from ..support import builders


def test_a_plan_says_where_it_came_from() -> None:
    """Policy, parameters, resolved mode, seed, time and balance are in the plan."""
    plan = builders.plan(seed=7)

    assert (plan.policy, plan.policy_params, plan.seed) == ("deepseek", {}, 7)
    assert plan.mode is Mode.HIERARCHICAL
    assert (plan.spill, plan.foreign_replicas) == (0, (0, 0))
    assert plan.seconds > 0
    assert plan.balance == report(plan.placement, builders.readme_load())
    assert plan.digest == plan.placement.digest()


def test_the_parameters_of_a_policy_are_in_the_plan() -> None:
    """Each by its name, as the policy had them."""
    policy = BalancedPolicy(BalancedParams(max_swaps=3, tolerance=0.5))

    plan = solve(builders.load(), builders.topology(), policy=policy)

    assert (plan.policy, plan.policy_params) == ("balanced", {"max_swaps": 3, "tolerance": 0.5})


def test_a_soft_plan_says_how_many_replicas_it_has_spilled() -> None:
    """Loads 8 4 | 2 1 in three slots a node send one half of 8 over, of four that might go."""
    plan = solve(
        builders.load((8, 4, 2, 1)),
        builders.topology(num_nodes=2, num_ranks=2, num_slots=6),
        num_expert_groups=2,
        mode=Mode.SOFT_HIERARCHICAL,
        policy="balanced",
        spill=4,
    )

    assert (plan.mode, plan.spill, plan.foreign_replicas) == (Mode.SOFT_HIERARCHICAL, 4, (1,))


def test_a_global_plan_knows_no_foreign_replicas() -> None:
    """Where experts have no home, nothing is said about replicas away from it."""
    assert builders.plan(mode=Mode.GLOBAL).foreign_replicas is None


def test_a_policy_can_be_handed_in() -> None:
    """A policy object does what its name does."""
    by_object = solve(builders.load(), builders.topology(), policy=DeepSeekPolicy())

    by_name = solve(builders.load(), builders.topology(), policy="deepseek")

    assert by_object.digest == by_name.digest


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
            "Expected mode to be one of auto, hierarchical, global, soft-hierarchical, "
            "got 'sideways'.",
            id="unknown mode",
        ),
        pytest.param(
            {"mode": Mode.SOFT_HIERARCHICAL, "spill": -1},
            "spill",
            "Expected spill of at least 0, got -1.",
            id="negative spill",
        ),
        pytest.param(
            {"mode": Mode.HIERARCHICAL, "spill": 2},
            "spill",
            "Expected spill in soft-hierarchical mode only, got 2 in hierarchical mode.",
            id="spill in hierarchical mode",
        ),
        pytest.param(
            {"spill": 2},
            "spill",
            "Expected spill in soft-hierarchical mode only, got 2 in global mode.",
            id="spill where automatic mode turns out global",
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

    plan = solve(
        ExpertLoad(samples), builders.readme_topology(), num_expert_groups=4, policy="deepseek"
    )

    assert plan.digest == builders.plan().digest


@dataclasses.dataclass(frozen=True)
class _FixedPolicy:
    """Answers with a map made beforehand, whatever it is asked."""

    phy2log: torch.Tensor
    params: DeepSeekParams = dataclasses.field(default_factory=DeepSeekParams)
    name: str = "fixed"

    def place(self, request: PlacementRequest) -> torch.Tensor:
        return self.phy2log


# Two nodes of three slots, expert groups {0, 1} and {2, 3}: at home; 0 abroad; group 0 split.
AT_HOME = [0, 0, 1, 2, 2, 3]
ONE_ABROAD = [0, 1, 1, 0, 2, 3]
SPLIT = [0, 0, 2, 1, 2, 3]


def _solve_fixed(*layers: list[int], **arguments: Any) -> Plan:
    return solve(
        builders.load(*[(1, 1, 1, 1)] * len(layers)),
        builders.topology(num_nodes=2, num_ranks=2, num_slots=6),
        num_expert_groups=2,
        policy=_FixedPolicy(torch.tensor(layers)),
        **arguments,
    )


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        pytest.param(
            ONE_ABROAD,
            {"mode": Mode.HIERARCHICAL},
            "Expected at most 0 foreign replicas per layer, got 1 in layer 1.",
            id="a replica abroad",
        ),
        pytest.param(
            ONE_ABROAD,
            {"mode": Mode.SOFT_HIERARCHICAL},
            "Expected at most 0 foreign replicas per layer, got 1 in layer 1.",
            id="a replica abroad without spill",
        ),
        pytest.param(
            SPLIT,
            {"mode": Mode.SOFT_HIERARCHICAL, "spill": 6},
            "Expected a node with a replica of every expert of each group, "
            "got none for expert group 0 in layer 1.",
            id="a group without a home",
        ),
    ],
)
def test_a_policy_that_breaks_home_rules_is_found_out(
    layer: list[int], arguments: dict[str, Any], message: str
) -> None:
    """The facade refuses what a policy must not answer, naming the layer."""
    with pytest.raises(InvalidPlacementError) as caught:
        _solve_fixed(AT_HOME, layer, **arguments)

    assert str(caught.value) == message
    assert caught.value.field == "placement.phy2log"


def test_a_policy_within_its_spill_is_believed() -> None:
    """One foreign replica where one is allowed, and a split group where groups do not matter."""
    soft = _solve_fixed(AT_HOME, ONE_ABROAD, mode=Mode.SOFT_HIERARCHICAL, spill=1)
    everywhere = _solve_fixed(SPLIT, mode=Mode.GLOBAL)

    assert soft.foreign_replicas == (0, 1)
    assert everywhere.placement.phy2log.tolist() == [SPLIT]
