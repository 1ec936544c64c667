"""The hand-off over a Unix socket: real sidecar, scripted planner, engine by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from expertplane.v1 import placement_service_pb2 as placement_pb2
from expertplane_client import CacheEntry, PlanCache
from expertplane_client.sidecar import daemon

from .. import builders
from ..engine import COUNTS
from .handoff import config, counts_document, health, phy2log, running, until


if TYPE_CHECKING:
    from pathlib import Path

    from ..scripted_planner import ScriptedPlanner


def stage(version: int, *, deadline_s: float = 60.0) -> placement_pb2.Stage:
    """Returns the request to prepare a plan."""
    return placement_pb2.Stage(plan=builders.plan_message(version), deadline_s=deadline_s)


def keep(folder: Path, version: int) -> None:
    """Puts a last known good plan on disk."""
    entry = CacheEntry(plan=builders.plan(version), highest_version=version, highest_epoch=1)
    PlanCache(folder / "cache").save(builders.DEPLOYMENT, "node-0", entry)


async def test_a_plan_goes_through_all_its_stages(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """Stage, staged, commit, applied: each word crosses both ways, and load follows."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, hello = await planner.welcomed()
        assert (hello.engine_run_id, hello.applied.version) == ("run-1", 0)

        stream.say(stage=stage(4))
        order = await engine.hear("stage")
        np.testing.assert_array_equal(phy2log(order), builders.phy2log())
        assert (order["version"], order["digest"]) == (4, builders.PINNED_DIGEST)
        assert 0 < order["deadline_s"] <= 60
        engine.say("staged", version=4)
        staged = await stream.hear("ack")
        assert (staged.version, staged.phase) == (4, placement_pb2.ACK_PHASE_STAGED)

        stream.say(commit=builders.commit(4, has_plan=False))
        order = await engine.hear("commit")
        np.testing.assert_array_equal(phy2log(order), builders.phy2log())
        # In one breath: the load that follows the answer is load under the new plan.
        engine.say("applied", version=4, step=100)
        engine.say("load", first_step=100, counts=counts_document(COUNTS))
        report = await stream.hear("load_report")

        assert (report.plan_version, report.first_step) == (4, 100)
        assert app.sidecar.figures().applied_version == 4


async def test_the_planner_never_sees_an_engine_that_is_not_there(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """Before the first engine nobody answers for the ranks."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        assert await health(app, "readiness") == "NOT_SERVING"
        assert await health(app, "liveness") == "SERVING"
        engine = await app.engine()
        await engine.hear("no_plan")
        await planner.welcomed()

        await until(lambda: app.sidecar.is_ready)
        assert await health(app, "readiness") == "SERVING"
        assert await health(app, "") == "SERVING"


@pytest.mark.parametrize("is_transient", [True, False])
async def test_a_refusal_reaches_the_planner(
    planner: ScriptedPlanner, tmp_path: Path, is_transient: bool
) -> None:
    """What the engine cannot, or will never, prepare is a Nack in its words."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await engine.hear("stage")
        engine.say("refused", version=4, message="no memory", transient=is_transient)
        nack = await stream.hear("nack")

        assert (nack.version, nack.is_transient) == (4, is_transient)
        assert "no memory" in nack.problem.message


async def test_an_abort_reaches_the_engine(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """The buffers are given back, and an answer that comes too late is an error to it."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await engine.hear("stage")
        stream.say(abort=placement_pb2.Abort(version=4))
        abort = await engine.hear("abort")
        engine.say("staged", version=4)
        error = await engine.hear("error")

        assert abort["version"] == 4
        assert "not asked for" in error["message"]


async def test_a_commit_waits_for_the_engine(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """What comes while the engine is away is told to it when the same engine is back."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        await engine.close()
        await until(lambda: not app.sidecar.figures().is_engine_attached)
        stream.say(commit=builders.commit(5))
        # Answered in order, so that the Commit has arrived when this one is.
        stream.say(commit=builders.commit(9, deployment="prod/other"))
        await stream.hear("nack")
        assert app.sidecar.figures().applied_version == 0
        assert await health(app, "readiness") == "NOT_SERVING"

        engine = await app.engine()
        await engine.hear("no_plan")
        await engine.hear("commit")
        engine.say("applied", version=5, step=7)
        ack = await stream.hear("ack")

        assert (ack.version, ack.step) == (5, 7)
        assert app.sidecar.figures().num_connects == 1


async def test_a_stage_waits_for_the_engine(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """A lost connection amid a preparation is no refusal: the order is told again."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(5))
        await engine.hear("stage")
        await engine.close()
        engine = await app.engine()
        await engine.hear("no_plan")
        await engine.hear("stage")
        engine.say("staged", version=5)

        assert (await stream.hear("ack")).phase == placement_pb2.ACK_PHASE_STAGED


async def test_an_engine_that_has_switched_unheard_is_not_sent_back(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """Its next hello is the answer that the lost connection swallowed."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(5))
        await engine.hear("commit")
        await engine.close()
        applied = {"version": 5, "digest": builders.PINNED_DIGEST, "step": 70}
        engine = await app.engine(applied=applied)
        # In one breath: what was counted before the answer is noted would pass for older load.
        engine.say("load", first_step=80, counts=counts_document(COUNTS))
        order = await engine.hear("plan")
        ack = await stream.hear("ack")

        assert (order["version"], ack.version, ack.step) == (5, 5, 70)
        assert app.sidecar.figures().num_ignored == 1
        assert app.sidecar.figures().num_connects == 1


async def test_what_is_staged_is_told_to_the_engine_that_is_back(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """The planner counts on the buffers, so the engine is to keep them."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(5))
        await engine.hear("stage")
        engine.say("staged", version=5)
        await stream.hear("ack")
        await engine.close()
        engine = await app.engine()
        await engine.hear("no_plan")
        await engine.hear("stage")
        engine.say("staged", version=5)
        stream.say(abort=placement_pb2.Abort(version=5))

        assert (await engine.hear("abort"))["version"] == 5


async def test_a_stage_without_an_engine_ends_at_its_deadline(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """Until then the answer is held; after it the planner is told, and may try again."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        await engine.close()
        await until(lambda: not app.sidecar.figures().is_engine_attached)
        stream.say(stage=stage(5, deadline_s=0.05))
        nack = await stream.hear("nack")

        assert (nack.version, nack.is_transient) == (5, True)
        assert "deadline" in nack.problem.message


async def test_a_participant_that_fails_is_followed_by_another(
    planner: ScriptedPlanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect costs the connection and not the sidecar."""
    failures = [ZeroDivisionError()]
    load = PlanCache.load

    def failing(self: PlanCache, deployment: str, participant_id: str) -> CacheEntry | None:
        if failures:
            raise failures.pop()
        return load(self, deployment, participant_id)

    monkeypatch.setattr(PlanCache, "load", failing)
    monkeypatch.setattr(daemon, "RETRY_S", 0.01)
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        await planner.welcomed()

        assert failures == []


async def test_a_restarted_engine_starts_with_the_last_plan(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """With the planner gone, a new run of the engine gets the last known good plan."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, first = await planner.welcomed()
        stream.say(commit=builders.commit(5))
        await engine.hear("commit")
        engine.say("applied", version=5, step=7)
        await stream.hear("ack")
        await planner.kill()
        await engine.close()

        engine = await app.engine(engine_run_id="run-2")
        order = await engine.hear("plan")
        np.testing.assert_array_equal(phy2log(order), builders.phy2log())
        engine.say("applied", version=5, step=0)
        await until(lambda: app.sidecar.is_ready)
        assert await health(app, "readiness") == "SERVING"
        await planner.start()
        _, second = await planner.welcomed(verdict=placement_pb2.PLAN_VERDICT_UP_TO_DATE)

        assert (order["version"], second.engine_run_id, second.applied.version) == (5, "run-2", 5)
        assert first.incarnation != second.incarnation


async def test_an_engine_that_lost_its_plan_is_not_believed_to_have_it(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """The same run that serves with the start placement again is told the plan anew."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, first = await planner.welcomed()
        stream.say(commit=builders.commit(5))
        await engine.hear("commit")
        engine.say("applied", version=5, step=7)
        await stream.hear("ack")
        await engine.close()
        engine = await app.engine()
        await engine.hear("plan")
        engine.say("refused", version=5, message="no memory")
        _, second = await planner.welcomed()

        assert first.incarnation != second.incarnation
        assert second.applied.version == 0


async def test_a_restarted_sidecar_asks_nothing_of_an_engine_that_serves(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """The engine goes on with the cached plan, and the planner hears so at once."""
    keep(tmp_path, 5)
    settings = config(planner.address, tmp_path)
    applied = {"version": 5, "digest": builders.PINNED_DIGEST, "step": 70}
    async with running(settings) as app:
        engine = await app.engine(applied=applied)
        order = await engine.hear("plan")
        _, hello = await planner.welcomed(verdict=placement_pb2.PLAN_VERDICT_UP_TO_DATE)

        assert (order["version"], hello.applied.version) == (5, 5)


async def test_a_switch_that_the_sidecar_did_not_live_to_hear_of_is_believed(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """A sidecar killed between the order and its answer finds the engine ahead, and follows."""
    keep(tmp_path, 5)
    entry = CacheEntry(plan=builders.plan(6), highest_version=6, highest_epoch=1)
    PlanCache(tmp_path / "cache" / "ordered").save(builders.DEPLOYMENT, "node-0", entry)
    settings = config(planner.address, tmp_path)
    applied = {"version": 6, "digest": builders.PINNED_DIGEST, "step": 70}
    async with running(settings) as app:
        engine = await app.engine(applied=applied)
        order = await engine.hear("plan")
        _, hello = await planner.welcomed(verdict=placement_pb2.PLAN_VERDICT_UP_TO_DATE)

        assert (order["version"], hello.applied.version) == (6, 6)


async def test_load_of_an_unknown_plan_is_left_out(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """Counts that came before the engine answered for its plan are nobody's."""
    keep(tmp_path, 5)
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("plan")
        engine.say("load", first_step=1, counts=counts_document(COUNTS))
        engine.say("applied", version=5, step=0)
        stream, _ = await planner.welcomed()
        engine.say("load", first_step=2, counts=counts_document(COUNTS))

        assert (await stream.hear("load_report")).first_step == 2
        assert app.sidecar.figures().num_ignored == 1


async def test_a_start_placement_reaches_the_planner(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """The map of the engine's hello is the map of the participant's."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        start = counts_document(builders.phy2log())
        await app.engine(initial_phy2log=start)
        _, hello = await planner.welcomed()

        assert hello.applied.digest == builders.PINNED_DIGEST
        assert list(hello.initial_phy2log.shape) == [2, 4]
