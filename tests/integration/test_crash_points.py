"""A planner that dies at any moment of a roll-out loses nothing that anybody has seen."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from expertplane.v1 import decision_pb2
from expertplane_client import Client, UnavailableError
from expertplane_server.runtime.crash_points import EXIT_CODE, VARIABLE

from ..support.planner_process import PlannerProcess, run_program, running_planner
from .engines import Engines, coordinated_spec, eventually, placement


if TYPE_CHECKING:
    from pathlib import Path

NAME = "test/crash-points"
ORDER = "second"
"""Request id of the order that meets the crash."""


@dataclass(frozen=True)
class Crash:
    """Where the second roll-out meets the end of its planner, and what is to come of it.

    Attributes:
        at: the crash point; the first roll-out passes it where it is reached in each.
        expected: state of the second plan after the restart; empty when nobody has heard of it.
        is_applied: the engines serve with the plan by the time of the crash.
        is_refused: an engine refuses it, for good.
        is_asked: an operator asks for another plan meanwhile, and gets a decision instead.
    """

    at: str
    expected: str
    is_applied: bool = False
    is_refused: bool = False
    is_asked: bool = False


CRASHES = (
    Crash("before_publish:2", ""),
    Crash("after_publish:2", "ABORTED"),
    Crash("before_commit:2", "ABORTED"),
    Crash("after_commit:2", "APPLIED"),
    Crash("after_mark_applied:2", "APPLIED", is_applied=True),
    Crash("before_abort", "ABORTED", is_refused=True),
    Crash("after_abort", "ABORTED", is_refused=True),
    Crash("before_record", "ABORTED", is_asked=True),
)


async def publish(address: str, number: int, request_id: str | None = None) -> int:
    """Publishes a placement as an operator does; returns its version."""
    async with Client(address, wait_for_ready=False) as client:
        plan = await client.publish_plan(NAME, placement(number), request_id=request_id)
    return int(plan.version)


async def meet(crash: Crash, planner: PlannerProcess, engines: Engines) -> None:
    """Starts the second roll-out and waits until it has taken the planner with it."""
    engines[1].is_unwilling = crash.is_refused
    if crash.is_asked:
        engines[1].may_stage.clear()
    order = asyncio.create_task(publish(planner.address, 2, ORDER))
    if crash.is_asked:
        await order
        async with Client(planner.address, wait_for_ready=False) as client:
            with pytest.raises(UnavailableError):
                await client.rebalance(NAME)
    await eventually(lambda: planner.process.poll() is not None)
    await engines.disconnected()
    with contextlib.suppress(UnavailableError):
        await order
    engines[1].is_unwilling = False
    engines[1].may_stage.set()


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.at.replace(":2", ""))
async def test_nothing_is_lost_wherever_the_planner_dies(crash: Crash, tmp_path: Path) -> None:
    """What was seen is kept, what was committed arrives, what was staging is burned, once."""
    with running_planner(tmp_path, environment={VARIABLE: crash.at}) as planner:
        async with Client(planner.address) as client:
            await client.create_deployment(NAME, coordinated_spec())
        async with Engines(planner.address, NAME, tmp_path) as engines:
            assert await publish(planner.address, 1) == 1
            await engines.serve(1)
            await engines.settled()

            await meet(crash, planner, engines)

            assert planner.wait() == EXIT_CODE
            for engine in (engines[0], engines[1]):
                assert engine.applied == ([1, 2] if crash.is_applied else [1])
            with running_planner(tmp_path, listen=planner.address):
                await engines.connected()
                is_in_force = crash.expected in ("", "APPLIED")
                if crash.expected:
                    await engines.serve(2 if is_in_force else 1)
                    states = await engines.check_history()
                    assert states[2] in (("COMMITTED", "APPLIED") if is_in_force else ("ABORTED",))
                # The operator, who had no answer, asks again.
                assert await publish(planner.address, 2, ORDER) == 2
                if not crash.expected:
                    await engines.serve(2)
                await engines.settled()
                assert await publish(planner.address, 3) == 3
                await engines.serve(3)
                await engines.settled()
                states = await engines.check_history()

    assert states == {
        1: "SUPERSEDED",
        2: "SUPERSEDED" if is_in_force else "ABORTED",
        3: "APPLIED",
    }
    assert engines[0].applied == engines[1].applied == ([1, 2, 3] if is_in_force else [1, 3])
    if 2 in engines[0].seen:  # the other may have refused it, and then has nothing to drop
        assert engines[0].unstaged == ([] if is_in_force else [2])


async def test_a_planner_killed_amid_staging_burns_the_version(tmp_path: Path) -> None:
    """After kill -9 while weights are fetched all ranks go on as before, then on to the next."""
    with running_planner(tmp_path) as planner:
        async with Client(planner.address) as client:
            await client.create_deployment(NAME, coordinated_spec())
        async with Engines(planner.address, NAME, tmp_path) as engines:
            await publish(planner.address, 1)
            await engines.serve(1)
            await engines.settled()
            engines[1].may_stage.clear()
            await publish(planner.address, 2)
            await eventually(
                lambda: engines[0].participant.staged_version == 2 and 2 in engines[1].seen
            )
            planner.kill()
            await engines.disconnected()
            with running_planner(tmp_path, listen=planner.address):
                await engines.connected()
                await eventually(lambda: engines[0].unstaged == [2])
                states = await engines.check_history()
                async with Client(planner.address) as client:
                    decision = (await client.explain_decisions(NAME))[-1]
                    status = (await client.get_deployment(NAME)).status
                assert states == {1: "APPLIED", 2: "ABORTED"}
                assert decision.reason == decision_pb2.DECISION_REASON_FAILED_ROLLOUT
                assert decision.plan_version == 2
                assert (status.head_version, status.epoch) == (2, 2)

                assert await publish(planner.address, 2) == 3
                await eventually(lambda: engines[1].unstaged == [2])
                engines[1].may_stage.set()
                await engines.serve(3)
                await engines.check_history()

    assert engines[0].applied == engines[1].applied == [1, 3]


@pytest.mark.parametrize("setting", ["after_comit", "before_publish:0", "before_publish:x", ":1"])
def test_an_unknown_crash_point_is_refused_at_the_start(
    setting: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who mistypes a crash point is told which there are, before anything starts."""
    monkeypatch.setenv(VARIABLE, setting)
    store = tmp_path / "planner.db"
    done = run_program("serve", "--listen=127.0.0.1:0", "--metrics=", f"--store=sqlite:///{store}")

    assert done.returncode == 1
    assert f"got {setting!r}" in done.stderr
    assert "before_publish, after_publish" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not store.exists()
