"""What an operator may ask for, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from expertplane_planner import BenefitTerms, ForecastParams
from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.parameters import (
    ForecastParameters,
    MigrationParameters,
    PlacementRules,
    SampleParameters,
    TriggerParameters,
)
from expertplane_server.core.spec import (
    DeploymentSpec,
    Mode,
    PolicyChoice,
    TopologySpec,
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


def test_masked_ranks_are_left_out() -> None:
    """Of two nodes of three ranks the first keeps one, of capacity 3, and the second all."""
    topology = builders.topology(
        num_nodes=2,
        ranks_per_node=3,
        masked_ranks=(0, 2),
        rank_capacities=(1.0, 3.0, 2.0, 3.0, 3.0, 3.0),
    )

    assert (topology.num_ranks, topology.num_slots) == (6, 12)
    assert topology.active_ranks == (1, 3, 4, 5)
    assert (topology.num_active_ranks, topology.num_active_slots) == (4, 8)
    assert topology.active_per_node == (1, 3)
    assert topology.has_equal_capacities
    assert not builders.topology(rank_capacities=(1.0, 2.0)).has_equal_capacities


@pytest.mark.parametrize(
    ("field", "changes", "message"),
    [
        ("masked_ranks", {"masked_ranks": (2,)}, "Expected ranks from 0 to 1, got 2."),
        ("masked_ranks", {"masked_ranks": (1, 0)}, "Expected ascending ranks, got 0 after 1."),
        (
            "masked_ranks",
            {"masked_ranks": (0, 1)},
            "Expected a rank that is not masked, got none.",
        ),
        (
            "rank_capacities",
            {"rank_capacities": (1.0,)},
            "Expected a capacity for each of 2 ranks, got 1.",
        ),
        (
            "rank_capacities",
            {"rank_capacities": (1.0, 0.0)},
            "Expected capacities from 1e-06 to 1e+06, got 0.0.",
        ),
        (
            "rank_capacities",
            {"rank_capacities": (float("nan"), 1.0)},
            "Expected capacities from 1e-06 to 1e+06, got nan.",
        ),
    ],
)
def test_ranks_rule(field: str, changes: dict[str, Any], message: str) -> None:
    """Masked ranks exist, ascend and leave one; every rank has a capacity, or none has."""
    with pytest.raises(InvalidArgumentError) as refusal:
        builders.topology(**changes)

    assert (refusal.value.field, refusal.value.message) == (f"topology.{field}", message)


@pytest.mark.parametrize(
    ("masked_ranks", "field"),
    [((0,), "topology.masked_ranks"), ((0, 1), "policy.mode"), ((0, 3), None)],
    ids=["uneven nodes", "one node of two groups", "even nodes"],
)
def test_groups_stay_on_the_nodes_that_are_left(
    masked_ranks: tuple[int, ...], field: str | None
) -> None:
    """Three nodes of two ranks and three groups: nodes lose equally many ranks, or all."""
    wanted: dict[str, Any] = {
        "num_logical_experts": 6,
        "num_expert_groups": 2 if masked_ranks == (0, 3) else 3,
        "policy": PolicyChoice(mode=Mode.HIERARCHICAL),
        "topology": builders.topology(
            num_nodes=2 if masked_ranks == (0, 3) else 3,
            slots_per_rank=6,
            masked_ranks=masked_ranks,
        ),
    }
    if field is None:
        assert builders.spec(**wanted).topology.active_per_node == (1, 1)
        return
    with pytest.raises(InvalidArgumentError) as refusal:
        builders.spec(**wanted)
    assert refusal.value.field == field


def test_largest_topology() -> None:
    """4096 ranks of 16 slots are allowed."""
    largest = TopologySpec(num_nodes=512, ranks_per_node=8, slots_per_rank=16)

    assert (largest.num_ranks, largest.num_slots) == (4096, 65536)


@pytest.mark.parametrize(
    ("rules", "changes"),
    [
        ({"max_replicas": 1}, {}),
        ({"max_replicas": 2}, {"topology": builders.topology(slots_per_rank=5)}),
        ({"forbids_duplicates": True}, {"topology": builders.topology(slots_per_rank=5)}),
        ({"forbids_duplicates": True}, {"num_expert_groups": 2}),
        (
            {"forbids_duplicates": True},
            {
                "num_expert_groups": 2,
                "policy": PolicyChoice(mode=Mode.SOFT_HIERARCHICAL, spill=3),
            },
        ),
    ],
    ids=["1 replica", "2 replicas", "1 node", "by node", "spill"],
)
def test_rules_that_no_placement_can_keep(rules: dict[str, Any], changes: dict[str, Any]) -> None:
    """Rules are refused at once when the experts cannot fill the slots under them."""
    topology = builders.topology(num_nodes=2, slots_per_rank=3)
    wanted: dict[str, Any] = {"topology": topology, **changes}
    with pytest.raises(InvalidArgumentError) as refusal:
        builders.spec(rules=PlacementRules(**rules), **wanted)
    (name,) = rules
    wire_name = {"max_replicas": "max_replicas_per_expert"}.get(name, "forbid_duplicates_on_rank")

    assert refusal.value.field == f"engine.{wire_name}"
    assert builders.spec(**wanted).rules == PlacementRules()


@pytest.mark.parametrize(
    ("rules", "changes"),
    [
        ({"max_replicas": 3}, {}),
        ({"max_replicas": 2}, {"topology": builders.topology(slots_per_rank=4)}),
        ({"forbids_duplicates": True}, {}),
        (
            {"forbids_duplicates": True},
            {"num_expert_groups": 2, "policy": PolicyChoice(mode=Mode.GLOBAL)},
        ),
        (
            {"forbids_duplicates": True},
            {
                "num_expert_groups": 2,
                "policy": PolicyChoice(mode=Mode.SOFT_HIERARCHICAL, spill=4),
            },
        ),
        (
            {"forbids_duplicates": True, "max_replicas": 2},
            {"topology": builders.topology(num_nodes=2, slots_per_rank=4, masked_ranks=(1, 3))},
        ),
    ],
    ids=["3 replicas", "2 replicas", "1 group", "global", "spill", "masked"],
)
def test_rules_that_just_fit(rules: dict[str, Any], changes: dict[str, Any]) -> None:
    """Rules are accepted as long as there is a way to keep them."""
    topology = builders.topology(num_nodes=2, slots_per_rank=3)
    wanted: dict[str, Any] = {"topology": topology, **changes}

    assert builders.spec(rules=PlacementRules(**rules), **wanted).rules == PlacementRules(**rules)


def test_defaults_are_the_library_s() -> None:
    """What goes to the planning library has its defaults there, but for the size of an expert."""
    terms, trigger, migration = BenefitTerms(), TriggerParameters(), MigrationParameters()
    for name in ("horizon_s", "moe_time_fraction", "stall_fraction", "safety", "min_gain"):
        assert getattr(trigger, name) == getattr(terms, name)
    assert migration.intra_node_bytes_per_s == terms.link_speed.same_node_bytes_per_s
    assert migration.inter_node_bytes_per_s == terms.link_speed.cross_node_bytes_per_s
    assert migration.bytes_per_expert == 0
    library, ours = ForecastParams(), ForecastParameters()
    assert ours.recent_windows == library.recent_windows
    assert ours.half_life_windows == library.half_life_windows


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
        ("trigger.horizon_s", {"horizon_s": 0.0}),
        ("trigger.moe_time_fraction", {"moe_time_fraction": 0.0}),
        ("trigger.moe_time_fraction", {"moe_time_fraction": 1.1}),
        ("trigger.stall_fraction", {"stall_fraction": NAN}),
        ("trigger.safety", {"safety": -1.0}),
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
