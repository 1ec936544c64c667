"""Deployment specs on the wire and back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, strategies as st

from expertplane.v1 import deployment_pb2 as pb
from expertplane_server.core.errors import InvalidArgumentError, ServiceError
from expertplane_server.core.parameters import (
    ForecastParameters,
    MigrationParameters,
    PlacementRules,
    RolloutParameters,
    SampleParameters,
    TriggerParameters,
)
from expertplane_server.core.spec import (
    DeploymentSpec,
    Mode,
    PolicyChoice,
    RolloutMode,
    TopologySpec,
)
from expertplane_server.rpc.convert.specs import spec_from, spec_to

from .. import builders
from . import messages


POLICIES = ("robust", "other")


def _rules() -> st.SearchStrategy[PlacementRules]:
    return st.builds(
        PlacementRules,
        forbids_duplicates=st.booleans(),
        forbids_moves_inside_rank=st.booleans(),
        max_replicas=st.integers(0, 65536),
    )


@st.composite
def _triggers(draw: st.DrawFn) -> TriggerParameters:
    window_samples = draw(st.integers(1, 256))
    return TriggerParameters(
        window_samples=window_samples,
        min_samples=draw(st.integers(1, window_samples)),
        max_window_s=draw(st.floats(1, 86400)),
        cooldown_s=draw(st.floats(0, 86400)),
        min_gain=draw(st.floats(0, 1, exclude_max=True)),
        horizon_s=draw(st.floats(0, 1e9, exclude_min=True)),
        moe_time_fraction=draw(st.floats(0, 1, exclude_min=True)),
        stall_fraction=draw(st.floats(0, 1)),
        safety=draw(st.floats(0, 1e9)),
    )


def _policy_parameters() -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=64)
    drawn = st.dictionaries(text, text, max_size=4)
    return drawn.map(lambda parameters: tuple(sorted(parameters.items())))


def _capacities(num_ranks: int) -> st.SearchStrategy[tuple[float, ...]]:
    capacities = st.lists(st.floats(1e-6, 1e6), min_size=num_ranks, max_size=num_ranks)
    return st.just(()) | capacities.map(tuple)


@st.composite
def specs(draw: st.DrawFn) -> DeploymentSpec:
    """Draw any valid spec."""
    num_nodes = draw(st.integers(1, 3))
    groups = num_nodes * draw(st.integers(1, 3))
    experts = groups * draw(st.integers(1, 4))
    ranks_per_node = draw(st.integers(1, 4))
    mode = draw(st.sampled_from(Mode))
    num_ranks = num_nodes * ranks_per_node
    # Where groups have to divide over the nodes, none is lost.
    is_free = mode in (Mode.AUTO, Mode.GLOBAL)
    num_left = draw(st.integers(1, num_ranks)) if is_free else num_ranks
    fewest = -(-experts // num_left)
    spec = DeploymentSpec(
        layer_ids=tuple(sorted(draw(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=9)))),
        num_logical_experts=experts,
        num_expert_groups=groups,
        topology=TopologySpec(
            num_nodes=num_nodes,
            ranks_per_node=ranks_per_node,
            slots_per_rank=draw(st.integers(fewest, fewest + 3)),
            masked_ranks=tuple(range(num_left, num_ranks)),
            rank_capacities=draw(_capacities(num_ranks)),
        ),
        model_name=draw(st.text(st.characters(codec="utf-8"), max_size=20)),
        policy=PolicyChoice(
            name=draw(st.sampled_from(POLICIES)),
            mode=mode,
            seed=draw(st.integers(0, 2**63 - 1)),
            spill=draw(st.integers(0, 99 * (mode is Mode.SOFT_HIERARCHICAL))),
            parameters=draw(_policy_parameters()),
            max_moved_slots=draw(st.none() | st.integers(0, 65536)),
        ),
        forecast=ForecastParameters(
            recent_windows=draw(st.integers(1, 16)),
            half_life_windows=draw(st.floats(1, 10**6)),
        ),
        migration=MigrationParameters(
            bytes_per_expert=draw(st.integers(0, 2**40)),
            intra_node_bytes_per_s=draw(st.floats(1, 1e18)),
            inter_node_bytes_per_s=draw(st.floats(1, 1e18)),
        ),
        trigger=draw(_triggers()),
        samples=SampleParameters(
            deadline_s=draw(st.floats(0.1, 3600)),
            min_coverage=draw(st.floats(0, 1, exclude_min=True)),
        ),
        rollout_mode=draw(st.sampled_from(RolloutMode)),
        rollout=RolloutParameters(
            stage_deadline_s=draw(st.floats(1, 86400)),
            regression_tolerance=draw(st.floats(0, 1e9)),
            hold_down_s=draw(st.floats(0, 10 * 86400)),
        ),
    )
    engine = draw(st.sampled_from(["", "vllm", "sglang", "tensorrt_llm", "vllm_ascend"]))
    try:
        return replace(spec, engine=engine, rules=draw(_rules()))
    except InvalidArgumentError:
        return spec  # no placement could keep these rules


@given(specs())
def test_round_trip(wanted: DeploymentSpec) -> None:
    """A spec that is written and read is the same."""
    assert spec_from(spec_to(wanted), POLICIES) == wanted


def test_defaults() -> None:
    """What is absent takes the documented default."""
    read = spec_from(messages.spec(trigger=None), POLICIES)

    assert read.num_expert_groups == 1
    assert (read.engine, read.rollout_mode) == ("", RolloutMode.ADVISORY)
    assert read.policy == PolicyChoice(
        name="robust", mode=Mode.AUTO, seed=0, spill=0, parameters=(), max_moved_slots=None
    )
    assert read.trigger == TriggerParameters(
        window_samples=16,
        max_window_s=600,
        min_samples=1,
        cooldown_s=0,
        min_gain=0.01,
        horizon_s=300,
        moe_time_fraction=0.5,
        stall_fraction=0.1,
        safety=2,
    )
    assert read.forecast == ForecastParameters(recent_windows=1, half_life_windows=100)
    assert read.migration == MigrationParameters(
        bytes_per_expert=0, intra_node_bytes_per_s=450e9, inter_node_bytes_per_s=50e9
    )
    assert read.rules == PlacementRules(
        forbids_duplicates=False, forbids_moves_inside_rank=False, max_replicas=0
    )
    assert read.samples == SampleParameters(deadline_s=10, min_coverage=0.75)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("spec.layer_ids", {"layer_ids": []}),
        ("spec.layer_ids", {"layer_ids": [1] * 300}),
        ("spec.layer_ids", {"layer_ids": [2, 1]}),
        ("spec.num_logical_experts", {"num_logical_experts": 0}),
        ("spec.num_expert_groups", {"num_expert_groups": 3}),
        ("spec.model_name", {"model_name": "m" * 257}),
        ("spec.topology.num_nodes", {"topology": None}),
        ("spec.topology.slots_per_rank", {"topology": messages.topology(slots_per_rank=0)}),
        ("spec.topology", {"topology": messages.topology(ranks_per_node=2**32 - 1)}),
        ("spec.topology", {"num_logical_experts": 5}),
        ("spec.engine.engine", {"engine": pb.EngineProfile(engine=77)}),  # type: ignore[arg-type]
        ("spec.policy.name", {"policy": pb.PolicySpec(name="magic")}),
        ("spec.policy.seed", {"policy": pb.PolicySpec(seed=2**63)}),
        ("spec.policy.mode", {"policy": pb.PolicySpec(mode=9)}),  # type: ignore[arg-type]
        (
            "spec.policy.max_foreign_replicas",
            {"policy": pb.PolicySpec(mode=pb.MODE_HIERARCHICAL, max_foreign_replicas=1)},
        ),
        (
            "spec.policy.max_foreign_replicas",
            {"policy": pb.PolicySpec(mode=pb.MODE_SOFT_HIERARCHICAL, max_foreign_replicas=2**20)},
        ),
        (
            "spec.policy.max_moved_slots_per_layer",
            {"policy": pb.PolicySpec(max_moved_slots_per_layer=65537)},
        ),
        (
            "spec.policy.parameters",
            {"policy": pb.PolicySpec(parameters={str(number): "1" for number in range(33)})},
        ),
        ("spec.policy.parameters", {"policy": pb.PolicySpec(parameters={"": "1"})}),
        ("spec.policy.parameters", {"policy": pb.PolicySpec(parameters={"a" * 65: "1"})}),
        ("spec.policy.parameters.z", {"policy": pb.PolicySpec(parameters={"z": "1" * 257})}),
        (
            "spec.engine.max_replicas_per_expert",
            {"engine": pb.EngineProfile(max_replicas_per_expert=65537)},
        ),
        ("spec.trigger.horizon_s", {"trigger": pb.TriggerParameters(horizon_s=-1)}),
        ("spec.trigger.horizon_s", {"trigger": pb.TriggerParameters(horizon_s=float("inf"))}),
        ("spec.trigger.moe_time_fraction", {"trigger": pb.TriggerParameters(moe_time_fraction=2)}),
        ("spec.trigger.stall_fraction", {"trigger": pb.TriggerParameters(stall_fraction=-0.1)}),
        ("spec.trigger.safety", {"trigger": pb.TriggerParameters(safety=float("nan"))}),
        ("spec.forecast.recent_windows", {"forecast": pb.ForecastParameters(recent_windows=0)}),
        ("spec.forecast.recent_windows", {"forecast": pb.ForecastParameters(recent_windows=17)}),
        (
            "spec.forecast.half_life_windows",
            {"forecast": pb.ForecastParameters(half_life_windows=float("nan"))},
        ),
        (
            "spec.migration.bytes_per_expert",
            {"migration": pb.MigrationParameters(bytes_per_expert=2**40 + 1)},
        ),
        (
            "spec.migration.inter_node_bytes_per_s",
            {"migration": pb.MigrationParameters(inter_node_bytes_per_s=0)},
        ),
        ("spec.rollout.mode", {"rollout": pb.RolloutParameters(mode=-1)}),  # type: ignore[arg-type]
        ("spec.rollout.stage_deadline_s", {"rollout": pb.RolloutParameters(stage_deadline_s=0)}),
        (
            "spec.rollout.regression_tolerance",
            {"rollout": pb.RolloutParameters(regression_tolerance=float("nan"))},
        ),
        ("spec.rollout.hold_down_s", {"rollout": pb.RolloutParameters(hold_down_s=-1)}),
        ("spec.trigger.window_samples", {"trigger": pb.TriggerParameters(window_samples=0)}),
        (
            "spec.trigger.min_samples",
            {"trigger": pb.TriggerParameters(window_samples=2, min_samples=3)},
        ),
        ("spec.trigger.max_window_s", {"trigger": pb.TriggerParameters(max_window_s=0)}),
        (
            "spec.trigger.max_window_s",
            {"trigger": pb.TriggerParameters(max_window_s=float("nan"))},
        ),
        ("spec.trigger.cooldown_s", {"trigger": pb.TriggerParameters(cooldown_s=float("inf"))}),
        ("spec.trigger.min_gain", {"trigger": pb.TriggerParameters(min_gain=1)}),
        ("spec.samples.deadline_s", {"samples": pb.SampleParameters(deadline_s=float("nan"))}),
        ("spec.samples.min_coverage", {"samples": pb.SampleParameters(min_coverage=0)}),
        ("spec.topology.masked_ranks", {"topology": messages.topology(masked_ranks=[2])}),
        ("spec.topology.masked_ranks", {"topology": messages.topology(masked_ranks=[0] * 4097)}),
        ("spec.topology.rank_capacities", {"topology": messages.topology(rank_capacities=[1.0])}),
    ],
)
def test_refused(field: str, changes: dict[str, Any]) -> None:
    """A field that breaks its rule is refused under its path in the request."""
    with pytest.raises(InvalidArgumentError) as refusal:
        spec_from(messages.spec(**changes), POLICIES)

    assert refusal.value.field == field
    assert refusal.value.message.startswith("Expected ")


def test_every_field_is_served() -> None:
    """No field of a spec is passed over in silence: all are read back."""
    # Zero and empty are left out on the wire, so that every field gets another value.
    policy = PolicyChoice(
        mode=Mode.SOFT_HIERARCHICAL,
        seed=1,
        spill=1,
        parameters=(("z", "1"),),
        max_moved_slots=1,
    )
    wanted = builders.spec(
        topology=builders.topology(
            slots_per_rank=4, masked_ranks=(1,), rank_capacities=(1.0, 2.0)
        ),
        engine="vllm",
        model_name="m",
        policy=policy,
        rules=PlacementRules(
            forbids_duplicates=True, forbids_moves_inside_rank=True, max_replicas=1
        ),
        migration=MigrationParameters(bytes_per_expert=1),
    )
    read = spec_from(spec_to(wanted), POLICIES)
    known = _paths(spec_to(read), "spec.")

    fields = _field_paths(pb.DeploymentSpec.DESCRIPTOR, "spec.")
    assert not {f for f in fields if not any(f == k or f.startswith(k + ".") for k in known)}


def test_rules_that_no_placement_can_keep() -> None:
    """A deployment whose every window would fail is refused under the field at fault."""
    engine, topology = (
        pb.EngineProfile(max_replicas_per_expert=1),
        messages.topology(slots_per_rank=3),
    )
    with pytest.raises(InvalidArgumentError) as refusal:
        spec_from(messages.spec(engine=engine, topology=topology), POLICIES)

    assert refusal.value.field == "spec.engine.max_replicas_per_expert"


def test_rules_of_an_engine() -> None:
    """vLLM-Ascend brings rules of its own, which are not told as the operator's."""
    plain, ascend = (
        spec_from(messages.spec(engine=pb.EngineProfile(engine=engine)), POLICIES)
        for engine in (pb.ENGINE_VLLM, pb.ENGINE_VLLM_ASCEND)
    )

    assert plain.engine_rules == PlacementRules()
    assert ascend.engine_rules == PlacementRules(
        forbids_duplicates=True, forbids_moves_inside_rank=True
    )
    assert not spec_to(ascend).engine.forbid_duplicates_on_rank


@given(raw=st.binary(max_size=200))
def test_any_message(raw: bytes) -> None:
    """Whatever parses is read, or refused as a service error; nothing else is raised."""
    message = pb.DeploymentSpec()
    with suppress(DecodeError, ServiceError):
        message.MergeFromString(raw)
        spec_from(message, POLICIES)


def _paths(message: Any, prefix: str) -> set[str]:
    """Return the paths of the fields that a message sets."""
    found = set()
    for field, value in message.ListFields():
        if field.message_type is not None and not field.is_repeated:
            found |= _paths(value, f"{prefix}{field.name}.")
        else:
            found.add(prefix + field.name)
    return found


def _field_paths(descriptor: Any, prefix: str) -> set[str]:
    """Return the paths of all leaves of a message type."""
    found = set()
    for field in descriptor.fields:
        if field.message_type is not None and not field.is_repeated:
            found |= _field_paths(field.message_type, f"{prefix}{field.name}.")
        else:
            found.add(prefix + field.name)
    return found
