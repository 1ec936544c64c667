"""A participant whose engine prepares plans, against a scripted planner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from expertplane.v1 import placement_service_pb2 as placement_pb2
from expertplane_client import PlanUnacceptableError

from . import builders
from .engine import Engine, StagingEngine, participant
from .scripted_planner import PATIENCE_S, ScriptedPlanner


if TYPE_CHECKING:
    from expertplane_client import Participant


def stage(version: int, *, deadline_s: float = 60.0) -> placement_pb2.Stage:
    """Returns the request to prepare a plan."""
    return placement_pb2.Stage(plan=builders.plan_message(version), deadline_s=deadline_s)


def staging(planner: ScriptedPlanner, engine: StagingEngine) -> Participant:
    """Returns a participant whose engine prepares plans."""
    return participant(planner, engine, stage=engine.stage, unstage=engine.unstage)


async def has(event: asyncio.Event) -> None:
    """Waits for an event of the engine."""
    async with asyncio.timeout(PATIENCE_S):
        await event.wait()


async def test_staged_is_said_after_the_engine(planner: ScriptedPlanner) -> None:
    """STAGED goes out when the callback has returned, and the Commit then needs no plan."""
    engine = StagingEngine()
    engine.may_stage.clear()
    async with staging(planner, engine) as node:
        stream, _ = await planner.welcomed()
        nonce = stream.say(stage=stage(4))
        await has(engine.is_staging)
        with pytest.raises(asyncio.QueueEmpty):
            stream.heard_now("ack")
        assert node.staged_version == 0
        engine.may_stage.set()
        ack = await stream.hear("ack")

        assert (ack.nonce, ack.version, ack.phase) == (nonce, 4, placement_pb2.ACK_PHASE_STAGED)
        assert 0 < engine.deadlines_s[0] <= 60
        assert node.staged_version == 4
        stream.say(commit=builders.commit(4, has_plan=False))
        assert (await stream.hear("ack")).phase == placement_pb2.ACK_PHASE_APPLIED
        assert engine.calls == [("stage", 4), ("apply", 4)]
    assert engine.calls == [("stage", 4), ("apply", 4)]


async def test_without_a_callback_everything_is_staged(planner: ScriptedPlanner) -> None:
    """An engine that has nothing to prepare does not hold up the others."""
    async with participant(planner, Engine()):
        stream, _ = await planner.welcomed()
        nonce = stream.say(stage=stage(4))
        ack = await stream.hear("ack")

        assert (ack.nonce, ack.phase) == (nonce, placement_pb2.ACK_PHASE_STAGED)


@pytest.mark.parametrize(
    ("failure", "is_transient"),
    [(RuntimeError("no memory"), True), (PlanUnacceptableError("no such rank"), False)],
)
async def test_what_the_engine_raises_is_a_nack(
    planner: ScriptedPlanner, failure: Exception, is_transient: bool
) -> None:
    """Only an engine that says never is not asked again; what failed needs no dropping."""
    engine = StagingEngine()
    engine.stage_failures.append(failure)
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        nonce = stream.say(stage=stage(4))
        nack = await stream.hear("nack")
        stream.say(stage=stage(5))
        await stream.hear("ack")

        assert (nack.nonce, nack.version, nack.is_transient) == (nonce, 4, is_transient)
        quoted = "no such rank." if failure.args == ("no such rank",) else repr(failure)
        assert nack.problem.message.endswith(f"got: {quoted.rstrip('.')}.")
        assert engine.calls == [("stage", 4), ("stage", 5)]


async def test_an_apply_that_says_never_is_a_permanent_nack(planner: ScriptedPlanner) -> None:
    """In advisory mode the switch itself is where an engine can say that."""
    engine = Engine()
    engine.failures.append(PlanUnacceptableError("no such rank"))
    async with participant(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(1))

        assert not (await stream.hear("nack")).is_transient


async def test_an_abort_cancels_the_preparation(planner: ScriptedPlanner) -> None:
    """The callback is cancelled, what it had begun is dropped, and nobody is told STAGED."""
    engine = StagingEngine()
    engine.may_stage.clear()
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await has(engine.is_staging)
        stream.say(abort=placement_pb2.Abort(version=4, reason="a node was lost"))
        await has(engine.has_unstaged)
        engine.may_stage.set()
        stream.say(stage=stage(5))

        assert (await stream.hear("ack")).version == 5
        assert engine.calls == [("stage", 4), ("unstage", 4), ("stage", 5)]


async def test_an_abort_drops_what_is_prepared(planner: ScriptedPlanner) -> None:
    """The buffers are free again for the next plan."""
    engine = StagingEngine()
    async with staging(planner, engine) as node:
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await stream.hear("ack")
        stream.say(abort=placement_pb2.Abort(version=4))
        await has(engine.has_unstaged)

        assert engine.calls == [("stage", 4), ("unstage", 4)]
        assert node.staged_version == 0


async def test_a_newer_stage_replaces_the_older(planner: ScriptedPlanner) -> None:
    """The engine drops the one before it begins the other, and only the other is answered."""
    engine = StagingEngine()
    engine.may_stage.clear()
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await has(engine.is_staging)
        stream.say(stage=stage(5))
        await has(engine.has_unstaged)
        engine.may_stage.set()

        assert (await stream.hear("ack")).version == 5
        assert engine.calls == [("stage", 4), ("unstage", 4), ("stage", 5)]


async def test_a_reconnect_does_not_begin_anew(planner: ScriptedPlanner) -> None:
    """A Stage repeated on the next stream is answered there, by the preparation under way."""
    engine = StagingEngine()
    engine.may_stage.clear()
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await has(engine.is_staging)
        await planner.kill()
        await planner.start()
        stream, hello = await planner.welcomed()
        stream.say(heartbeat=placement_pb2.PlannerHeartbeat())
        nonce = stream.say(stage=stage(4))
        # Answered in order, so that the Stage has arrived when this one is.
        stream.say(commit=builders.commit(9, deployment="prod/other"))
        await stream.hear("nack")
        engine.may_stage.set()
        ack = await stream.hear("ack")

        assert not hello.HasField("staged")
        assert (ack.nonce, ack.version) == (nonce, 4)
        assert engine.calls == [("stage", 4)]


async def test_what_is_staged_is_told_after_a_reconnect(planner: ScriptedPlanner) -> None:
    """The next Hello names the staged plan, and a repeated Stage is answered at once."""
    engine = StagingEngine()
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await stream.hear("ack")
        await planner.kill()
        await planner.start()
        stream, hello = await planner.welcomed()
        nonce = stream.say(stage=stage(4))
        ack = await stream.hear("ack")

        assert (hello.staged.version, hello.staged.digest) == (4, builders.PINNED_DIGEST)
        assert (ack.nonce, ack.phase) == (nonce, placement_pb2.ACK_PHASE_STAGED)
        assert engine.calls == [("stage", 4)]


async def test_a_preparation_ends_at_its_deadline(planner: ScriptedPlanner) -> None:
    """A planner that dies amid a roll-out does not leave the buffers taken for ever."""
    engine = StagingEngine()
    engine.may_stage.clear()
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4, deadline_s=0.05))
        nack = await stream.hear("nack")

        assert (nack.version, nack.is_transient) == (4, True)
        assert "deadline" in nack.problem.message
        assert engine.calls == [("stage", 4), ("unstage", 4)]


async def test_a_commit_waits_for_the_preparation_of_its_plan(planner: ScriptedPlanner) -> None:
    """The engine is told one thing at a time, and switches with what it has fetched."""
    engine = StagingEngine()
    engine.may_stage.clear()
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await has(engine.is_staging)
        stream.say(commit=builders.commit(4))
        stream.say(commit=builders.commit(9, deployment="prod/other"))
        await stream.hear("nack")
        assert engine.calls == [("stage", 4)]
        engine.may_stage.set()
        phases = [(await stream.hear("ack")).phase for _ in range(2)]

        assert phases == [placement_pb2.ACK_PHASE_STAGED, placement_pb2.ACK_PHASE_APPLIED]
        assert engine.calls == [("stage", 4), ("apply", 4)]


async def test_a_commit_of_another_plan_comes_first(planner: ScriptedPlanner) -> None:
    """What is committed does not wait for what may never be: that is cancelled and dropped."""
    engine = StagingEngine()
    engine.may_stage.clear()
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await has(engine.is_staging)
        stream.say(commit=builders.commit(5))

        assert (await stream.hear("ack")).version == 5
        assert engine.calls == [("stage", 4), ("unstage", 4), ("apply", 5)]


async def test_a_stage_amid_a_switch_waits(planner: ScriptedPlanner) -> None:
    """Weights are fetched from where the ranks are after the switch."""
    engine = StagingEngine()
    engine.may_switch.clear()
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(4))
        await has(engine.is_switching)
        stream.say(stage=stage(5))
        stream.say(commit=builders.commit(9, deployment="prod/other"))
        await stream.hear("nack")
        assert engine.calls == [("apply", 4)]
        engine.may_switch.set()
        versions = [(await stream.hear("ack")).version for _ in range(2)]

        assert sorted(versions) == [4, 5]
        assert engine.calls == [("apply", 4), ("stage", 5)]


async def test_stopping_drops_what_is_prepared(planner: ScriptedPlanner) -> None:
    """An engine that goes on without its participant has its buffers back."""
    engine = StagingEngine()
    engine.may_stage.clear()
    async with staging(planner, engine):
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await has(engine.is_staging)

    assert engine.calls == [("stage", 4), ("unstage", 4)]
