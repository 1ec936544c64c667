"""What survives when processes are killed without a word."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from expertplane_client import Client, Participant, PlanCache, UnavailableError

from ..support.planner_process import PROGRAM, PlannerProcess, running_planner
from .deployments import NUM_EXPERTS, NUM_RANKS, NUM_SLOTS, hot_counts, small_spec
from .engines import QUICK, eventually


if TYPE_CHECKING:
    from expertplane_client import Plan

NAME = "test/crash"


class Engine:
    """A serving node with two of the four ranks, which switches at once."""

    def __init__(self, address: str, index: int, folder: Path) -> None:
        self.versions: list[int] = []
        self.participant = Participant(
            address,
            NAME,
            f"node-{index}",
            range(index * NUM_RANKS // 2, (index + 1) * NUM_RANKS // 2),
            engine_run_id="run-1",
            apply=self._apply,
            cache=PlanCache(folder / f"cache-{index}"),
            backoff=QUICK,
        )

    async def _apply(self, plan: Plan) -> int:
        self.versions.append(plan.version)
        return 0


async def serve_until_plan(engines: list[Engine], first_step: int) -> int:
    """Reports load, with another hot expert each time, until every engine has a newer plan."""
    before = max(engine.participant.applied_version for engine in engines)
    step = first_step
    while any(engine.participant.applied_version <= before for engine in engines):
        for engine in engines:
            engine.participant.report(hot_counts(step // 2 % NUM_EXPERTS), first_step=step)
        for engine in engines:
            await engine.participant.flush()
        step += 2
        assert step < first_step + 2000, "no plan after a thousand windows"
        await asyncio.sleep(0.01)
    return step


async def test_a_killed_planner_loses_no_published_plan(tmp_path: Path) -> None:
    """After kill -9 amid streaming versions rise, plans are there, participants kept theirs."""
    planner = PlannerProcess(tmp_path)
    try:
        async with Client(planner.address) as client:
            await client.create_deployment(NAME, small_spec())
        engines = [Engine(planner.address, index, tmp_path) for index in range(2)]
        async with engines[0].participant, engines[1].participant:
            step = 0
            for _ in range(3):
                step = await serve_until_plan(engines, step)
            served = engines[0].participant.plan
            assert served is not None

            # These reports are on their way when the planner dies.
            for engine in engines:
                engine.participant.report(hot_counts(7), first_step=step)
            planner.kill()
            await eventually(lambda: not any(e.participant.is_connected for e in engines))
            assert all(e.participant.applied_version >= served.version for e in engines)
            assert all(e.participant.plan is not None for e in engines)

            planner = PlannerProcess(tmp_path, listen=planner.address)
            await eventually(lambda: all(e.participant.is_connected for e in engines))
            await serve_until_plan(engines, step + 2)

            async with Client(planner.address) as client:
                stored = {plan.version: plan.digest for plan in await client.list_plans(NAME)}
                status = (await client.get_deployment(NAME)).status
        for engine in engines:
            assert engine.versions == sorted(set(engine.versions))
            assert set(engine.versions) <= set(stored)
            assert engine.participant.statistics.num_connects >= 2
        assert stored[served.version] == served.digest
        assert status.epoch == 2
        assert status.head_version == max(stored) > served.version
    finally:
        planner.kill()


async def test_a_restarted_participant_serves_its_cached_plan_while_the_planner_is_away(
    tmp_path: Path,
) -> None:
    """The last known good plan comes from the disk when there is no planner to ask."""
    with running_planner(tmp_path) as planner:
        async with Client(planner.address) as client:
            await client.create_deployment(NAME, small_spec())
        engines = [Engine(planner.address, index, tmp_path) for index in range(2)]
        async with engines[0].participant, engines[1].participant:
            await serve_until_plan(engines, 0)
        plan = engines[0].participant.plan

    restarted = Engine(planner.address, 0, tmp_path)
    async with restarted.participant:
        await eventually(lambda: restarted.versions != [])

    assert plan is not None
    assert restarted.versions == [plan.version]
    assert restarted.participant.plan == plan or (
        restarted.participant.plan is not None and restarted.participant.plan.digest == plan.digest
    )


async def test_a_lost_solver_is_replaced(tmp_path: Path) -> None:
    """Kill -9 of the solver process costs one solve at most; the next one has a new process."""
    with running_planner(tmp_path) as planner:
        async with Client(planner.address) as client:
            before = await ask(client)
            os.kill(solver_pid(planner.process.pid), signal.SIGKILL)
            answers = [await ask(client) for _ in range(3)]

    assert before is not None
    assert answers[-1] is not None
    assert answers[-1].digest == before.digest


async def ask(client: Client) -> Plan | None:
    """Asks for a plan; None when the solver was lost."""
    try:
        return await client.compute_plan(
            hot_counts(3), num_nodes=1, num_ranks=NUM_RANKS, num_slots=NUM_SLOTS
        )
    except UnavailableError:
        return None


def solver_pid(parent: int) -> int:
    """Finds the solver among the planner's children by what it runs."""
    for thread in Path(f"/proc/{parent}/task").iterdir():
        for child in (thread / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError("no solver process found")


def test_a_second_planner_on_the_same_store_is_refused(tmp_path: Path) -> None:
    """One file has one owner: the second process says so and ends with exit code 1."""
    with running_planner(tmp_path):
        second = subprocess.run(
            [
                PROGRAM,
                "serve",
                "--listen=127.0.0.1:0",
                "--metrics=",
                f"--store=sqlite:///{tmp_path / 'planner.db'}",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert second.returncode == 1
    assert "another process has it" in second.stderr
