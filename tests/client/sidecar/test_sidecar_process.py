"""`expertplane sidecar` as a process: its end, its death, and what survives."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
from click.testing import CliRunner

from expertplane.v1 import placement_service_pb2 as placement_pb2
from expertplane_client.sidecar.app import STOP_TIMEOUT_S, SidecarApp
from expertplane_client.sidecar.command import sidecar as command

from .. import builders
from ..light import REPOSITORY
from .handoff import SocketEngine, config, phy2log, running
from .processes import ended, program, sidecar


if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from expertplane_client.sidecar.config import SidecarConfig

    from ..scripted_planner import ScriptedPlanner


async def engine(settings: SidecarConfig, **hello: Any) -> SocketEngine:
    """Returns an engine that has said hello."""
    path = settings.handoff.path
    attached = SocketEngine(*await asyncio.open_unix_connection(path, limit=2**20))
    attached.say("hello", **{"engine_run_id": "run-1"} | hello)
    return attached


async def test_a_killed_sidecar_leaves_the_plan(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """After kill -9, with no planner in sight, the next engine gets the last known good plan."""
    settings = config(planner.address, tmp_path)
    async with sidecar(tmp_path, settings) as process:
        first = await engine(settings)
        await first.hear("no_plan")
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(5))
        await first.hear("commit")
        first.say("applied", version=5, step=7)
        await stream.hear("ack")
        process.kill()
        await process.wait()
        await first.close()
    await planner.kill()
    assert settings.handoff.path.exists()
    async with sidecar(tmp_path, settings):
        second = await engine(settings, engine_run_id="run-2")
        order = await second.hear("plan")
        await second.close()

        assert order["version"] == 5
        np.testing.assert_array_equal(phy2log(order), builders.phy2log())


async def test_a_sidecar_killed_amid_a_switch_follows_its_engine(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """An engine that switched while nobody listened is not sent back to the plan before."""
    settings = config(planner.address, tmp_path)
    async with sidecar(tmp_path, settings) as process:
        first = await engine(settings)
        await first.hear("no_plan")
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(5))
        await first.hear("commit")
        process.kill()
        await process.wait()
        await first.close()
    async with sidecar(tmp_path, settings):
        applied = {"version": 5, "digest": builders.PINNED_DIGEST, "step": 7}
        again = await engine(settings, applied=applied)
        order = await again.hear("plan")
        _, hello = await planner.welcomed(verdict=placement_pb2.PLAN_VERDICT_UP_TO_DATE)
        await again.close()

        assert (order["version"], hello.applied.version) == (5, 5)


async def test_sigterm_ends_it_in_order(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """It says goodbye though a switch waits for its engine, and leaves no socket behind."""
    settings = config(planner.address, tmp_path)
    async with sidecar(tmp_path, settings) as process:
        attached = await engine(settings)
        await attached.hear("no_plan")
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(5))
        await attached.hear("commit")
        process.send_signal(signal.SIGTERM)
        goodbye = await stream.hear("goodbye")
        code, errors = await ended(process)
        await attached.close()

    assert (goodbye.reason, code) == ("the sidecar stops", 0)
    assert "Traceback" not in errors
    assert "cut short" not in errors
    assert all("message" in json.loads(line) for line in errors.splitlines())
    assert not settings.handoff.path.exists()


async def test_a_second_signal_cuts_the_end_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever presses Ctrl-C twice does not wait for what hangs."""

    async def hang(stopping: asyncio.Event) -> None:
        await asyncio.Event().wait()

    app = SidecarApp(config("127.0.0.1:1", tmp_path))
    monkeypatch.setattr(app.sidecar, "run", hang)
    stopping, hurry = asyncio.Event(), asyncio.Event()
    ending = asyncio.create_task(app.run(stopping, hurry))
    stopping.set()
    hurry.set()
    async with asyncio.timeout(STOP_TIMEOUT_S / 2):
        await ending


async def test_the_engine_of_the_manual_works(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """The example takes part in a roll-out as it stands in the documentation."""
    manual = (REPOSITORY / "docs" / "sidecar.md").read_text()
    example = tmp_path / "engine.py"
    example.write_text(manual.split("```python\n")[1].split("```")[0])
    settings = config(planner.address, tmp_path)
    async with running(settings), program(example, settings.handoff.path):
        stream, hello = await planner.welcomed()
        stage = placement_pb2.Stage(plan=builders.plan_message(4), deadline_s=60)
        stream.say(stage=stage)
        staged = await stream.hear("ack")
        stream.say(commit=builders.commit(4, has_plan=False))
        report = await stream.hear("load_report")

        assert (hello.engine_run_id, staged.phase) == ("run-1", placement_pb2.ACK_PHASE_STAGED)
        assert (report.plan_version, report.first_step) == (4, 1)
        assert list(report.counts.shape) == [1, 2, 3]


def test_a_bad_configuration_is_one_red_line(tmp_path: Path) -> None:
    """Whoever mistypes a setting is told which, and gets no traceback."""
    path = tmp_path / "sidecar.toml"
    path.write_text('planer = "x"')
    result = CliRunner().invoke(command, ["--config", str(path)])

    assert result.exit_code == 1
    assert "got planer" in result.stderr
    assert len(result.stderr.splitlines()) == 1
