"""Who may connect to the socket, and what becomes of what they should not say."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_client import InputError
from expertplane_client.sidecar.config import HandoffConfig
from expertplane_client.sidecar.socket_port import SocketPort

from .. import builders
from ..engine import COUNTS
from .handoff import config, counts_document, running, until


if TYPE_CHECKING:
    from pathlib import Path

    from ..scripted_planner import ScriptedPlanner


async def test_a_later_engine_replaces_the_former(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """One engine at a time: the former is told and let go, the later one is served."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        former = await app.engine()
        await former.hear("no_plan")
        await planner.welcomed()
        later = await app.engine(engine_run_id="run-2")
        error = await former.hear("error")
        assert await former.has_ended()
        await later.hear("no_plan")
        _, hello = await planner.welcomed()

        assert "only engine" in error["message"]
        assert hello.engine_run_id == "run-2"
        assert app.sidecar.figures().num_engines == 2


async def test_a_former_engine_that_does_not_read_is_let_go(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """What it left unread is dropped, so that hung engines do not fill the places of live ones."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        with socket.socket(socket.AF_UNIX) as former:
            former.setblocking(False)
            former.connect(str(settings.handoff.path))
            former.sendall(b'{"type": "hello", "engine_run_id": "run-1"}\n')
            await planner.welcomed()
            for _ in range(40):
                with contextlib.suppress(BlockingIOError):
                    # Each line is answered with a complaint; nobody reads them.
                    former.sendall(b'{"type": "%s"}\n' % (b"x" * 40) * 1000)
                await asyncio.sleep(0)
            port = app.sidecar._port
            assert isinstance(port, SocketPort)
            await until(lambda: any(each.num_unread_bytes for each in port._connections))
            later = await app.engine(engine_run_id="run-2")
            await later.hear("no_plan")

            await until(lambda: len(port._connections) == 1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "JSON object"),
        (b"[1]", "JSON object"),
        (b"[" * 3000, "JSON object"),
        (b'{"type": "dance"}', "type"),
        (b'{"type": "staged", "version": -1}', "staged.version"),
        (b'{"type": "staged", "version": 1, "x": 1}', "'x'"),
        (b'{"type": "staged", "version": 9}', "not asked for"),
        (b'{"type": "load", "first_step": 1}', "load.counts"),
        (b"x" * 5000, "4096 bytes"),
    ],
)
async def test_a_bad_line_changes_nothing(
    planner: ScriptedPlanner, tmp_path: Path, line: bytes, complaint: str
) -> None:
    """It is answered with what was expected, and the connection serves on."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        engine.say_raw(line + b"\n")
        error = await engine.hear("error")
        engine.say("load", first_step=3, counts=counts_document(COUNTS))

        assert complaint in error["message"]
        assert (await stream.hear("load_report")).first_step == 3
        assert app.sidecar.figures().num_complaints == 1


async def test_a_line_without_an_end_is_not_waited_for(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """It is refused, once, as soon as it is too long; what follows its end is heard."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        engine.say_raw(b"x" * 5000)
        error = await engine.hear("error")
        engine.say_raw(b"y" * 5000 + b"\n")
        engine.say("load", first_step=3, counts=counts_document(COUNTS))

        assert "4096 bytes" in error["message"]
        assert (await stream.hear("load_report")).first_step == 3
        assert app.sidecar.figures().num_complaints == 1


async def test_nobody_is_an_engine_before_its_hello(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """A connection that says something else, or no name, does not replace the engine."""
    settings = config(planner.address, tmp_path)
    async with running(settings) as app:
        engine = await app.engine()
        await engine.hear("no_plan")
        stream, _ = await planner.welcomed()
        stranger = await app.stranger()
        stranger.say("applied", version=1, step=1)
        first = await stranger.hear("error")
        stranger.say("hello")
        second = await stranger.hear("error")
        stream.say(commit=builders.commit(5))
        await engine.hear("commit")

        assert "hello first" in first["message"]
        assert "engine_run_id" in second["message"]


async def test_a_configured_run_names_an_engine_that_does_not(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """An engine without a name of its own takes part under that of the configuration."""
    settings = config(planner.address, tmp_path, engine_run_id="run-7")
    async with running(settings) as app:
        engine = await app.stranger()
        engine.say("hello")
        _, hello = await planner.welcomed()

        assert hello.engine_run_id == "run-7"


async def test_the_socket_is_for_the_owner_alone(tmp_path: Path) -> None:
    """Nobody else may move experts; the file is gone when the sidecar is."""
    settings = config("127.0.0.1:1", tmp_path)
    async with running(settings):
        assert stat.S_IMODE(settings.handoff.path.stat().st_mode) == 0o600

    assert not settings.handoff.path.exists()


async def test_what_a_dead_sidecar_left_is_replaced(tmp_path: Path) -> None:
    """A socket on which nobody listens is stale; one with a listener is another sidecar's."""
    settings = config("127.0.0.1:1", tmp_path)
    dead = await asyncio.start_unix_server(lambda *_: None, settings.handoff.path)
    dead.close()
    async with running(settings) as app:
        with pytest.raises(InputError, match="another sidecar"):
            async with running(settings):
                pass
        await app.engine()


@pytest.mark.parametrize("case", ["file", "long"])
async def test_a_place_that_holds_no_socket_is_refused(tmp_path: Path, case: str) -> None:
    """Another file is never removed, and a path that no socket can have is named."""
    (tmp_path / "engine.sock").write_text("precious")
    path = tmp_path / ("engine.sock" if case == "file" else "x" * 100)
    changes: Any = {"handoff": HandoffConfig(kind="socket", path=path)}
    with pytest.raises(InputError, match="another file" if case == "file" else "103 bytes"):
        async with running(config("127.0.0.1:1", tmp_path, **changes)):
            pass

    assert (tmp_path / "engine.sock").read_text() == "precious"
