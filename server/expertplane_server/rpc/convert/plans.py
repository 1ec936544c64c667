"""Plans, decisions and deployments on their way out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from expertplane.v1 import decision_pb2, deployment_pb2, plan_pb2
from expertplane.wire import derive_log2phy, derive_logcnt, encode_tensor
from expertplane_server.core.errors import ExhaustedError
from expertplane_server.core.plan import Decision, Evaluation, PlanState, Reason
from expertplane_server.core.spec import PolicyChoice
from expertplane_server.rpc.convert.specs import policy_to, spec_to


if TYPE_CHECKING:
    from expertplane_server.core.group import Group
    from expertplane_server.core.plan import Balance, Plan, Solution, Transfers

    _Key = tuple[str, int, PlanState, bool, bool]

STATES = {
    PlanState.STAGING: plan_pb2.PLAN_STATE_STAGING,
    PlanState.COMMITTED: plan_pb2.PLAN_STATE_COMMITTED,
    PlanState.APPLIED: plan_pb2.PLAN_STATE_APPLIED,
    PlanState.ABORTED: plan_pb2.PLAN_STATE_ABORTED,
    PlanState.SUPERSEDED: plan_pb2.PLAN_STATE_SUPERSEDED,
}
REASONS: dict[Reason, Any] = {
    reason: decision_pb2.DecisionReason.Value(f"DECISION_REASON_{reason}") for reason in Reason
}
EVALUATIONS = {
    Evaluation.HELD_OUT: decision_pb2.EVALUATION_HELD_OUT,
    Evaluation.IN_SAMPLE: decision_pb2.EVALUATION_IN_SAMPLE,
    Evaluation.PREDICTIVE: decision_pb2.EVALUATION_PREDICTIVE,
}
_LINK_CLASSES = {
    1: plan_pb2.LINK_CLASS_SAME_RANK,
    2: plan_pb2.LINK_CLASS_SAME_NODE,
    3: plan_pb2.LINK_CLASS_CROSS_NODE,
    4: plan_pb2.LINK_CLASS_STORAGE,
}
_MAX_KEPT = 64
_MAX_KEPT_BYTES = 64 * 1024 * 1024
_MAX_DERIVED_ENTRIES = 8 * 1024 * 1024
"""Entries of `log2phy` above which its 32 MiB would crowd everything else out of an answer."""


class PlanWriter:
    """Writes stored plans, and keeps the latest messages: one plan goes to a thousand readers."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, plan_pb2.Plan] = OrderedDict()
        self._num_bytes = 0
        self._encoded: OrderedDict[tuple[str, int, PlanState], bytes] = OrderedDict()
        self._num_encoded_bytes = 0
        # Large plans are written in threads.
        self._lock = threading.Lock()

    def write(
        self, plan: Plan, *, omit_derived_maps: bool = False, omit_transfers: bool = False
    ) -> plan_pb2.Plan:
        """Returns the message of a stored plan; the caller must not change it.

        Raises:
            ExhaustedError: the derived maps would be too large to send.
        """
        key = (
            plan.draft.deployment,
            plan.version,
            plan.state,
            omit_derived_maps,
            omit_transfers,
        )
        message = self._kept.get(key)
        if message is None:
            solution = plan.draft.solution
            if omit_transfers:
                solution = replace(solution, transfers=None)
            message = _with_maps(metadata_to(plan), solution, omit_derived_maps)
            self._keep(key, message)
        return message

    def encode(self, plan: Plan) -> bytes:
        """Returns what participants are sent of a plan: without derived maps and transfers."""
        key = (plan.draft.deployment, plan.version, plan.state)
        encoded = self._encoded.get(key)
        if encoded is None:
            message = self.write(plan, omit_derived_maps=True, omit_transfers=True)
            encoded = message.SerializeToString()
            self._encoded[key] = encoded
            self._num_encoded_bytes += len(encoded)
            while self._num_encoded_bytes > _MAX_KEPT_BYTES and len(self._encoded) > 1:
                self._num_encoded_bytes -= len(self._encoded.popitem(last=False)[1])
        return encoded

    def _keep(self, key: _Key, message: plan_pb2.Plan) -> None:
        """Keeps a message, within bounds."""
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = message
            self._num_bytes += message.ByteSize()
            while len(self._kept) > _MAX_KEPT or self._num_bytes > _MAX_KEPT_BYTES:
                self._num_bytes -= self._kept.popitem(last=False)[1].ByteSize()


def metadata_to(plan: Plan) -> plan_pb2.PlanMetadata:
    """Writes everything about a stored plan but its maps."""
    metadata = _solution_metadata(plan.draft.solution)
    metadata.deployment = plan.draft.deployment
    metadata.version = plan.version
    metadata.epoch = plan.epoch
    metadata.generation = plan.draft.generation
    metadata.parent_version = plan.draft.parent
    metadata.state = STATES[plan.state]
    metadata.reason = REASONS[plan.draft.reason]
    metadata.created_at.CopyFrom(_timestamp(plan.created_at_s))
    metadata.comment = plan.draft.comment
    return metadata


def solution_to(solution: Solution, *, omit_derived_maps: bool = False) -> plan_pb2.Plan:
    """Writes a plan that is not stored.

    Raises:
        ExhaustedError: the derived maps would be too large to send.
    """
    return _with_maps(_solution_metadata(solution), solution, omit_derived_maps)


def decision_to(decision: Decision) -> decision_pb2.Decision:
    """Writes a decision."""
    evaluation = decision.evaluation
    return decision_pb2.Decision(
        sequence=decision.sequence,
        epoch=decision.epoch,
        reason=REASONS[decision.reason],
        message=decision.message,
        decided_at=_timestamp(decision.decided_at_s),
        num_samples=decision.num_samples,
        incumbent_version=decision.incumbent,
        plan_version=decision.plan_version,
        evaluation=EVALUATIONS[evaluation] if evaluation is not None else None,
        balancedness_before=decision.balancedness_before,
        balancedness_after=decision.balancedness_after,
        predicted_gain=decision.gain,
        predicted_gain_s=decision.gain_s,
        migration_cost_s=decision.cost_s,
        moved_slots=decision.moved_slots,
        solve_s=decision.solve_s,
    )


def deployment_to(group: Group, now_s: float) -> deployment_pb2.Deployment:
    """Writes a deployment with its present status.

    Args:
        group: the deployment's state machine.
        now_s: monotonic time, in seconds.
    """
    deployment = group.deployment
    latest = group.journal.latest
    applied = [member.applied.version for member in group.members]
    return deployment_pb2.Deployment(
        name=deployment.name,
        spec=spec_to(deployment.spec),
        etag=deployment.etag,
        generation=deployment.generation,
        status=deployment_pb2.DeploymentStatus(
            head_version=deployment.head,
            committed_version=deployment.committed,
            epoch=group.epoch,
            num_participants=len(group.members),
            last_decision=decision_to(latest) if latest is not None else None,
            is_paused=deployment.is_paused,
            pause_comment=deployment.pause_comment,
            hold_down_s=group.hold_down_s(now_s),
            staging_version=group.staging_version,
            applied_min_version=min(applied, default=0),
            applied_max_version=max(applied, default=0),
            num_samples=group.num_samples,
            num_dropped_samples=group.num_dropped_samples,
        ),
    )


def _solution_metadata(solution: Solution) -> plan_pb2.PlanMetadata:
    """Writes what a solve alone knows."""
    num_layers, num_slots = solution.phy2log.shape
    policy = PolicyChoice(
        name=solution.policy,
        mode=solution.mode,
        seed=solution.seed,
        spill=solution.spill,
        parameters=solution.parameters,
    )
    return plan_pb2.PlanMetadata(
        digest=solution.digest,
        num_layers=num_layers,
        num_slots=num_slots,
        num_logical_experts=solution.num_logical_experts,
        policy=policy_to(policy),
        predicted=_balance_to(solution.balance),
        moved_slots=solution.moved_slots,
        solve_s=solution.solve_s,
    )


def _with_maps(
    metadata: plan_pb2.PlanMetadata, solution: Solution, omit_derived_maps: bool
) -> plan_pb2.Plan:
    """Adds maps and transfers; derived maps are made here, so that they cannot disagree."""
    phy2log = solution.phy2log.astype(np.int16 if solution.phy2log.max() < 2**15 else np.int32)
    message = plan_pb2.Plan(
        metadata=metadata,
        phy2log=encode_tensor(phy2log),
        transfers=transfers_to(solution.transfers, metadata.parent_version),
    )
    if omit_derived_maps:
        return message
    experts = solution.num_logical_experts
    logcnt = derive_logcnt(solution.phy2log, experts)
    if logcnt.size * int(logcnt.max()) > _MAX_DERIVED_ENTRIES:
        raise ExhaustedError(
            f"Expected log2phy of at most {_MAX_DERIVED_ENTRIES} entries, got "
            f"{logcnt.size * int(logcnt.max())}; ask with omit_derived_maps.",
            retry_after_s=None,
            reason="PLAN_TOO_LARGE",
        )
    message.logcnt.CopyFrom(encode_tensor(logcnt))
    message.log2phy.CopyFrom(encode_tensor(derive_log2phy(solution.phy2log, experts)))
    return message


def transfers_to(
    transfers: Transfers | None, parent_version: int
) -> plan_pb2.TransferSchedule | None:
    """Writes a migration."""
    if transfers is None:
        return None
    return plan_pb2.TransferSchedule(
        parent_version=parent_version,
        transfers=[
            plan_pb2.Transfer(
                layer=layer,
                logical_expert=expert,
                source_slot=source,
                target_slot=target,
                round=turn,
                link_class=_LINK_CLASSES[link],
            )
            for layer, expert, source, target, turn, link in transfers.table.tolist()
        ],
        total_bytes=transfers.total_bytes,
        estimated_s=transfers.estimated_s,
    )


def _balance_to(balance: Balance) -> plan_pb2.BalanceReport:
    """Writes a balance report."""
    return plan_pb2.BalanceReport(
        balancedness=balance.balancedness,
        layer_mean=balance.mean,
        layer_minimum=balance.minimum,
        per_layer=balance.per_layer,
    )


def _timestamp(wall_s: float) -> Timestamp:
    """Writes seconds since 1970."""
    seconds = int(wall_s)
    return Timestamp(seconds=seconds, nanos=int((wall_s - seconds) * 1e9))
