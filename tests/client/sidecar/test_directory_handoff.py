"""The hand-off over a directory: real sidecar, scripted planner, engine that writes files."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from expertplane.v1 import placement_service_pb2 as placement_pb2
from expertplane_client import CacheEntry, PlanCache

from .. import builders
from ..engine import COUNTS
from .handoff import DirectoryEngine, config, counts_document, running, until


if TYPE_CHECKING:
    from pathlib import Path

    from ..scripted_planner import ScriptedPlanner, ScriptedStream


def stage(version: int, **changes: Any) -> placement_pb2.Stage:
    """Returns the request to prepare a plan."""
    return placement_pb2.Stage(plan=builders.plan_message(version, **changes), deadline_s=60)


def reference(order: dict[str, Any]) -> dict[str, Any]:
    """Returns what names the plan of an order."""
    return {"version": order["version"], "digest": order["digest"]}


async def serving(stream: ScriptedStream, engine: DirectoryEngine, version: int) -> None:
    """Has the engine switch to a plan."""
    stream.say(commit=builders.commit(version))
    order = await engine.told("serve", version)
    engine.write(applied=reference(order) | {"step": 100})
    assert (await stream.hear("ack")).version == version


async def test_a_plan_goes_through_all_its_stages(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """The orders and the engine's state move along with stage, staged, commit and applied."""
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings):
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        await until(lambda: engine.orders()["no_plan"])
        stream, hello = await planner.welcomed()
        assert hello.engine_run_id == "run-1"

        stream.say(stage=stage(4))
        order = await engine.told("stage", 4)
        np.testing.assert_array_equal(engine.map(order), builders.phy2log())
        assert engine.orders()["serve"] is None
        engine.write(staged=reference(order))
        assert (await stream.hear("ack")).phase == placement_pb2.ACK_PHASE_STAGED

        stream.say(commit=builders.commit(4, has_plan=False))
        order = await engine.told("serve", 4)
        np.testing.assert_array_equal(engine.map(order), builders.phy2log())
        assert engine.orders()["stage"] is None
        engine.write(applied=reference(order) | {"step": 100}, staged=None)
        applied = await stream.hear("ack")

        assert (applied.phase, applied.step) == (placement_pb2.ACK_PHASE_APPLIED, 100)


async def test_load_is_taken_and_removed(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """Files go to the planner in the order of their names; a bad one is removed and counted."""
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings) as app:
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        stream, _ = await planner.welcomed()
        await until(lambda: app.sidecar.is_ready)
        engine.put("load/0.json", b"{")
        for step in (1, 2):
            load = {"first_step": step, "counts": counts_document(COUNTS)}
            engine.put(f"load/{step}.json", json.dumps(load).encode())
        steps = [(await stream.hear("load_report")).first_step for _ in range(2)]

        assert steps == [1, 2]
        assert list((settings.handoff.path / "load").iterdir()) == []
        assert app.sidecar.figures().num_complaints == 1


async def test_a_refusal_is_of_one_order(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """A state file that still holds the last refusal does not refuse the next try."""
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings):
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        order = await engine.told("stage", 4)
        engine.write(refused={"version": 4, "order": order["order"], "message": "no memory"})
        nack = await stream.hear("nack")
        stream.say(stage=stage(4))
        await until(lambda: (engine.orders()["stage"] or order)["order"] != order["order"])
        engine.write(staged=reference(order))

        assert (nack.version, nack.is_transient) == (4, True)
        assert (await stream.hear("ack")).phase == placement_pb2.ACK_PHASE_STAGED


async def test_an_abort_takes_the_order_back(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """The preparation leaves the orders, and its map the directory."""
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings):
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        stream, _ = await planner.welcomed()
        stream.say(stage=stage(4))
        await engine.told("stage", 4)
        stream.say(abort=placement_pb2.Abort(version=4))
        await until(lambda: engine.orders()["stage"] is None)

        await until(lambda: not list((settings.handoff.path / "maps").iterdir()))


async def test_only_maps_in_use_are_kept(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """One map for each order, whatever came before."""
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings):
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        stream, _ = await planner.welcomed()
        await serving(stream, engine, 4)
        await serving(stream, engine, 5)

        order = engine.orders()["serve"]
        await until(
            lambda: (
                [f"maps/{path.name}" for path in (settings.handoff.path / "maps").iterdir()]
                == [order["map"]]
            )
        )


async def test_the_orders_outlive_the_sidecar(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """An engine that restarts while sidecar and planner are away finds its plan; both catch up."""
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings):
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        stream, _ = await planner.welcomed()
        await serving(stream, engine, 4)
    order = engine.orders()["serve"]
    assert order["version"] == 4
    np.testing.assert_array_equal(engine.map(order), builders.phy2log())
    engine.state = {"engine_run_id": "run-2"}
    engine.write(applied=reference(order) | {"step": 0})
    async with running(settings):
        assert engine.orders()["serve"] == order
        _, hello = await planner.welcomed(verdict=placement_pb2.PLAN_VERDICT_UP_TO_DATE)

        assert (hello.engine_run_id, hello.applied.version) == ("run-2", 4)


async def test_a_new_run_starts_with_the_last_plan(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """An engine that has just started is ordered to serve with the cached plan."""
    entry = CacheEntry(plan=builders.plan(5), highest_version=5, highest_epoch=1)
    PlanCache(tmp_path / "cache").save(builders.DEPLOYMENT, "node-0", entry)
    await planner.kill()
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings) as app:
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        order = await engine.told("serve", 5)
        assert not app.sidecar.is_ready
        engine.write(applied=reference(order) | {"step": 0})
        await until(lambda: app.sidecar.is_ready)

        assert app.sidecar.figures().applied_version == 5


async def test_a_bad_state_file_changes_nothing(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """It is counted once, and the next good one is read."""
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings) as app:
        engine = DirectoryEngine(settings.handoff.path)
        engine.put("engine.json", b'{"engine_run_id": 7}')
        await until(lambda: app.sidecar.figures().num_complaints == 1)
        engine.write()
        await planner.welcomed()

        assert app.sidecar.figures().num_complaints == 1


async def test_an_engine_may_leave(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """Without its state file there is no engine, and the sidecar is not ready."""
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings) as app:
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        await until(lambda: app.sidecar.is_ready)
        (settings.handoff.path / "engine.json").unlink()

        await until(lambda: not app.sidecar.figures().is_engine_attached)
        assert not app.sidecar.is_ready


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"serve": {"map": "x"}, "no_plan": 1}'])
async def test_damaged_orders_are_written_anew(
    planner: ScriptedPlanner, tmp_path: Path, content: bytes
) -> None:
    """What a crash or a hand has left does not stop a sidecar."""
    settings = config(planner.address, tmp_path, kind="directory")
    settings.handoff.path.mkdir()
    (settings.handoff.path / "orders.json").write_bytes(content)
    async with running(settings):
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        await until(lambda: engine.orders()["no_plan"] is True)


async def test_what_is_no_file_is_not_waited_for(
    planner: ScriptedPlanner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe in the engine's place, or a folder among the loads, holds nothing up."""
    settings = config(planner.address, tmp_path, kind="directory")
    async with running(settings):
        state = settings.handoff.path / "engine.json"
        os.mkfifo(state)
        (settings.handoff.path / "load" / "a.json").mkdir()
        await until(lambda: "something else" in caplog.text)
        state.unlink()
        engine = DirectoryEngine(settings.handoff.path)
        engine.write()
        stream, _ = await planner.welcomed()
        document = {"first_step": 3, "counts": counts_document(COUNTS)}
        await until(lambda: engine.orders()["no_plan"])
        engine.put("load/b.json", json.dumps(document).encode())

        assert (await stream.hear("load_report")).first_step == 3
