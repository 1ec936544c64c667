"""Deployment specs and their parts, both ways."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from expertplane.v1 import deployment_pb2 as pb
from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError, UnservedError
from expertplane_server.core.parameters import (
    ForecastParameters,
    MigrationParameters,
    PlacementRules,
    RolloutParameters,
    SampleParameters,
    TriggerParameters,
)
from expertplane_server.core.spec import (
    VLLM_ASCEND,
    DeploymentSpec,
    Mode,
    PolicyChoice,
    RolloutMode,
    TopologySpec,
)
from expertplane_server.rpc.convert.fields import enum_member, finite


if TYPE_CHECKING:
    from collections.abc import Collection

    from google.protobuf.message import Message

MODES = {
    pb.MODE_UNSPECIFIED: Mode.AUTO,
    pb.MODE_AUTO: Mode.AUTO,
    pb.MODE_HIERARCHICAL: Mode.HIERARCHICAL,
    pb.MODE_GLOBAL: Mode.GLOBAL,
    pb.MODE_SOFT_HIERARCHICAL: Mode.SOFT_HIERARCHICAL,
}
MODES_OUT = {
    Mode.AUTO: pb.MODE_AUTO,
    Mode.HIERARCHICAL: pb.MODE_HIERARCHICAL,
    Mode.GLOBAL: pb.MODE_GLOBAL,
    Mode.SOFT_HIERARCHICAL: pb.MODE_SOFT_HIERARCHICAL,
}
_ROLLOUTS = {
    pb.ROLLOUT_MODE_UNSPECIFIED: RolloutMode.ADVISORY,
    pb.ROLLOUT_MODE_SHADOW: RolloutMode.SHADOW,
    pb.ROLLOUT_MODE_ADVISORY: RolloutMode.ADVISORY,
    pb.ROLLOUT_MODE_COORDINATED: RolloutMode.COORDINATED,
}
_ROLLOUTS_OUT = {
    RolloutMode.SHADOW: pb.ROLLOUT_MODE_SHADOW,
    RolloutMode.ADVISORY: pb.ROLLOUT_MODE_ADVISORY,
    RolloutMode.COORDINATED: pb.ROLLOUT_MODE_COORDINATED,
}
_ENGINES = {
    pb.ENGINE_UNSPECIFIED: "",
    pb.ENGINE_VLLM: "vllm",
    pb.ENGINE_SGLANG: "sglang",
    pb.ENGINE_TENSORRT_LLM: "tensorrt_llm",
    pb.ENGINE_VLLM_ASCEND: VLLM_ASCEND,
}
_ENGINES_OUT = {name: number for number, name in _ENGINES.items()}


def topology_from(message: pb.Topology, at: str = "topology") -> TopologySpec:
    """Reads a topology.

    Raises:
        InvalidArgumentError: it breaks a rule.
    """
    for name in ("masked_ranks", "rank_capacities"):
        num_entries = len(getattr(message, name))
        if num_entries > limits.MAX_RANKS:
            raise InvalidArgumentError(
                f"Expected at most {limits.MAX_RANKS} entries, got {num_entries}.",
                field=f"{at}.{name}",
            )
    return TopologySpec(
        num_nodes=message.num_nodes,
        ranks_per_node=message.ranks_per_node,
        slots_per_rank=message.slots_per_rank,
        masked_ranks=tuple(message.masked_ranks),
        rank_capacities=tuple(message.rank_capacities),
    )


def policy_from(message: pb.PolicySpec, policies: Collection[str]) -> PolicyChoice:
    """Reads a policy.

    Raises:
        InvalidArgumentError: there is no policy of this name, or a number leaves its range.
    """
    name = message.name or PolicyChoice().name
    if name not in policies:
        raise InvalidArgumentError(
            f"Expected one of {', '.join(sorted(policies))}, got {name[:80]!r}.",
            field="policy.name",
            reason="UNKNOWN_POLICY",
        )
    # Before they are sorted: a message has room for millions.
    if len(message.parameters) > limits.MAX_POLICY_PARAMETERS:
        raise InvalidArgumentError(
            f"Expected at most {limits.MAX_POLICY_PARAMETERS} parameters, "
            f"got {len(message.parameters)}.",
            field="policy.parameters",
        )
    if message.seed >= 2**63:
        raise InvalidArgumentError(
            f"Expected a seed below 2^63, got {message.seed}.", field="policy.seed"
        )
    mode = enum_member(message.mode, pb.Mode, MODES, "policy.mode")
    has_budget = message.HasField("max_moved_slots_per_layer")
    return PolicyChoice(
        name=name,
        mode=mode,
        seed=message.seed,
        spill=message.max_foreign_replicas,
        parameters=tuple(sorted(message.parameters.items())),
        max_moved_slots=message.max_moved_slots_per_layer if has_budget else None,
    )


def engine_from(message: pb.EngineProfile) -> tuple[str, PlacementRules]:
    """Reads an engine profile: the engine's name, empty when none is given, and its rules.

    Raises:
        InvalidArgumentError: there is no such engine, or a number leaves its range.
    """
    return (
        enum_member(message.engine, pb.Engine, _ENGINES, "engine.engine"),
        PlacementRules(
            forbids_duplicates=message.forbid_duplicates_on_rank,
            forbids_moves_inside_rank=message.forbid_moves_inside_rank,
            max_replicas=message.max_replicas_per_expert,
        ),
    )


def spec_from(message: pb.DeploymentSpec, policies: Collection[str]) -> DeploymentSpec:
    """Reads a spec; fields that are absent take their defaults.

    Raises:
        InvalidArgumentError: it breaks a rule.
        UnservedError: it asks for what this release does not serve.
    """
    if len(message.layer_ids) > limits.MAX_LAYERS:
        raise InvalidArgumentError(
            f"Expected at most {limits.MAX_LAYERS} layers, got {len(message.layer_ids)}.",
            field="spec.layer_ids",
        )
    try:
        engine, rules = engine_from(message.engine)
        return DeploymentSpec(
            model_name=message.model_name,
            layer_ids=tuple(message.layer_ids),
            num_logical_experts=message.num_logical_experts,
            num_expert_groups=message.num_expert_groups or 1,
            topology=topology_from(message.topology),
            engine=engine,
            rules=rules,
            policy=policy_from(message.policy, policies),
            forecast=ForecastParameters(**_present(message.forecast)),
            migration=MigrationParameters(**_present(message.migration)),
            trigger=TriggerParameters(**_present(message.trigger)),
            samples=SampleParameters(**_present(message.samples)),
            rollout_mode=enum_member(
                message.rollout.mode, pb.RolloutMode, _ROLLOUTS, "rollout.mode"
            ),
            rollout=_rollout_from(message.rollout),
        )
    except (InvalidArgumentError, UnservedError) as error:
        raise type(error)(
            error.message, field=f"spec.{error.field}", reason=error.reason
        ) from None


def _rollout_from(message: pb.RolloutParameters) -> RolloutParameters:
    """Reads the numbers of a roll-out; its mode stands apart in a spec."""
    present = _present(message)
    present.pop("mode", None)
    return RolloutParameters(**present)


def spec_to(spec: DeploymentSpec) -> pb.DeploymentSpec:
    """Writes a spec with its defaults spelt out."""
    trigger, samples, rules = spec.trigger, spec.samples, spec.rules
    return pb.DeploymentSpec(
        model_name=spec.model_name,
        layer_ids=spec.layer_ids,
        num_logical_experts=spec.num_logical_experts,
        num_expert_groups=spec.num_expert_groups,
        topology=pb.Topology(
            num_nodes=spec.topology.num_nodes,
            ranks_per_node=spec.topology.ranks_per_node,
            slots_per_rank=spec.topology.slots_per_rank,
            masked_ranks=spec.topology.masked_ranks,
            rank_capacities=spec.topology.rank_capacities,
        ),
        engine=pb.EngineProfile(
            engine=_ENGINES_OUT[spec.engine],
            forbid_duplicates_on_rank=rules.forbids_duplicates,
            forbid_moves_inside_rank=rules.forbids_moves_inside_rank,
            max_replicas_per_expert=rules.max_replicas,
        ),
        policy=policy_to(spec.policy),
        # These have the names of the wire, field by field.
        forecast=pb.ForecastParameters(**asdict(spec.forecast)),
        migration=pb.MigrationParameters(**asdict(spec.migration)),
        trigger=pb.TriggerParameters(**asdict(trigger)),
        samples=pb.SampleParameters(
            deadline_s=samples.deadline_s, min_coverage=samples.min_coverage
        ),
        rollout=pb.RolloutParameters(
            mode=_ROLLOUTS_OUT[spec.rollout_mode], **asdict(spec.rollout)
        ),
    )


def policy_to(policy: PolicyChoice) -> pb.PolicySpec:
    """Writes a policy."""
    return pb.PolicySpec(
        name=policy.name,
        mode=MODES_OUT[policy.mode],
        seed=policy.seed,
        max_foreign_replicas=policy.spill,
        parameters=dict(policy.parameters),
        max_moved_slots_per_layer=policy.max_moved_slots,
    )


def _present(message: Message) -> dict[str, Any]:
    """Returns the scalar fields that the sender set, by name, numbers checked to be finite."""
    name = message.DESCRIPTOR.name
    at = {
        "TriggerParameters": "trigger",
        "SampleParameters": "samples",
        "ForecastParameters": "forecast",
        "MigrationParameters": "migration",
        "RolloutParameters": "rollout",
    }[name]
    return {
        field.name: finite(value, f"{at}.{field.name}") if isinstance(value, float) else value
        for field, value in message.ListFields()
    }
