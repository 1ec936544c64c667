"""What participants are told: the core's messages on the wire."""

from __future__ import annotations

import pytest

from expertplane.v1 import placement_service_pb2 as pb, plan_pb2, problem_pb2
from expertplane.wire import decode_tensor
from expertplane_server.core import effects as fx, limits
from expertplane_server.core.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    ServiceError,
    UnservedError,
)
from expertplane_server.core.plan import PlanState
from expertplane_server.rpc.convert import participants as convert
from expertplane_server.rpc.convert.plans import PlanWriter

from .. import builders


def writer() -> convert.ResponseWriter:
    """Return a writer of a fresh stream."""
    cadence = convert.Cadence(heartbeat_interval_s=5.0, report_interval_s=1.0)
    return convert.ResponseWriter(PlanWriter(), cadence)


def test_answers_are_numbered() -> None:
    """Every message carries the term and a nonce that rises from 1."""
    stream = writer()
    answers = [stream.write(fx.ReportAck(7), epoch) for epoch in (3, 3, 4)]

    assert [(answer.epoch, answer.nonce) for answer in answers] == [(3, 1), (3, 2), (4, 3)]


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (fx.Verdict.UP_TO_DATE, pb.PLAN_VERDICT_UP_TO_DATE),
        (fx.Verdict.TAKE_THIS_PLAN, pb.PLAN_VERDICT_TAKE_THIS_PLAN),
        (fx.Verdict.NO_PLAN_YET, pb.PLAN_VERDICT_NO_PLAN_YET),
        (fx.Verdict.DEPLOYMENT_UNKNOWN, pb.PLAN_VERDICT_DEPLOYMENT_UNKNOWN),
    ],
)
def test_welcome(verdict: fx.Verdict, expected: int) -> None:
    """A Welcome tells verdict, generation, cadence and limits."""
    message = fx.Welcome(verdict=verdict, generation=2, is_elected_reporter=True)
    welcome = writer().write(message, 1).welcome

    assert (welcome.verdict, welcome.generation) == (expected, 2)
    assert (welcome.heartbeat_interval_s, welcome.report_interval_s) == (5.0, 1.0)
    assert welcome.max_samples_per_report == limits.MAX_SAMPLES_PER_REPORT
    assert welcome.max_message_bytes == 2 * 1024 * 1024
    assert welcome.is_elected_reporter
    assert not welcome.HasField("plan")


def test_commit() -> None:
    """A Commit brings the whole plan, without the maps that follow from it."""
    plan = builders.plan((0, 2, 1, 3), version=7)
    commit = writer().write(fx.Commit(plan), 1).commit

    assert (commit.version, commit.digest) == (7, plan.digest)
    phy2log = decode_tensor(commit.plan.phy2log, max_shape=(9, 9))
    assert phy2log.tolist() == [[0, 2, 1, 3]]
    assert not commit.plan.HasField("log2phy")
    assert not commit.plan.HasField("logcnt")


def test_commit_of_a_staged_plan() -> None:
    """Who has staged a plan is told its version and digest, and no more."""
    plan = builders.plan(version=7)
    commit = writer().write(fx.Commit(plan, is_staged=True), 1).commit

    assert (commit.version, commit.digest) == (7, plan.digest)
    assert not commit.HasField("plan")


def test_stage_and_abort() -> None:
    """A Stage brings the map alone, and the time left; an Abort takes a version back."""
    plan = builders.plan((0, 2, 1, 3), version=7, state=PlanState.STAGING)
    stage = writer().write(fx.Stage(plan, deadline_s=90.0), 1).stage
    abort = writer().write(fx.Abort(7, "b is lost."), 1).abort

    assert (stage.plan.metadata.version, stage.deadline_s) == (7, 90.0)
    assert stage.plan.metadata.state == plan_pb2.PLAN_STATE_STAGING
    assert decode_tensor(stage.plan.phy2log, max_shape=(9, 9)).tolist() == [[0, 2, 1, 3]]
    assert not stage.plan.HasField("log2phy")
    assert (abort.version, abort.reason) == (7, "b is lost.")


def test_cadence() -> None:
    """A Flow sets the cadence; a Welcome brings the one that is in force."""
    flow = writer().write(fx.Flow(4.0), 1).flow
    told = fx.Welcome(verdict=fx.Verdict.NO_PLAN_YET, report_interval_s=4.0)

    assert flow.report_interval_s == 4.0
    assert writer().write(told, 1).welcome.report_interval_s == 4.0


def test_heartbeat_and_drain() -> None:
    """Heartbeats tell head and committed version, a Drain its window."""
    beat = writer().write(fx.PlannerHeartbeat(head=5, committed=4), 1).heartbeat
    drain = writer().write(fx.Drain(2.5), 1).drain

    assert (beat.head_version, beat.committed_version) == (5, 4)
    assert drain.reconnect_window_s == 2.5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgumentError("m", field="f"), problem_pb2.PROBLEM_CODE_INVALID_ARGUMENT),
        (NotFoundError("m", field="f"), problem_pb2.PROBLEM_CODE_NOT_FOUND),
        (AlreadyExistsError("m", field="f"), problem_pb2.PROBLEM_CODE_ALREADY_EXISTS),
        (UnservedError("m", field="f"), problem_pb2.PROBLEM_CODE_UNIMPLEMENTED),
    ],
)
def test_refused(error: ServiceError, code: int) -> None:
    """A refusal names the report, the kind of fault, the reason, the field and the sentence."""
    refused = writer().write(fx.Refused(sequence=8, error=error), 1).refused

    assert refused.sequence == 8
    assert (refused.problem.code, refused.problem.reason) == (code, error.default_reason)
    assert (refused.problem.field, refused.problem.message) == ("f", "m")


@pytest.mark.parametrize(
    "message",
    [
        fx.Commit(builders.plan()),
        fx.Commit(builders.plan(), is_staged=True),
        fx.Stage(builders.plan(*([(3, 2, 1, 0)] * 200), version=2**40), deadline_s=90.0),
        fx.Stage(builders.plan(), deadline_s=0.0),
        fx.ReportAck(7),
        fx.Abort(7, "b is lost."),
    ],
)
def test_bytes_are_the_message(message: fx.Message) -> None:
    """What goes over the wire parses as the message that would have been written whole."""
    encoding, writing = writer(), writer()
    for epoch in (3, 3, 2**50):  # the second time the plan's bytes are there already
        encoded = pb.ConnectResponse.FromString(encoding.encode(message, epoch))
        assert encoded == writing.write(message, epoch)
