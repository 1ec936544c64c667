"""What the planner tells, as the dictionaries that tables and JSON are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane.v1 import decision_pb2, deployment_pb2, plan_pb2
from expertplane_client.names import bare_name
from expertplane_client.plan_diff import CHANGE_COLUMNS
from expertplane_client.transfers import COLUMNS


if TYPE_CHECKING:
    from expertplane_client.plan import Plan
    from expertplane_client.plan_diff import PlanDiff
    from expertplane_client.transfers import Transfers


def status_row(deployment: deployment_pb2.Deployment) -> dict[str, Any]:
    """Returns where a deployment stands."""
    now = deployment.status
    last_decision = (
        bare_name(decision_pb2.DecisionReason, now.last_decision.reason)
        if now.HasField("last_decision")
        else None
    )
    return {
        "name": deployment.name,
        "head": now.head_version,
        "committed": now.committed_version,
        "epoch": now.epoch,
        "participants": now.num_participants,
        "last_decision": last_decision,
        "staging": now.staging_version,
        "applied_min": now.applied_min_version,
        "applied_max": now.applied_max_version,
        "mode": rollout_mode(deployment.spec),
    }


def rollout_mode(spec: deployment_pb2.DeploymentSpec) -> str:
    """Returns the roll-out mode as people write it."""
    mode = spec.rollout.mode or deployment_pb2.ROLLOUT_MODE_ADVISORY
    return bare_name(deployment_pb2.RolloutMode, mode).lower()


def pause_row(deployment: deployment_pb2.Deployment) -> dict[str, Any]:
    """Returns whether a deployment is paused, and why."""
    now = deployment.status
    return {
        "name": deployment.name,
        "is_paused": now.is_paused,
        "comment": now.pause_comment,
        "head": now.head_version,
        "committed": now.committed_version,
    }


def plan_row(plan: plan_pb2.PlanMetadata) -> dict[str, Any]:
    """Returns what a list tells of a plan."""
    return {
        "version": plan.version,
        "epoch": plan.epoch,
        "generation": plan.generation,
        "parent_version": plan.parent_version,
        "state": bare_name(plan_pb2.PlanState, plan.state),
        "reason": bare_name(decision_pb2.DecisionReason, plan.reason),
        "policy": plan.policy.name,
        "balancedness": plan.predicted.balancedness,
        "moved_slots": plan.moved_slots,
        "seconds": plan.solve_s,
        "created_at": plan.created_at.ToJsonString() if plan.HasField("created_at") else None,
        "comment": plan.comment,
        "sha256": plan.digest,
    }


def plan_description(plan: Plan) -> dict[str, Any]:
    """Returns everything about a plan but its maps."""
    return {
        "deployment": plan.deployment,
        "version": plan.version,
        "epoch": plan.epoch,
        "generation": plan.generation,
        "parent_version": plan.parent_version,
        "state": plan.state,
        "reason": plan.reason,
        "policy": plan.policy,
        "mode": plan.mode,
        "spill": plan.spill,
        "seed": plan.seed,
        "balancedness": plan.balancedness,
        "per_layer": list(plan.per_layer),
        "moved_slots": plan.moved_slots,
        "seconds": plan.solve_s,
        "created_at": None if plan.created_at is None else plan.created_at.isoformat(),
        "comment": plan.comment,
        "num_layers": plan.num_layers,
        "num_logical_experts": plan.num_logical_experts,
        "num_slots": plan.num_slots,
        "sha256": plan.digest,
    }


def decision_row(decision: decision_pb2.Decision) -> dict[str, Any]:
    """Returns a decision with its numbers."""
    has_time = decision.HasField("decided_at")
    return {
        "sequence": decision.sequence,
        "epoch": decision.epoch,
        "reason": bare_name(decision_pb2.DecisionReason, decision.reason),
        "message": decision.message,
        "decided_at": decision.decided_at.ToJsonString() if has_time else None,
        "num_samples": decision.num_samples,
        "incumbent_version": decision.incumbent_version,
        "plan_version": decision.plan_version,
        "evaluation": bare_name(decision_pb2.Evaluation, decision.evaluation),
        "balancedness_before": decision.balancedness_before,
        "balancedness_after": decision.balancedness_after,
        "predicted_gain": decision.predicted_gain,
        "predicted_gain_s": decision.predicted_gain_s,
        "migration_cost_s": decision.migration_cost_s,
        "moved_slots": decision.moved_slots,
        "seconds": decision.solve_s,
    }


def balance_text(balancedness: float) -> str:
    """Returns a balancedness for people: "-" for 0, which no placement has that was scored."""
    return f"{balancedness:.4f}" if balancedness else "-"


def diff_row(
    deployment: str, from_version: int, to_version: int, found: PlanDiff
) -> dict[str, Any]:
    """Returns a difference, with a list for each column of its changes."""
    columns = found.changes.T.tolist()
    return {
        "deployment": deployment,
        "from_version": from_version,
        "to_version": to_version,
        "moved_slots": found.moved_slots,
        "moved_slots_per_layer": list(found.moved_slots_per_layer),
        "changes": dict(zip(CHANGE_COLUMNS, columns, strict=True)),
        "transfers": None if found.transfers is None else _transfers_row(found.transfers),
    }


def _transfers_row(transfers: Transfers) -> dict[str, Any]:
    columns = transfers.table.T.tolist()
    return {
        "parent_version": transfers.parent_version,
        "total_bytes": transfers.total_bytes,
        "estimated_s": transfers.estimated_s,
        **dict(zip(COLUMNS, columns, strict=True)),
        "link_class": list(transfers.links),
    }
