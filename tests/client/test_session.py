"""The participant's side of the protocol, message by message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from expertplane.v1 import placement_service_pb2 as placement_pb2, problem_pb2
from expertplane_client.effects import (
    Acked,
    DrainRequested,
    RefusedReport,
    Remember,
    SetReportInterval,
    Welcomed,
)
from expertplane_client.session import Session

from . import builders
from .sessions import ack, adopted, nack, serving, session


if TYPE_CHECKING:
    from typing import Any


def test_a_hello_says_who_and_what() -> None:
    """The first message names the participant, its start placement and what it has seen."""
    start = builders.phy2log()
    opened = Session(builders.identity(initial_phy2log=start, generation=2, max_staged_bytes=9))
    opened.restore(7, 4)
    hello = opened.hello().hello

    assert (
        hello.deployment,
        hello.participant_id,
        list(hello.ranks),
        hello.engine_run_id,
        hello.generation,
        hello.max_staged_bytes,
    ) == (builders.DEPLOYMENT, "node-0", [0, 1], "run-1", 2, 9)
    assert (hello.highest_version, hello.highest_epoch) == (7, 4)
    assert (hello.applied.version, hello.applied.digest) == (0, builders.PINNED_DIGEST)
    assert not hello.HasField("staged")
    np.testing.assert_array_equal(
        start.ravel(), np.frombuffer(hello.initial_phy2log.data, dtype="<i2")
    )


def test_a_committed_plan_is_adopted_and_acked() -> None:
    """A Commit with a plan goes to the ranks; the Ack carries its nonce, digest and step."""
    opened = session()
    effects = opened.on_response(builders.response(nonce=2, commit=builders.commit(1)))
    answer = opened.applied(builders.plan(1), 41).ack

    assert adopted(effects) == [1]
    assert (
        answer.nonce,
        answer.version,
        answer.phase,
        answer.step,
        answer.digest,
    ) == (2, 1, placement_pb2.ACK_PHASE_APPLIED, 41, builders.PINNED_DIGEST)
    assert opened.applied_version == 1
    assert opened.hello().hello.applied.version == 1


def test_a_welcome_with_a_plan_is_permission() -> None:
    """A participant that is behind adopts the plan that its Welcome brings."""
    opened = Session(builders.identity())
    opened.hello()
    message = builders.welcome(plan=builders.plan_message(6))
    effects = opened.on_response(builders.response(welcome=message))

    assert adopted(effects) == [6]
    assert any(isinstance(effect, Welcomed) for effect in effects)


def test_an_unknown_deployment_keeps_the_stream() -> None:
    """The participant waits for the Welcome that tells that the deployment is there."""
    opened = Session(builders.identity())
    unknown = builders.welcome(placement_pb2.PLAN_VERDICT_DEPLOYMENT_UNKNOWN)
    (first,) = [
        effect
        for effect in opened.on_response(builders.response(welcome=unknown))
        if isinstance(effect, Welcomed)
    ]
    (second,) = opened.on_response(builders.response(welcome=builders.welcome()))

    assert not first.is_deployment_known
    assert isinstance(second, Welcomed)
    assert second.is_deployment_known


def test_a_lower_epoch_changes_nothing() -> None:
    """What a planner of an earlier term says is not even looked at."""
    opened = serving(3, epoch=5)

    assert opened.on_response(builders.response(epoch=4, commit=builders.commit(9))) == ()
    assert (opened.highest_version, opened.highest_epoch) == (3, 5)


def test_an_epoch_of_an_earlier_start_counts() -> None:
    """A restarted participant refuses to follow a planner that it had outlived before."""
    opened = Session(builders.identity())
    opened.restore(7, 5)
    opened.hello()

    assert opened.on_response(builders.response(epoch=4, commit=builders.commit(9))) == ()


def test_a_higher_epoch_or_version_is_remembered_once() -> None:
    """What must outlive the process is told when it changes, before anything else."""
    opened = Session(builders.identity())
    beat = placement_pb2.PlannerHeartbeat(head_version=4, committed_version=3)

    assert opened.on_response(builders.response(epoch=2, heartbeat=beat)) == (Remember(),)
    assert opened.on_response(builders.response(epoch=2, heartbeat=beat)) == ()
    effects = opened.on_response(builders.response(epoch=2, commit=builders.commit(5)))
    assert isinstance(effects[0], Remember)


def test_an_unknown_kind_changes_nothing() -> None:
    """A message that a later release has added is passed over."""
    from_the_future = placement_pb2.ConnectResponse.FromString(
        builders.response().SerializeToString() + b"\xfa\x01\x02hi"
    )

    assert session().on_response(from_the_future) == ()


def test_a_repeated_commit_is_acked_again() -> None:
    """The planner that asks twice is told twice, and the ranks do not switch again."""
    opened = serving(3)
    answer = ack(opened.on_response(builders.response(nonce=9, commit=builders.commit(3))))

    assert (answer.nonce, answer.version, answer.step) == (9, 3, 40)


def test_a_commit_repeated_during_the_switch_starts_no_second_one() -> None:
    """A reconnect amid a switch does not start it anew, and the Ack fits the new stream."""
    opened = session()
    opened.on_response(builders.response(nonce=2, commit=builders.commit(1)))
    opened.hello()
    message = builders.welcome(plan=builders.plan_message(1))
    effects = opened.on_response(builders.response(nonce=7, welcome=message))

    assert adopted(effects) == []
    assert opened.applied(builders.plan(1), 5).ack.nonce == 7


def test_an_answer_to_an_ended_stream_has_no_nonce() -> None:
    """A nonce belongs to its stream: a switch that outlives it is told as unasked."""
    opened = session()
    opened.on_response(builders.response(nonce=2, commit=builders.commit(1)))
    opened.hello()

    assert opened.applied(builders.plan(1), 5).ack.nonce == 0


def test_a_failed_switch_asks_for_another_try() -> None:
    """What the engine could not do is a transient Nack, and the next Commit tries again."""
    opened = session()
    opened.on_response(builders.response(nonce=2, commit=builders.commit(1)))
    answer = opened.not_applied(builders.plan(1), "no memory", is_transient=True).nack

    assert (
        answer.nonce,
        answer.version,
        answer.is_transient,
        answer.problem.reason,
        answer.problem.message,
    ) == (2, 1, True, "APPLY_FAILED", "no memory")
    assert adopted(opened.on_response(builders.response(nonce=3, commit=builders.commit(1)))) == [
        1
    ]


def test_a_switch_that_cannot_be_made_is_refused_for_good() -> None:
    """What the ranks can never serve with is not asked of them again."""
    opened = session()
    opened.on_response(builders.response(nonce=2, commit=builders.commit(1)))
    answer = opened.not_applied(builders.plan(1), "no such expert", is_transient=False).nack

    assert (answer.nonce, answer.is_transient, answer.problem.reason) == (
        2,
        False,
        "PLAN_UNACCEPTABLE",
    )


def test_a_plan_with_a_wrong_digest_is_refused() -> None:
    """A plan that is not what it says is refused for good, under its nonce."""
    message = builders.commit(1)
    message.plan.metadata.digest = "0" * 64
    answer = nack(session().on_response(builders.response(nonce=2, commit=message)))

    assert (
        answer.nonce,
        answer.version,
        answer.is_transient,
        answer.problem.reason,
    ) == (2, 1, False, "INVALID_PLAN")
    assert answer.problem.code == problem_pb2.PROBLEM_CODE_INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("identity", "plan"),
    [
        ({}, {"deployment": "prod/other"}),
        ({"generation": 2}, {"generation": 1}),
        ({"initial_phy2log": builders.phy2log(((0, 1, 2), (2, 1, 0)))}, {}),
        ({}, {"version": 0}),
    ],
    ids=["deployment", "generation", "shape", "version 0"],
)
def test_a_plan_for_other_ranks_is_refused(identity: Any, plan: Any) -> None:
    """A plan that cannot be meant for these ranks never reaches them."""
    message = builders.commit(**({"version": 1} | plan))
    answer = nack(session(**identity).on_response(builders.response(nonce=2, commit=message)))

    assert answer.problem.reason == "INVALID_PLAN"
    assert not answer.is_transient


@pytest.mark.parametrize("version", [2, 3], ids=["older", "same number, other content"])
def test_a_plan_that_is_no_news_is_refused(version: int) -> None:
    """Within a term versions only rise, and a number stands for one content."""
    message = builders.commit(version, rows=builders.OTHER_ROWS)
    answer = nack(serving(3).on_response(builders.response(nonce=2, commit=message)))

    assert answer.problem.reason == "VERSION_REGRESSION"


def test_a_later_term_may_go_back() -> None:
    """After a restored backup the planner's store is the truth, lower versions included."""
    message = builders.commit(2, rows=builders.OTHER_ROWS, epoch=2)
    effects = serving(3).on_response(builders.response(epoch=2, commit=message))

    assert adopted(effects) == [2]


def test_a_commit_whose_plan_is_another_is_refused() -> None:
    """The plan must be the one that the Commit names."""
    message = builders.commit(4)
    message.plan.CopyFrom(builders.plan_message(5))

    assert (
        nack(session().on_response(builders.response(commit=message))).problem.reason
        == "INVALID_PLAN"
    )


def test_answers_to_reports_are_passed_on() -> None:
    """A report is taken or refused by its number."""
    opened = session()
    problem = problem_pb2.Problem(
        code=problem_pb2.PROBLEM_CODE_INVALID_ARGUMENT, reason="BAD", field="f", message="m"
    )
    (taken,) = opened.on_response(
        builders.response(report_ack=placement_pb2.ReportAck(sequence=5))
    )
    (refused,) = opened.on_response(
        builders.response(refused=placement_pb2.Refused(sequence=6, problem=problem))
    )

    assert taken == Acked(5)
    assert isinstance(refused, RefusedReport)
    assert (
        refused.sequence,
        refused.problem.code,
        refused.problem.reason,
        refused.problem.field,
        refused.problem.message,
    ) == (6, "INVALID_ARGUMENT", "BAD", "f", "m")


@pytest.mark.parametrize(
    ("told", "kept"), [(2.5, 2.5), (-1.0, 0.0), (float("nan"), 3600.0), (1e300, 3600.0)]
)
def test_intervals_are_bounded(told: float, kept: float) -> None:
    """No figure of the planner can stop the participant's clock."""
    flow = placement_pb2.Flow(report_interval_s=told)
    drain = placement_pb2.Drain(reconnect_window_s=told)

    assert session().on_response(builders.response(flow=flow)) == (SetReportInterval(kept),)
    assert session().on_response(builders.response(drain=drain)) == (DrainRequested(kept),)
