"""The participants' stream: messages to events, core messages to answers."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from expertplane.v1 import placement_service_pb2 as pb, problem_pb2
from expertplane.wire.tensors import INTEGERS
from expertplane_server.core import effects as fx, events as ev, limits
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.plan import PlanRef
from expertplane_server.core.spec import check_name
from expertplane_server.rpc.convert.fields import (
    counter,
    enum_member,
    nested,
    tensor,
    token_counts,
)
from expertplane_server.rpc.status import problem_code


if TYPE_CHECKING:
    from expertplane.v1 import plan_pb2
    from expertplane_server.core.errors import ServiceError
    from expertplane_server.core.plan import Plan
    from expertplane_server.rpc.convert.plans import PlanWriter

_ID = re.compile(r"[a-zA-Z0-9._-]{1,128}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KINDS = {
    pb.LOAD_KIND_LOGICAL: ev.LoadKind.LOGICAL,
    pb.LOAD_KIND_PHYSICAL: ev.LoadKind.PHYSICAL,
}
_SCOPES = {
    pb.LOAD_SCOPE_PARTICIPANT: ev.LoadScope.PARTICIPANT,
    pb.LOAD_SCOPE_DEPLOYMENT: ev.LoadScope.DEPLOYMENT,
}
_PHASES = {
    pb.ACK_PHASE_STAGED: ev.AckPhase.STAGED,
    pb.ACK_PHASE_APPLIED: ev.AckPhase.APPLIED,
}
_VERDICTS = {
    fx.Verdict.UP_TO_DATE: pb.PLAN_VERDICT_UP_TO_DATE,
    fx.Verdict.TAKE_THIS_PLAN: pb.PLAN_VERDICT_TAKE_THIS_PLAN,
    fx.Verdict.NO_PLAN_YET: pb.PLAN_VERDICT_NO_PLAN_YET,
    fx.Verdict.DEPLOYMENT_UNKNOWN: pb.PLAN_VERDICT_DEPLOYMENT_UNKNOWN,
}


def parse_request(raw: bytes) -> pb.ConnectRequest:
    """Parses a message of the stream.

    Raises:
        InvalidArgumentError: the bytes are not such a message.
    """
    try:
        return pb.ConnectRequest.FromString(raw)
    except DecodeError as error:
        raise InvalidArgumentError(
            f"Expected the bytes of a ConnectRequest, got {len(raw)} bytes that do not parse.",
            reason="UNPARSABLE",
        ) from error


def hello_from(message: pb.Hello, stream: int) -> ev.Hello:
    """Reads a Hello.

    Raises:
        InvalidArgumentError: a field breaks its rule.
    """
    for at in ("participant_id", "engine_run_id"):
        _check_id(getattr(message, at), f"hello.{at}")
    ranks = tuple(message.ranks)
    is_ascending = all(a < b for a, b in zip(ranks, ranks[1:], strict=False))
    if not 1 <= len(ranks) <= limits.MAX_RANKS or not is_ascending:
        raise InvalidArgumentError(
            f"Expected 1 to {limits.MAX_RANKS} ascending ranks, got {list(ranks[:8])}.",
            field="hello.ranks",
        )
    initial = None
    if message.HasField("initial_phy2log"):
        initial = phy2log_from(message.initial_phy2log, "hello.initial_phy2log")
    return ev.Hello(
        stream=stream,
        participant=message.participant_id,
        ranks=ranks,
        incarnation=_uuid(message.incarnation, "hello.incarnation"),
        engine_run_id=message.engine_run_id,
        generation=message.generation,
        applied=ref_from(message.applied, "hello.applied"),
        staged=_staged(message),
        highest_version=counter(message.highest_version, "hello.highest_version"),
        highest_epoch=counter(message.highest_epoch, "hello.highest_epoch"),
        max_staged_bytes=counter(message.max_staged_bytes, "hello.max_staged_bytes"),
        initial_phy2log=initial,
    )


def _staged(message: pb.Hello) -> PlanRef | None:
    """Reads what a participant has staged, None without such a plan.

    Raises:
        InvalidArgumentError: version and digest do not go together.
    """
    # The start placement is nothing that could be staged.
    if not message.HasField("staged") or message.staged.version == 0:
        return None
    return ref_from(message.staged, "hello.staged")


def deployment_from(message: pb.Hello) -> str:
    """Returns the deployment that a Hello names.

    Raises:
        InvalidArgumentError: it is no name.
    """
    return check_name(message.deployment, at="hello.deployment")


def report_from(message: pb.LoadReport, stream: int) -> ev.LoadReport:
    """Reads a load report.

    Raises:
        InvalidArgumentError: a field breaks its rule.
    """
    at = "load_report"
    kind = enum_member(message.kind, pb.LoadKind, _KINDS, f"{at}.kind")
    scope = enum_member(message.scope, pb.LoadScope, _SCOPES, f"{at}.scope")
    if message.steps_per_sample < 1:
        raise InvalidArgumentError(
            f"Expected at least 1 step in a sample, got {message.steps_per_sample}.",
            field=f"{at}.steps_per_sample",
        )
    width = limits.MAX_SLOTS if kind is ev.LoadKind.PHYSICAL else limits.MAX_LOGICAL_EXPERTS
    max_shape = (limits.MAX_SAMPLES_PER_REPORT, limits.MAX_LAYERS, width)
    return ev.LoadReport(
        stream=stream,
        sequence=message.sequence,
        plan_version=counter(message.plan_version, f"{at}.plan_version"),
        first_step=counter(message.first_step, f"{at}.first_step"),
        steps_per_sample=message.steps_per_sample,
        kind=kind,
        scope=scope,
        counts=token_counts(message.counts, f"{at}.counts", max_shape=max_shape),
    )


def ack_from(message: pb.Ack, stream: int) -> ev.Ack:
    """Reads an Ack.

    Raises:
        InvalidArgumentError: a field breaks its rule.
    """
    phase = enum_member(message.phase, pb.AckPhase, _PHASES, "ack.phase")
    ref = pb.PlanRef(version=message.version, digest=message.digest)
    return ev.Ack(
        stream=stream,
        ref=ref_from(ref, "ack"),
        phase=phase,
        step=counter(message.step, "ack.step"),
    )


def nack_from(message: pb.Nack, stream: int) -> ev.Nack:
    """Reads a Nack.

    Raises:
        InvalidArgumentError: a field breaks its rule.
    """
    return ev.Nack(
        stream=stream,
        version=counter(message.version, "nack.version"),
        message=message.problem.message[:1024],
        is_transient=message.is_transient,
        # A word of the participant's own: told to operators, never a label of a metric.
        reason=message.problem.reason[:64],
    )


def ref_from(message: pb.PlanRef, at: str) -> PlanRef:
    """Reads a reference to a plan; version 0 needs no digest.

    Raises:
        InvalidArgumentError: version and digest do not go together.
    """
    version = counter(message.version, f"{at}.version")
    if version > 0 and _DIGEST.fullmatch(message.digest) is None:
        raise InvalidArgumentError(
            f"Expected a lowercase hex sha256, got {message.digest[:80]!r}.", field=f"{at}.digest"
        )
    return PlanRef(version=version, digest=message.digest if version > 0 else "")


def phy2log_from(message: Any, at: str) -> np.ndarray[Any, Any]:
    """Reads a placement as [L, P] int32.

    Raises:
        InvalidArgumentError: it is no such tensor.
    """
    max_shape = (limits.MAX_LAYERS, limits.MAX_SLOTS)
    wide = tensor(message, at, max_shape=max_shape, dtypes=INTEGERS)
    if wide.min() < -1 or wide.max() >= limits.MAX_LOGICAL_EXPERTS:
        raise InvalidArgumentError(
            f"Expected logical experts below {limits.MAX_LOGICAL_EXPERTS}, "
            f"got {wide.min()} to {wide.max()}.",
            field=f"{at}.data",
        )
    return wide.astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often participants speak, in seconds."""

    heartbeat_interval_s: float
    report_interval_s: float


class ResponseWriter:
    """Writes the core's messages to one stream and numbers them."""

    def __init__(self, plans: PlanWriter, cadence: Cadence) -> None:
        self._plans = plans
        self._cadence = cadence
        self._nonce = 0

    def write(self, message: fx.Message, epoch: int) -> pb.ConnectResponse:
        """Returns the next message of the stream, in the planner's current term."""
        self._nonce += 1
        answer = pb.ConnectResponse(epoch=epoch, nonce=self._nonce)
        match message:
            case fx.Welcome():
                answer.welcome.CopyFrom(self._welcome(message))
            case fx.ReportAck(sequence):
                answer.report_ack.sequence = sequence
            case fx.Refused():
                answer.refused.sequence = message.sequence
                answer.refused.problem.CopyFrom(problem_to(message.error))
            case fx.Stage() | fx.Commit() | fx.Abort():
                self._write_rollout(answer, message)
            case fx.Flow(report_interval_s):
                answer.flow.report_interval_s = report_interval_s
            case fx.PlannerHeartbeat():
                answer.heartbeat.head_version = message.head
                answer.heartbeat.committed_version = message.committed
            case fx.Drain(reconnect_window_s):
                answer.drain.reconnect_window_s = reconnect_window_s
        return answer

    def encode(self, message: fx.Message, epoch: int) -> bytes:
        """Returns the bytes of the next message.

        A plan goes to a thousand streams: its bytes are made once, and joined with what is the
        stream's own. Fields may come in any order, so that a message is the sum of its parts.
        """
        match message:
            case fx.Stage(plan, deadline_s):
                field = pb.ConnectResponse.STAGE_FIELD_NUMBER
                parts = (
                    *nested(pb.Stage.PLAN_FIELD_NUMBER, self._plans.encode(plan)),
                    pb.Stage(deadline_s=deadline_s).SerializeToString(),
                )
            case fx.Commit(plan, is_staged) if not is_staged:
                field = pb.ConnectResponse.COMMIT_FIELD_NUMBER
                parts = (
                    pb.Commit(version=plan.version, digest=plan.digest).SerializeToString(),
                    *nested(pb.Commit.PLAN_FIELD_NUMBER, self._plans.encode(plan)),
                )
            case _:
                return self.write(message, epoch).SerializeToString()
        self._nonce += 1
        head = pb.ConnectResponse(epoch=epoch, nonce=self._nonce).SerializeToString()
        return b"".join((head, *nested(field, *parts)))

    def _write_rollout(
        self, answer: pb.ConnectResponse, message: fx.Stage | fx.Commit | fx.Abort
    ) -> None:
        """Fills in what belongs to a roll-out."""
        match message:
            case fx.Stage(plan, deadline_s):
                answer.stage.plan.CopyFrom(self._plan(plan))
                answer.stage.deadline_s = deadline_s
            case fx.Commit(plan, is_staged):
                answer.commit.version = plan.version
                answer.commit.digest = plan.digest
                if not is_staged:
                    answer.commit.plan.CopyFrom(self._plan(plan))
            case fx.Abort(version, reason):
                answer.abort.version = version
                answer.abort.reason = reason

    def _welcome(self, message: fx.Welcome) -> pb.Welcome:
        """Writes a Welcome with the limits of this planner."""
        report_interval_s = message.report_interval_s
        if report_interval_s is None:
            report_interval_s = self._cadence.report_interval_s
        return pb.Welcome(
            verdict=_VERDICTS[message.verdict],
            plan=self._plan(message.plan) if message.plan is not None else None,
            generation=message.generation,
            heartbeat_interval_s=self._cadence.heartbeat_interval_s,
            report_interval_s=report_interval_s,
            max_samples_per_report=limits.MAX_SAMPLES_PER_REPORT,
            max_message_bytes=limits.MAX_CONNECT_MESSAGE_BYTES,
            is_elected_reporter=message.is_elected_reporter,
        )

    def _plan(self, plan: Plan) -> plan_pb2.Plan:
        """Writes a plan without its derived maps: ten times the bytes, to every rank."""
        return self._plans.write(plan, omit_derived_maps=True, omit_transfers=True)


def problem_to(error: ServiceError) -> problem_pb2.Problem:
    """Writes a refusal in band."""
    return problem_pb2.Problem(
        code=problem_code(error), reason=error.reason, field=error.field, message=error.message
    )


def _check_id(value: str, at: str) -> None:
    """Refuses what is no participant's or run's id."""
    if _ID.fullmatch(value) is None:
        raise InvalidArgumentError(f"Expected {_ID.pattern}, got {value[:200]!r}.", field=at)


def _uuid(value: str, at: str) -> str:
    """Returns a UUID in its canonical form."""
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise InvalidArgumentError(f"Expected a UUID, got {value[:80]!r}.", field=at) from None
