"""A participant against a scripted planner, on a real port."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest

from expertplane.v1 import placement_service_pb2 as placement_pb2, problem_pb2
from expertplane_client import Backoff, CacheEntry, Participant, PlanCache

from . import builders
from .engine import COUNTS, QUICK, Engine, participant
from .scripted_planner import PATIENCE_S, ScriptedPlanner


async def test_a_commit_reaches_the_ranks(planner: ScriptedPlanner) -> None:
    """The ranks switch to what is committed, and the planner hears at which step."""
    engine = Engine()
    async with participant(planner, engine) as node:
        stream, hello = await planner.welcomed()
        nonce = stream.say(commit=builders.commit(1))
        ack = await stream.hear("ack")

        assert (
            hello.deployment,
            hello.participant_id,
            list(hello.ranks),
        ) == (builders.DEPLOYMENT, "node-0", [0, 1])
        assert (nonce, 1, placement_pb2.ACK_PHASE_APPLIED, 100, builders.PINNED_DIGEST) == (
            ack.nonce,
            ack.version,
            ack.phase,
            ack.step,
            ack.digest,
        )
        assert node.plan is not None
        assert (node.plan.version, node.applied_version, node.is_connected) == (1, 1, True)
        assert engine.versions == [1]


async def test_a_killed_planner_costs_nothing_but_the_connection(planner: ScriptedPlanner) -> None:
    """The ranks keep their plan; the participant comes back and says what it serves with."""
    engine = Engine()
    async with participant(planner, engine) as node:
        stream, first = await planner.welcomed()
        stream.say(commit=builders.commit(1))
        await stream.hear("ack")
        await planner.kill()
        planner.epoch = 2
        await planner.start()
        _, second = await planner.welcomed(verdict=placement_pb2.PLAN_VERDICT_UP_TO_DATE)

        assert (second.applied.version, second.applied.digest) == (1, builders.PINNED_DIGEST)
        assert first.incarnation == second.incarnation
        assert (second.highest_version, second.highest_epoch) == (1, 1)
        assert node.applied_version == 1
        assert engine.versions == [1]


async def test_a_planner_that_comes_up_later_is_found(planner: ScriptedPlanner) -> None:
    """A participant may start before its planner."""
    await planner.kill()
    async with participant(planner, Engine()) as node:
        assert not node.is_connected
        await planner.start()
        stream, _ = await planner.welcomed()
        node.report(COUNTS, 1)
        await stream.hear("load_report")

        assert node.statistics.num_connects == 1


async def test_a_report_is_counted_when_it_is_answered(planner: ScriptedPlanner) -> None:
    """A report names the plan that it was measured under; flush ends with the last answer."""
    async with participant(planner, Engine()) as node:
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(1))
        await stream.hear("ack")
        node.report(COUNTS, 200, steps_per_sample=5)
        flushing = asyncio.ensure_future(node.flush())
        report = await stream.hear("load_report")
        assert not flushing.done()
        stream.say(report_ack=placement_pb2.ReportAck(sequence=report.sequence))

        assert await flushing
        assert (
            report.plan_version,
            report.first_step,
            report.steps_per_sample,
            list(report.counts.shape),
        ) == (1, 200, 5, [1, 2, 3])
        assert (
            node.statistics.num_acked,
            node.statistics.num_refused,
            node.statistics.num_dropped,
        ) == (1, 0, 0)


async def test_a_refused_report_leaves_the_stream_alive(planner: ScriptedPlanner) -> None:
    """Why it was refused can be read, and the next report goes out on the same stream."""
    async with participant(planner, Engine()) as node:
        stream, _ = await planner.welcomed()
        node.report(COUNTS, 1)
        report = await stream.hear("load_report")
        problem = problem_pb2.Problem(reason="BAD_SHAPE", field="f", message="Expected x.")
        stream.say(refused=placement_pb2.Refused(sequence=report.sequence, problem=problem))
        assert await node.flush()
        node.report(COUNTS, 2)

        assert (await stream.hear("load_report")).first_step == 2
        assert node.last_refusal is not None
        assert (
            node.last_refusal.reason,
            node.last_refusal.field,
            node.last_refusal.message,
        ) == ("BAD_SHAPE", "f", "Expected x.")
        assert (node.statistics.num_refused, node.statistics.num_connects) == (1, 1)


async def test_unanswered_reports_are_sent_again(planner: ScriptedPlanner) -> None:
    """What a dead planner did not answer, its successor hears, in order and once each."""
    async with participant(planner, Engine()) as node:
        stream, _ = await planner.welcomed()
        node.report(COUNTS, 1)
        first = await stream.hear("load_report")
        stream.say(report_ack=placement_pb2.ReportAck(sequence=first.sequence))
        assert await node.flush()
        node.report(COUNTS, 2)
        node.report(COUNTS, 3)
        await stream.hear("load_report")
        await stream.hear("load_report")
        await planner.kill()
        await planner.start()
        stream, _ = await planner.welcomed()
        again = [await stream.hear("load_report") for _ in range(2)]

        assert [report.first_step for report in again] == [2, 3]
        for report in again:
            stream.say(report_ack=placement_pb2.ReportAck(sequence=report.sequence))
        assert await node.flush()
        assert node.statistics.num_acked == 3


async def test_reports_never_block_and_are_bounded(planner: ScriptedPlanner) -> None:
    """Without a planner at most 64 reports wait; the newest are kept, the rest is counted."""
    await planner.kill()
    async with participant(planner, Engine()) as node:
        for step in range(70):
            node.report(COUNTS, step)
        await planner.start()
        stream, _ = await planner.welcomed()

        assert (await stream.hear("load_report")).first_step == 6
        assert node.statistics.num_dropped == 6


async def test_a_drain_is_followed_by_a_return(planner: ScriptedPlanner) -> None:
    """The stream ends at once, without a goodbye, and a new one follows within the window."""
    async with participant(planner, Engine()) as node:
        stream, _ = await planner.welcomed()
        stream.say(drain=placement_pb2.Drain(reconnect_window_s=0.01))
        async with asyncio.timeout(PATIENCE_S):
            await stream.has_ended.wait()
        await planner.welcomed()

        with pytest.raises(asyncio.QueueEmpty):
            stream.heard_now("goodbye")
        assert node.statistics.num_connects >= 1


async def test_the_window_of_a_drain_is_drawn_from(planner: ScriptedPlanner) -> None:
    """The return is a random share of the window away, whatever the back-off would be."""

    class Spy(random.Random):
        spans: list[tuple[float, float]]

        def uniform(self, a: float, b: float) -> float:
            self.spans.append((a, b))
            return 0.0

    spy = Spy(0)
    spy.spans = []
    async with participant(planner, Engine(), rng=spy):
        stream, _ = await planner.welcomed()
        stream.say(drain=placement_pb2.Drain(reconnect_window_s=30.0))
        await planner.welcomed()

        assert spy.spans == [(0.0, 30.0)]


async def test_a_silent_planner_is_left(planner: ScriptedPlanner) -> None:
    """A planner that keeps the connection but says nothing for three intervals is given up."""
    async with participant(planner, Engine()):
        stream, _ = await planner.welcomed(heartbeat_interval_s=0.02)
        await stream.hear("heartbeat")
        again = await planner.stream()

        assert (await again.hear("hello")).participant_id == "node-0"


async def test_the_planners_heartbeats_keep_the_stream(planner: ScriptedPlanner) -> None:
    """Signs of life count as life: the stream outlasts many intervals."""
    async with participant(planner, Engine()) as node:
        stream, _ = await planner.welcomed(heartbeat_interval_s=0.4)
        for _ in range(4):
            await stream.hear("heartbeat")
            stream.say(heartbeat=placement_pb2.PlannerHeartbeat())

        assert node.statistics.num_connects == 1
        assert not stream.has_ended.is_set()


async def test_goodbye_is_said_when_it_stops(planner: ScriptedPlanner) -> None:
    """Whoever stops on purpose says so, and nothing is left running."""
    before = asyncio.all_tasks()
    node = participant(planner, Engine())
    async with node:
        stream, _ = await planner.welcomed()
        await node.stop("maintenance")

        assert (await stream.hear("goodbye")).reason == "maintenance"
    async with asyncio.timeout(PATIENCE_S):
        await stream.has_ended.wait()
    ours = {task for task in asyncio.all_tasks() - before if "expertplane_client" in repr(task)}
    assert ours == set()
    assert not node.is_connected


async def test_it_stops_while_the_planner_is_away(planner: ScriptedPlanner) -> None:
    """A stop waits neither for a planner nor for a back-off; reports without answer are told."""
    await planner.kill()
    slow = Backoff(initial_s=3600.0, max_s=3600.0)
    async with participant(planner, Engine(), backoff=slow) as node:
        node.report(COUNTS, 1)
        flushing = asyncio.ensure_future(node.flush())
        await node.stop()

        assert not await flushing


async def test_a_cancelled_run_leaves_nothing_behind(planner: ScriptedPlanner) -> None:
    """Cancelling `run` ends the stream and every task of the participant."""
    before = asyncio.all_tasks()
    node = participant(planner, Engine())
    running = asyncio.create_task(node.run())
    stream, _ = await planner.welcomed()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    async with asyncio.timeout(PATIENCE_S):
        await stream.has_ended.wait()
    ours = {task for task in asyncio.all_tasks() - before if "expertplane_client" in repr(task)}
    assert ours == set()


async def test_a_participant_that_fails_does_not_hang(
    planner: ScriptedPlanner, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect is logged, ends the waits of whoever reports, and is raised on the way out."""

    class Broken(PlanCache):
        def load(self, deployment: str, participant_id: str) -> CacheEntry | None:
            raise ZeroDivisionError

    async def report() -> None:
        async with participant(planner, Engine(), cache=Broken("never")) as node:
            node.report(COUNTS, 1)
            assert not await node.flush()

    with pytest.raises(ExceptionGroup, match="unhandled"):
        await report()

    assert "participant node-0 has failed" in caplog.text


async def test_a_failed_switch_is_told_and_tried_again(planner: ScriptedPlanner) -> None:
    """What the engine raises is a transient refusal; the plan in force stays."""
    engine = Engine()
    engine.failures.append(RuntimeError("no memory"))
    async with participant(planner, engine) as node:
        stream, _ = await planner.welcomed()
        nonce = stream.say(commit=builders.commit(1))
        nack = await stream.hear("nack")

        assert (nonce, 1, True) == (nack.nonce, nack.version, nack.is_transient)
        assert "no memory" in nack.problem.message
        assert (node.plan, node.applied_version) == (None, 0)
        stream.say(commit=builders.commit(1))
        assert (await stream.hear("ack")).version == 1


async def test_a_bad_plan_never_reaches_the_ranks(planner: ScriptedPlanner) -> None:
    """A plan with a wrong digest is refused for good, and the stream lives."""
    engine = Engine()
    bad = builders.commit(1)
    bad.plan.metadata.digest = "0" * 64
    async with participant(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(commit=bad)
        nack = await stream.hear("nack")
        stream.say(commit=builders.commit(2))
        await stream.hear("ack")

        assert not nack.is_transient
        assert engine.versions == [2]


async def test_a_switch_under_way_is_not_disturbed(planner: ScriptedPlanner) -> None:
    """Plans that arrive during a switch wait, and only the newest of them is switched to."""
    engine = Engine()
    engine.may_switch.clear()
    async with participant(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(1))
        async with asyncio.timeout(PATIENCE_S):
            await engine.is_switching.wait()
        stream.say(commit=builders.commit(2))
        stream.say(commit=builders.commit(3))
        # Answered in order, so that both commits have arrived when this one is.
        stream.say(commit=builders.commit(9, deployment="prod/other"))
        await stream.hear("nack")
        engine.may_switch.set()
        acked = [(await stream.hear("ack")).version for _ in range(2)]

        assert acked == [1, 3]
        assert engine.versions == [1, 3]


async def test_a_refused_stream_is_told_and_tried_again(planner: ScriptedPlanner) -> None:
    """A planner that refuses the participant is asked again; why it refused can be read."""
    planner.failure = (grpc.StatusCode.ALREADY_EXISTS, "Ranks are taken.", ())
    async with participant(planner, Engine()) as node:
        async with asyncio.timeout(PATIENCE_S):
            # Whoever comes back a second time has heard the first refusal.
            await planner.refusals.get()
            await planner.refusals.get()
        planner.failure = None
        await planner.welcomed()

        assert node.last_refusal is not None
        assert (
            node.last_refusal.code,
            node.last_refusal.message,
        ) == ("ALREADY_EXISTS", "Ranks are taken.")


async def test_a_deployment_that_appears_later_gets_its_reports(planner: ScriptedPlanner) -> None:
    """Reports wait on the living stream until the planner knows the deployment."""
    async with participant(planner, Engine()) as node:
        stream, _ = await planner.welcomed(verdict=placement_pb2.PLAN_VERDICT_DEPLOYMENT_UNKNOWN)
        node.report(COUNTS, 1)
        stream.say(welcome=builders.welcome())

        assert (await stream.hear("load_report")).first_step == 1
        assert node.statistics.num_connects == 1


async def test_many_participants_share_a_process(planner: ScriptedPlanner) -> None:
    """Each has a session of its own, and all reach the same version."""
    nodes = [
        Participant(
            planner.address,
            builders.DEPLOYMENT,
            f"node-{rank}",
            (rank,),
            engine_run_id="run-1",
            apply=Engine().apply,
            backoff=QUICK,
        )
        for rank in range(24)
    ]
    async with asyncio.TaskGroup() as running:
        for node in nodes:
            running.create_task(node.run())
        streams = [await planner.welcomed() for _ in nodes]
        for stream, _ in streams:
            stream.say(commit=builders.commit(1))
        acks = [await stream.hear("ack") for stream, _ in streams]
        for node in nodes:
            await node.stop()

    assert {1} == {ack.version for ack in acks} == {node.applied_version for node in nodes}
    assert {f"node-{rank}" for rank in range(24)} == {hello.participant_id for _, hello in streams}
