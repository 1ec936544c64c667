"""Processes that stand still (SIGSTOP) and go on: nobody waits for ever, nothing goes back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from expertplane.v1 import decision_pb2
from expertplane_client import Client
from expertplane_client.sidecar.engine import EngineLink

from ..support.planner_process import PlannerProcess, running_planner
from ..support.sidecar_process import running_sidecar
from .engines import PATIENCE_S, Engines, coordinated_spec, eventually, placement, settled


if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

HEARTBEAT_S = 1.0


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlannerProcess]:
    """A planner that takes a participant for lost after three seconds."""
    options = [f"--heartbeat-interval-s={HEARTBEAT_S}"]
    with running_planner(tmp_path_factory.mktemp("stopped"), options=options) as process:
        yield process


class SidecarEngine:
    """An engine in a thread of its own, which does at once whatever its sidecar says."""

    def __init__(self, path: Path) -> None:
        self.heard: list[tuple[str, int]] = []
        self._path = path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def applied(self) -> list[int]:
        """Versions that it has switched to."""
        return [version for kind, version in self.heard if kind in ("plan", "commit")]

    def _serve(self) -> None:
        with EngineLink(self._path, "run-1") as link:
            while not self._is_over.is_set():
                for message in link.receive(0.05):
                    if message.kind == "stage":
                        link.staged(message.version)
                    if message.kind in ("plan", "commit"):
                        link.applied(message.version, message.digest, len(self.heard))
                    self.heard.append((message.kind, message.version))


class Pair:
    """Two sidecars with two of the four ranks each, and their engines."""

    def __init__(self, address: str, name: str, folder: Path) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.engines: list[SidecarEngine] = []
        self._stack = contextlib.ExitStack()
        self._where = address, name, folder

    def __enter__(self) -> Self:
        for index, ranks in enumerate(([0, 1], [2, 3])):
            process, path = self._stack.enter_context(
                running_sidecar(
                    self._where[2], self._where[0], self._where[1], f"node-{index}", ranks
                )
            )
            self.processes.append(process)
            self.engines.append(self._stack.enter_context(SidecarEngine(path)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


async def count_participants(client: Client, name: str, expected: int) -> None:
    """Waits until so many participants are live."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            status = (await client.get_deployment(name)).status
            if status.num_participants == expected:
                return
            await asyncio.sleep(0.02)


async def given_up(client: Client, name: str) -> decision_pb2.Decision:
    """Waits until a roll-out is given up, and returns the decision that says why."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for decision in await client.explain_decisions(name):
                if decision.reason == decision_pb2.DECISION_REASON_FAILED_ROLLOUT:
                    return decision
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("stage_deadline_s", "why"),
    [(1.0, "Not all members had staged it within 1 s."), (600.0, "node-1 is lost.")],
    ids=["deadline", "silence"],
)
async def test_a_stopped_sidecar_holds_nobody_up(
    stage_deadline_s: float, why: str, planner: PlannerProcess, tmp_path: Path
) -> None:
    """Staging ends at its deadline, or when a member falls silent, which later catches up."""
    name = f"test/stopped-{stage_deadline_s:g}"
    async with Client(planner.address) as client:
        await client.create_deployment(name, coordinated_spec(stage_deadline_s=stage_deadline_s))
        with Pair(planner.address, name, tmp_path) as pair:
            going_on, stopped = pair.engines
            await count_participants(client, name, 2)
            await client.publish_plan(name, placement(1))
            await settled(planner.address, name)

            pair.processes[1].send_signal(signal.SIGSTOP)
            await client.publish_plan(name, placement(2))
            decision = await given_up(client, name)
            await eventually(lambda: ("abort", 2) in going_on.heard)
            await count_participants(client, name, 1)
            status = (await client.get_deployment(name)).status

            pair.processes[1].send_signal(signal.SIGCONT)
            await count_participants(client, name, 2)
            third = await client.publish_plan(name, placement(3))
            await eventually(lambda: going_on.applied == stopped.applied == [1, 3])

    assert why in decision.message
    assert decision.plan_version == 2
    assert (status.head_version, status.committed_version, status.staging_version) == (2, 1, 0)
    assert third.version == 3


async def test_a_stopped_planner_takes_nothing_back(tmp_path: Path) -> None:
    """Participants that have left a silent planner find it again, and no version goes back."""
    name = "test/stopped-planner"
    with running_planner(tmp_path, options=["--heartbeat-interval-s=0.5"]) as planner:
        async with Client(planner.address) as client:
            await client.create_deployment(name, coordinated_spec())
            async with Engines(planner.address, name, tmp_path) as engines:
                await client.publish_plan(name, placement(1))
                await engines.serve(1)
                await engines.settled()
                engines[1].may_stage.clear()
                await client.publish_plan(name, placement(2))
                await eventually(lambda: engines[0].participant.staged_version == 2)

                planner.process.send_signal(signal.SIGSTOP)
                await engines.disconnected()
                planner.process.send_signal(signal.SIGCONT)
                await engines.connected()
                decision = await given_up(client, name)
                engines[1].may_stage.set()
                await count_participants(client, name, 2)
                await engines.settled()

                third = await client.publish_plan(name, placement(3))
                await engines.serve(3)
                await engines.settled()
                states = await engines.check_history()
                status = (await client.get_deployment(name)).status

    assert decision.plan_version == 2
    assert third.version == 3
    assert states == {1: "SUPERSEDED", 2: "ABORTED", 3: "APPLIED"}
    assert engines[0].applied == engines[1].applied == [1, 3]
    assert status.epoch == 1
