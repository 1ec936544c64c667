"""What operators see of a deployment."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.errors import FailedPreconditionError
from expertplane_server.core.plan import Evaluation, PlanState, Reason
from expertplane_server.runtime.instruments import Instruments

from .. import builders


if TYPE_CHECKING:
    from .conftest import Bench


@pytest.fixture
def instruments(bench: Bench) -> Instruments:
    """The instruments of a fresh deployment."""
    return Instruments(builders.group(), bench.services)


def of(bench: Bench, name: str, **labels: str) -> float | None:
    """Return a metric of the deployment."""
    return bench.count(name, deployment=builders.NAME, **labels)


ERROR = FailedPreconditionError("no")


def judged(sequence: int, reason: Reason) -> fx.Record:
    """Return a decision about a candidate that was scored."""
    decision = builders.decision(sequence, reason)
    return fx.Record(replace(decision, evaluation=Evaluation.IN_SAMPLE))


@pytest.mark.parametrize(
    ("effect", "outcome"),
    [
        (fx.Send(1, fx.Welcome(verdict=fx.Verdict.UP_TO_DATE)), "up_to_date"),
        (fx.Send(1, fx.Welcome(verdict=fx.Verdict.TAKE_THIS_PLAN)), "take_this_plan"),
        (fx.Send(1, fx.Welcome(verdict=fx.Verdict.NO_PLAN_YET)), "no_plan_yet"),
        (fx.EndStream(1, ERROR), "refused"),
    ],
)
def test_hellos(bench: Bench, instruments: Instruments, effect: Any, outcome: str) -> None:
    """A Hello is counted once, by its own answer; what others are told meanwhile is not."""
    instruments.on_event(builders.hello(1))
    for stream in (2, 3):
        instruments.on_effect(fx.EndStream(stream, ERROR))
        instruments.on_effect(fx.Send(stream, fx.Welcome(verdict=fx.Verdict.UP_TO_DATE)))
    instruments.on_effect(effect)
    instruments.on_effect(effect)

    counts = {
        each: bench.count("hellos_total", outcome=each)
        for each in ("up_to_date", "take_this_plan", "no_plan_yet", "refused")
    }
    assert counts == {**dict.fromkeys(counts, 0), outcome: 1}


def test_answers_to_plans(bench: Bench, instruments: Instruments) -> None:
    """Acks are counted by phase, Nacks by whether the plan may come again."""
    staged = ev.Ack(stream=1, ref=builders.ref(builders.plan()), phase=ev.AckPhase.STAGED)
    for event in (
        staged,
        builders.applied(builders.plan()),
        builders.nack(1),
        builders.nack(1, is_transient=True),
    ):
        instruments.on_event(event)

    assert of(bench, "acks_total", phase="staged") == 1
    assert of(bench, "acks_total", phase="applied") == 1
    assert of(bench, "nacks_total", kind="permanent") == 1
    assert of(bench, "nacks_total", kind="transient") == 1


def test_reports(bench: Bench, instruments: Instruments) -> None:
    """The time of a report is that at which it was accepted; a refusal is no report."""
    bench.clock.now_s = 5.0
    instruments.on_effect(fx.Send(1, fx.ReportAck(1)))
    bench.clock.now_s = 9.0
    instruments.on_effect(fx.Send(1, fx.Refused(sequence=2, error=ERROR)))

    assert of(bench, "last_report_timestamp_seconds") == 1005.0
    assert bench.count("refused_messages_total", reason="FAILED_PRECONDITION") == 1


def test_milestones(bench: Bench, instruments: Instruments) -> None:
    """A roll-out is timed by milestone; what became of its plan is counted."""
    for milestone in fx.Milestone:
        instruments.on_effect(fx.Reached(milestone, 2.0))

    for milestone in fx.Milestone:
        assert bench.count("rollout_duration_seconds_sum", milestone=milestone) == 2.0
    for outcome in ("committed", "applied", "aborted"):
        assert of(bench, "plans_total", outcome=outcome) == 1


@pytest.mark.parametrize(
    ("reason", "is_stored", "published", "failed"),
    [
        (Reason.PUBLISHED, True, 1, 0),
        (Reason.ROLLED_BACK, True, 1, 0),
        (Reason.FAILED_ROLLOUT, True, 0, 0),
        (Reason.FAILED_STORE, False, 0, 1),
        (Reason.SKIPPED_PAUSED, False, 0, 0),
    ],
)
def test_decisions(
    bench: Bench,
    instruments: Instruments,
    reason: Reason,
    is_stored: bool,
    published: int,
    failed: int,
) -> None:
    """Decisions are counted by reason, and the plans that came of them."""
    instruments.on_effect(fx.Record(builders.decision(1, reason), is_stored=is_stored))

    assert of(bench, "decisions_total", reason=reason) == 1
    assert of(bench, "plans_total", outcome="published") == published
    assert of(bench, "plans_total", outcome="failed") == failed


def test_time_of_decisions(bench: Bench, instruments: Instruments) -> None:
    """A decision is timed from its solve; what an operator orders meanwhile had none."""
    solve = fx.Solve(solve=1, samples=(), incumbent=builders.plan().phy2log)
    timed = []
    for effect in (
        judged(1, Reason.PUBLISHED_BY_OPERATOR),
        solve,
        judged(2, Reason.ROLLED_BACK),
        judged(3, Reason.SKIPPED_GAIN_TOO_SMALL),
        judged(4, Reason.SKIPPED_PAUSED),
    ):
        instruments.on_effect(effect)
        timed.append(bench.count("decision_duration_seconds_count"))

    assert timed == [0, 0, 0, 1, 1]


def test_plan_in_force(bench: Bench, instruments: Instruments) -> None:
    """A plan in force shows version, age and promise; without one only the version is left, 0."""
    instruments.on_effect(fx.Announce(builders.plan(version=3, state=PlanState.APPLIED)))
    assert of(bench, "committed_version") == 3
    assert of(bench, "plan_created_timestamp_seconds") == 1000.5
    assert of(bench, "promised_balancedness_ratio") == 0.8
    instruments.on_effect(fx.Announce(None))

    assert of(bench, "committed_version") == 0
    assert of(bench, "plan_created_timestamp_seconds") is None
    assert of(bench, "promised_balancedness_ratio") is None


def test_balance(bench: Bench, instruments: Instruments, caplog: pytest.LogCaptureFixture) -> None:
    """What a plan achieves is shown; one that does worse than its predecessor raises an alarm."""
    instruments.on_effect(fx.Observed(0.9))
    with caplog.at_level(logging.WARNING):
        instruments.on_effect(fx.Regressed(4, 0.125))

    assert of(bench, "observed_balancedness_ratio") == 0.9
    assert of(bench, "regressions_total") == 1
    assert "v4 does worse than its predecessor, by 12.5 %" in caplog.text


async def test_standing(bench: Bench) -> None:
    """Ticks show where the deployment stands: pause, staging, what members serve with."""
    bench.solver.answer = builders.solution()
    async with bench.running() as driven:
        await driven.hear(1)
        await driven.ask(builders.report(), 2)
        plan = bench.store.plan(builders.NAME, 1)
        await driven.driver.submit(builders.applied(plan))
        await driven.driver.submit(ev.Tick())
        await driven.settle()

    assert of(bench, "participants") == 1
    assert (of(bench, "applied_min_version"), of(bench, "applied_max_version")) == (1, 1)
    assert (of(bench, "staging_version"), of(bench, "paused")) == (0, 0)
    assert of(bench, "event_queue_length") is not None
    assert bench.count("hellos_total", outcome="no_plan_yet") == 1


def test_age_of_the_oldest_report(bench: Bench) -> None:
    """One participant that reports no more shows, however many others do."""
    group = builders.group()
    for event, now_s in (
        (builders.hello(1, "a", (0,)), 0.0),
        (builders.hello(2, "b", (1,)), 2.0),
        (builders.report(stream=1), 8.0),
    ):
        group.handle(event, builders.at(now_s))
    bench.clock.now_s = 9.0
    Instruments(group, bench.services).look(0)

    assert of(bench, "oldest_report_age_seconds") == 7.0
