"""What a participant says, message by message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from expertplane.v1 import placement_service_pb2 as placement_pb2, problem_pb2

from .tensors import to_tensor


if TYPE_CHECKING:
    from .identity import Identity
    from .plan import Plan


Request = placement_pb2.ConnectRequest
PlanRef = placement_pb2.PlanRef


def reference(plan: Plan) -> PlanRef:
    """Returns what names a plan and proves its content."""
    return PlanRef(version=plan.version, digest=plan.digest)


def hello(
    identity: Identity,
    *,
    applied: PlanRef,
    staged: Plan | None,
    highest_version: int,
    highest_epoch: int,
) -> Request:
    """Returns the first message of a stream."""
    message = placement_pb2.Hello(
        deployment=identity.deployment,
        participant_id=identity.participant_id,
        ranks=identity.ranks,
        incarnation=identity.incarnation,
        generation=identity.generation,
        engine_run_id=identity.engine_run_id,
        applied=applied,
        staged=None if staged is None else reference(staged),
        highest_version=highest_version,
        highest_epoch=highest_epoch,
        max_staged_bytes=identity.max_staged_bytes,
    )
    if identity.initial_phy2log is not None:
        # Half the bytes wherever they suffice: the planner reads messages of at most 2 MiB.
        is_narrow = identity.initial_phy2log.max() < 2**15
        start = identity.initial_phy2log.astype(np.int16 if is_narrow else np.int32)
        message.initial_phy2log.CopyFrom(to_tensor(start, field="initial_phy2log"))
    return Request(hello=message)


def heartbeat(applied: PlanRef) -> Request:
    """Returns the sign of life."""
    return Request(heartbeat=placement_pb2.ParticipantHeartbeat(applied=applied))


def goodbye(reason: str) -> Request:
    """Returns what takes the ranks out of the deployment."""
    return Request(goodbye=placement_pb2.Goodbye(reason=reason))


def ack_staged(nonce: int, plan: Plan) -> Request:
    """Returns the word that a plan is checked and prepared."""
    phase = placement_pb2.ACK_PHASE_STAGED
    ack = placement_pb2.Ack(nonce=nonce, version=plan.version, phase=phase, digest=plan.digest)
    return Request(ack=ack)


def ack_applied(nonce: int, applied: PlanRef, step: int) -> Request:
    """Returns the word that the ranks have switched, at an engine step."""
    return Request(
        ack=placement_pb2.Ack(
            nonce=nonce,
            version=applied.version,
            phase=placement_pb2.ACK_PHASE_APPLIED,
            step=step,
            digest=applied.digest,
        )
    )


def nack(nonce: int, version: int, reason: str, message: str, *, is_transient: bool) -> Request:
    """Returns the refusal of a plan; a transient one asks for another try later."""
    code = (
        problem_pb2.PROBLEM_CODE_FAILED_PRECONDITION
        if is_transient
        else problem_pb2.PROBLEM_CODE_INVALID_ARGUMENT
    )
    problem = problem_pb2.Problem(code=code, reason=reason, message=message)
    return Request(
        nack=placement_pb2.Nack(
            nonce=nonce, version=version, problem=problem, is_transient=is_transient
        )
    )
