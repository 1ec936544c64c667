"""The engine's end of the socket, in a thread of its own as in an engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
from typing import TYPE_CHECKING

import numpy as np

from expertplane.v1 import placement_service_pb2 as placement_pb2
from expertplane_client.sidecar.engine import EngineLink

from .. import builders
from ..engine import COUNTS
from ..scripted_planner import PATIENCE_S
from .handoff import config, running, until


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from expertplane_client.sidecar.engine import Message

    from ..scripted_planner import ScriptedPlanner


@contextlib.contextmanager
def accepted(path: Path) -> Iterator[tuple[EngineLink, socket.socket]]:
    """Returns a link, and the connection that it has made to a sidecar played by hand."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with EngineLink(path, "run-1") as link:
            assert link.receive() == []
            connection, _ = listener.accept()
            connection.settimeout(PATIENCE_S)
            with connection:
                yield link, connection


async def heard(link: EngineLink) -> Message:
    """Returns the next message, which must come alone."""
    (message,) = await asyncio.to_thread(link.receive, PATIENCE_S)
    return message


async def test_an_engine_takes_part(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """Stage, commit and load pass through the link, arrays included."""
    settings = config(planner.address, tmp_path)
    async with running(settings):
        with EngineLink(settings.handoff.path, "run-1", builders.phy2log()) as link:
            assert (await heard(link)).kind == "no_plan"
            stream, hello = await planner.welcomed()
            stage = placement_pb2.Stage(plan=builders.plan_message(4), deadline_s=60)
            stream.say(stage=stage)
            order = await heard(link)
            assert (order.kind, order.version) == ("stage", 4)
            assert order.phy2log is not None
            np.testing.assert_array_equal(order.phy2log, builders.phy2log())
            assert order.deadline_s is not None
            link.refused(4, "no memory")
            assert (await stream.hear("nack")).is_transient
            stream.say(stage=stage)
            await heard(link)
            link.staged(4)
            await stream.hear("ack")
            stream.say(commit=builders.commit(4, has_plan=False))
            order = await heard(link)
            link.applied(order.version, order.digest, 100)
            link.load(COUNTS, first_step=100)

            assert (await stream.hear("load_report")).plan_version == 4
            assert hello.applied.digest == builders.PINNED_DIGEST


async def test_a_link_outlives_its_sidecar(planner: ScriptedPlanner, tmp_path: Path) -> None:
    """Nothing raises while it is away; the next one hears at once what the engine serves with."""
    settings = config(planner.address, tmp_path)
    with EngineLink(settings.handoff.path, "run-1") as link:
        assert link.receive() == []
        async with running(settings):
            await heard(link)
            stream, _ = await planner.welcomed()
            stream.say(commit=builders.commit(4))
            order = await heard(link)
            link.applied(order.version, order.digest, 100)
            await stream.hear("ack")
        link.load(COUNTS, first_step=101)
        link.staged(9)
        assert link.receive() == []
        assert not link.is_connected
        async with running(settings) as app:
            order = await heard(link)
            _, hello = await planner.welcomed(verdict=placement_pb2.PLAN_VERDICT_UP_TO_DATE)
            await until(lambda: app.sidecar.is_ready)

            assert (order.kind, order.version, hello.applied.version) == ("plan", 4, 4)


def test_nothing_that_a_sidecar_says_raises(tmp_path: Path) -> None:
    """Lines that are no messages are passed over, and lines in pieces are put together."""
    path = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with EngineLink(path, "run-1") as link:
            assert link.receive() == []
            connection, _ = listener.accept()
            with connection:
                hello = json.loads(connection.recv(4096))
                connection.sendall(
                    b'{\n[]\n{"type": "later"}\n{"type": "error", "message": "no"}\n'
                    b'{"type": "stage", "version": 1, "phy2log": 7}\n{"type": "abort", "ver'
                )
                assert link.receive(0.1) == []
                connection.sendall(b'sion": 3}\n')
                (message,) = link.receive(PATIENCE_S)
                link.load(np.array([True]), first_step=0)

    assert hello == {"type": "hello", "engine_run_id": "run-1"}
    assert (message.kind, message.version) == ("abort", 3)


def test_steps_may_be_of_numpy(tmp_path: Path) -> None:
    """An engine's step counter reaches the sidecar, now and in the next hello."""
    path = tmp_path / "engine.sock"
    with accepted(path) as (link, connection):
        link.applied(np.int64(4), "d", np.int64(100))  # type: ignore[arg-type]  # what is tested
        link.load([[1, 2], [3, 4]], first_step=np.uint32(7))  # type: ignore[arg-type]  # likewise
        lines = connection.makefile("rb")
        messages = [json.loads(lines.readline()) for _ in range(3)]

        assert link.is_connected
    assert messages[1] == {"type": "applied", "version": 4, "digest": "d", "step": 100}
    assert (messages[2]["first_step"], messages[2]["counts"]["shape"]) == (7, [2, 2])


def test_what_json_cannot_hold_costs_nothing_but_itself(tmp_path: Path) -> None:
    """An engine's slip is logged; the connection goes on."""
    with accepted(tmp_path / "engine.sock") as (link, connection):
        link.load(object(), first_step=0)  # type: ignore[arg-type]  # what is tested
        link.refused(1, object())  # type: ignore[arg-type]  # likewise
        link.staged(3, "d")
        lines = connection.makefile("rb")
        messages = [json.loads(lines.readline()) for _ in range(2)]

    assert messages[1] == {"type": "staged", "version": 3, "digest": "d"}


def test_an_engine_may_have_thousands_of_open_files(tmp_path: Path) -> None:
    """A descriptor beyond what select() takes is as good as another."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2048), hard))
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with accepted(tmp_path / "engine.sock") as (link, connection):
            connection.sendall(b'{"type": "no_plan"}\n')
            (message,) = link.receive(PATIENCE_S)
    finally:
        for other in others:
            os.close(other)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert message.kind == "no_plan"


def test_load_does_not_wait_for_a_sidecar_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a full socket does not take is dropped; what must be said gives up and lets go."""
    monkeypatch.setattr("expertplane_client.sidecar.engine._SEND_TIMEOUT_S", 0.05)
    monkeypatch.setattr("expertplane_client.sidecar.engine._RETRY_S", 0.0)
    with accepted(tmp_path / "engine.sock") as (link, _):
        for step in range(2000):
            link.load(np.ones((8, 64), dtype=np.int32), first_step=step)
        assert link.is_connected
        for step in range(20_000):
            link.applied(4, "d" * 64, step)
        assert not link.is_connected
        assert link.receive(0.0) == []

        assert not link.is_connected, "tried again at once"
