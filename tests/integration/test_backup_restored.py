"""A backup put in place of a store that has moved on: what participants have seen comes first."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from expertplane_client import Client
from expertplane_server.runtime.crash_points import EXIT_CODE, VARIABLE

from ..support.planner_process import run_program, running_planner
from .engines import Engines, coordinated_spec, eventually, placement


if TYPE_CHECKING:
    from pathlib import Path

NAME = "test/restored"


def restore(folder: Path, copy: Path) -> None:
    """Puts a copy in place of the store of a planner that is not running."""
    for path in folder.glob("planner.db*"):
        path.unlink()
    shutil.copy(copy, folder / "planner.db")


@pytest.mark.parametrize("crash", ["before_raise_counters", "after_raise_counters"])
async def test_versions_jump_past_what_participants_have_seen(crash: str, tmp_path: Path) -> None:
    """After a restore no version is given twice, whatever moment the planner dies at meanwhile."""
    copy = tmp_path / "backup.db"
    with running_planner(tmp_path) as planner:
        address = planner.address
        async with Client(address) as client:
            await client.create_deployment(NAME, coordinated_spec())
        async with Engines(address, NAME, tmp_path) as engines:
            for number in (1, 2, 3):
                async with Client(address) as client:
                    await client.publish_plan(NAME, placement(number))
                await engines.serve(number)
                await engines.settled()
                if number == 1:
                    store = f"--store=sqlite:///{tmp_path / 'planner.db'}"
                    done = run_program("backup", str(copy), store)
                    assert done.returncode == 0, done.stderr
            planner.kill()
            await engines.disconnected()
            restore(tmp_path, copy)

            with running_planner(tmp_path, listen=address, environment={VARIABLE: crash}) as dying:
                await eventually(lambda: dying.process.poll() is not None)
                assert dying.wait() == EXIT_CODE
            await engines.disconnected()
            with running_planner(tmp_path, listen=address):
                await engines.connected()
                await engines.settled()  # with what the backup holds, under a later term
                async with Client(address) as client:
                    raised = (await client.get_deployment(NAME)).status
                    newest = await client.publish_plan(NAME, placement(4))
                await engines.serve(newest.version)
                await engines.settled()
                async with Client(address) as client:
                    states = {p.version: p.digest for p in await client.list_plans(NAME)}
                    status = (await client.get_deployment(NAME)).status

    assert raised.head_version == 3
    assert raised.committed_version == 1
    assert newest.version == status.committed_version == 4
    assert sorted(states) == [1, 4]
    assert status.epoch >= 2
    for engine in (engines[0], engines[1]):
        assert all(len(digests) == 1 for digests in engine.seen.values())
        assert engine.seen[4] == {states[4]}
        assert engine.seen[1] == {states[1]}
        assert engine.applied == [1, 2, 3, 1, 4]
