"""Small valid objects; every argument has a default that makes the rest fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    placement_service_pb2 as placement_pb2,
    plan_pb2,
)
from expertplane.wire import digest_phy2log
from expertplane_client import Plan
from expertplane_client.identity import Identity
from expertplane_client.tensors import to_tensor


if TYPE_CHECKING:
    from numpy.typing import NDArray


DEPLOYMENT = "prod/tiny"
ROWS = ((0, 1, 2, 0), (2, 1, 0, 1))
OTHER_ROWS = ((2, 1, 0, 0), (2, 1, 0, 1))
PINNED_DIGEST = "b3c72283134eacd42dd9c52fc707cb0531c9179493f89423b9dce61c09622653"


def phy2log(rows: tuple[tuple[int, ...], ...] = ROWS) -> NDArray[np.int32]:
    """Returns a map of two layers with three experts on four slots."""
    return np.array(rows, dtype=np.int32)


def plan_message(
    version: int = 1,
    *,
    rows: tuple[tuple[int, ...], ...] = ROWS,
    epoch: int = 1,
    deployment: str = DEPLOYMENT,
    generation: int = 1,
) -> plan_pb2.Plan:
    """Returns a plan as a planner sends it."""
    experts = phy2log(rows)
    message = plan_pb2.Plan(
        metadata=plan_pb2.PlanMetadata(
            deployment=deployment,
            version=version,
            epoch=epoch,
            generation=generation,
            parent_version=max(0, version - 1),
            state=plan_pb2.PLAN_STATE_COMMITTED,
            digest=digest_phy2log(experts),
            num_layers=experts.shape[0],
            num_slots=experts.shape[1],
            num_logical_experts=int(experts.max()) + 1,
            policy=deployment_pb2.PolicySpec(
                name="deepseek", mode=deployment_pb2.MODE_GLOBAL, seed=7
            ),
            reason=decision_pb2.DECISION_REASON_PUBLISHED,
            predicted=plan_pb2.BalanceReport(balancedness=0.9, per_layer=[0.8, 1.0]),
            moved_slots=3,
            solve_s=0.25,
        ),
        phy2log=to_tensor(experts, field="phy2log"),
    )
    message.metadata.created_at.FromJsonString("2026-11-21T09:00:00Z")
    return message


def transfers_message() -> plan_pb2.TransferSchedule:
    """Returns a migration of one expert."""
    copy = plan_pb2.Transfer(
        layer=1,
        logical_expert=2,
        source_slot=0,
        target_slot=3,
        round=1,
        link_class=plan_pb2.LINK_CLASS_SAME_NODE,
    )
    return plan_pb2.TransferSchedule(
        parent_version=4, transfers=[copy], total_bytes=88, estimated_s=0.5
    )


def plan(version: int = 1, **changes: Any) -> Plan:
    """Returns a plan as the client knows it."""
    return Plan.from_message(plan_message(version, **changes))


def identity(**changes: Any) -> Identity:
    """Returns who a participant is."""
    fields: dict[str, Any] = {
        "deployment": DEPLOYMENT,
        "participant_id": "node-0",
        "ranks": (0, 1),
        "incarnation": "3f1d4c2e-0000-4000-8000-000000000001",
        "engine_run_id": "run-1",
    }
    return Identity(**(fields | changes))


def commit(version: int = 1, *, has_plan: bool = True, **changes: Any) -> placement_pb2.Commit:
    """Returns the permission to switch to a plan."""
    message = plan_message(version, **changes)
    return placement_pb2.Commit(
        version=version, digest=message.metadata.digest, plan=message if has_plan else None
    )


def welcome(
    verdict: placement_pb2.PlanVerdict = placement_pb2.PLAN_VERDICT_NO_PLAN_YET,
    *,
    plan: plan_pb2.Plan | None = None,
    heartbeat_interval_s: float = 60.0,
    report_interval_s: float = 0.0,
) -> placement_pb2.Welcome:
    """Returns the answer to a Hello."""
    return placement_pb2.Welcome(
        verdict=verdict if plan is None else placement_pb2.PLAN_VERDICT_TAKE_THIS_PLAN,
        plan=plan,
        generation=1,
        heartbeat_interval_s=heartbeat_interval_s,
        report_interval_s=report_interval_s,
        max_samples_per_report=64,
        max_message_bytes=2 * 1024 * 1024,
    )


def response(*, epoch: int = 1, nonce: int = 1, **message: Any) -> placement_pb2.ConnectResponse:
    """Returns a planner's message; the keyword names its kind."""
    return placement_pb2.ConnectResponse(epoch=epoch, nonce=nonce, **message)


def deployment(name: str = DEPLOYMENT, **status: Any) -> deployment_pb2.Deployment:
    """Returns a deployment with the status given."""
    return deployment_pb2.Deployment(
        name=name, status=deployment_pb2.DeploymentStatus(**status), etag="e1", generation=1
    )


def spec(**changes: Any) -> deployment_pb2.DeploymentSpec:
    """Returns what to plan for: two layers of three experts on two ranks of two slots."""
    fields: dict[str, Any] = {
        "model_name": "tiny",
        "layer_ids": [3, 4],
        "num_logical_experts": 3,
        "topology": deployment_pb2.Topology(num_nodes=1, ranks_per_node=2, slots_per_rank=2),
        "policy": deployment_pb2.PolicySpec(name="deepseek"),
    }
    return deployment_pb2.DeploymentSpec(**(fields | changes))
