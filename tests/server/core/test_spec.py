"""What an operator may ask for, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.spec import (
    DeploymentSpec,
    Mode,
    PolicyChoice,
    SampleParameters,
    TopologySpec,
    TriggerParameters,
    check_name,
)

from .. import builders


@pytest.mark.parametrize("name", ["a/b", "team-1/deepseek.v3", f"{'x' * 63}/{'y' * 63}"])
def test_good_name(name: str) -> None:
    """Two parts of 1 to 63 lower-case letters, digits, dots and hyphens make a name."""
    assert check_name(name, at="name") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "A/b",
        "a b/c",
        "a/b\n",
        f"{'x' * 64}/b",
        "a/\u00e4",
        "a/\u0663",
    ],
)
def test_bad_name(name: str) -> None:
    """Anything else is refused under the field that carried it."""
    with pytest.raises(InvalidArgumentError, match="Expected namespace/name") as refusal:
        check_name(name, at="hello.deployment")

    assert refusal.value.field == "hello.deployment"
    assert refusal.value.reason == "INVALID_NAME"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("topology.num_nodes", {"num_nodes": 0}),
        ("topology.ranks_per_node", {"ranks_per_node": 0}),
        ("topology.slots_per_rank", {"slots_per_rank": 0}),
        ("topology", {"num_nodes": 2, "ranks_per_node": 2049}),
        ("topology", {"ranks_per_node": 4096, "slots_per_rank": 17}),
    ],
)
def test_topology_rule(field: str, changes: dict[str, int]) -> None:
    """A topology has at least one of everything, 4096 ranks and 65536 slots at most."""
    with pytest.raises(InvalidArgumentError) as refusal:
        builders.topology(**changes)

    assert refusal.value.field == field


def test_largest_topology() -> None:
    """4096 ranks of 16 slots are allowed."""
    largest = TopologySpec(num_nodes=512, ranks_per_node=8, slots_per_rank=16)

    assert (largest.num_ranks, largest.num_slots) == (4096, 65536)


NAN = float("nan")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("trigger.window_samples", {"window_samples": 0}),
        ("trigger.window_samples", {"window_samples": 257}),
        ("trigger.min_samples", {"min_samples": 0}),
        ("trigger.min_samples", {"window_samples": 4, "min_samples": 5}),
        ("trigger.max_window_s", {"max_window_s": 0.5}),
        ("trigger.max_window_s", {"max_window_s": 86401.0}),
        ("trigger.max_window_s", {"max_window_s": NAN}),
        ("trigger.cooldown_s", {"cooldown_s": -1.0}),
        ("trigger.cooldown_s", {"cooldown_s": 86401.0}),
        ("trigger.cooldown_s", {"cooldown_s": NAN}),
        ("trigger.min_gain", {"min_gain": -0.1}),
        ("trigger.min_gain", {"min_gain": 1.0}),
        ("trigger.min_gain", {"min_gain": NAN}),
    ],
)
def test_trigger_rule(field: str, changes: dict[str, Any]) -> None:
    """Each trigger parameter has its bounds, and min_samples fits into the window."""
    with pytest.raises(InvalidArgumentError) as refusal:
        TriggerParameters(**changes)

    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("samples.deadline_s", {"deadline_s": 0.0}),
        ("samples.deadline_s", {"deadline_s": 3601.0}),
        ("samples.deadline_s", {"deadline_s": NAN}),
        ("samples.min_coverage", {"min_coverage": 0.0}),
        ("samples.min_coverage", {"min_coverage": 1.1}),
        ("samples.min_coverage", {"min_coverage": NAN}),
    ],
)
def test_sample_rule(field: str, changes: dict[str, float]) -> None:
    """Each sample parameter has its bounds."""
    with pytest.raises(InvalidArgumentError) as refusal:
        SampleParameters(**changes)

    assert refusal.value.field == field


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_policy_name_rule(name: str) -> None:
    """A policy's name has 1 to 64 characters."""
    with pytest.raises(InvalidArgumentError) as refusal:
        PolicyChoice(name=name)

    assert refusal.value.field == "policy.name"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("model_name", {"model_name": "m" * 257}),
        ("layer_ids", {"layer_ids": ()}),
        ("layer_ids", {"layer_ids": tuple(range(257))}),
        ("layer_ids", {"layer_ids": (4, 3)}),
        ("layer_ids", {"layer_ids": (3, 3)}),
        ("num_logical_experts", {"num_logical_experts": 0}),
        ("num_logical_experts", {"num_logical_experts": 4097}),
        ("topology", {"num_logical_experts": 5}),
        ("num_expert_groups", {"num_expert_groups": 0}),
        ("num_expert_groups", {"num_expert_groups": 3}),
        (
            "policy.mode",
            {
                "topology": builders.topology(num_nodes=2, ranks_per_node=1),
                "policy": PolicyChoice(mode=Mode.HIERARCHICAL),
            },
        ),
    ],
)
def test_deployment_rule(field: str, changes: dict[str, Any]) -> None:
    """Layers ascend, experts fit into the slots, groups divide the experts."""
    with pytest.raises(InvalidArgumentError) as refusal:
        builders.spec(**changes)

    assert refusal.value.field == field


def test_message_tells_expectation_first() -> None:
    """The refusal spells the rule out, then the values."""
    with pytest.raises(InvalidArgumentError) as refusal:
        builders.spec(num_logical_experts=5)

    expected = "Expected at least as many slots as logical experts, got 4 slots and 5 experts."
    assert refusal.value.message == expected


def test_message_of_long_input_is_short() -> None:
    """A refusal names one offending pair of a long list, since it travels in a header."""
    with pytest.raises(InvalidArgumentError) as refusal:
        DeploymentSpec(
            layer_ids=tuple(range(2**32 - 1, 2**32 - 257, -1)),
            num_logical_experts=4,
            topology=builders.topology(),
        )

    assert refusal.value.message == "Expected ascending ids, got 4294967294 after 4294967295."


def test_plan_that_would_take_too_long() -> None:
    """Slots over all layers are bounded: packing takes time in proportion to them."""
    most = limits.MAX_CELLS // 65536
    large = TopologySpec(num_nodes=512, ranks_per_node=8, slots_per_rank=16)
    builders.spec(layer_ids=tuple(range(most)), topology=large)

    with pytest.raises(InvalidArgumentError) as refusal:
        builders.spec(layer_ids=tuple(range(most + 1)), topology=large)
    assert refusal.value.field == "topology"


def test_window_that_would_not_fit_into_memory() -> None:
    """Counts of a window are bounded: 256 samples of 32 layers of 4096 experts are the most."""
    large: dict[str, Any] = {
        "num_logical_experts": 4096,
        "topology": builders.topology(slots_per_rank=2048),
        "window_samples": 256,
    }
    builders.spec(layer_ids=tuple(range(32)), **large)

    with pytest.raises(InvalidArgumentError) as refusal:
        builders.spec(layer_ids=tuple(range(33)), **large)
    assert refusal.value.field == "trigger.window_samples"
