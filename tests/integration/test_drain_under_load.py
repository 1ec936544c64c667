"""A planner replaced under load, as a rolling restart does: nobody gets an error."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import numpy as np

from expertplane.v1 import deployment_pb2
from expertplane_client import (
    BlockingClient,
    Client,
    Participant,
    Plan,
)

from ..support.planner_process import PlannerProcess
from .engines import PATIENCE_S, QUICK, eventually


if TYPE_CHECKING:
    from pathlib import Path

NAME = "test/rolling"
NUM_PARTICIPANTS = 20
NUM_LAYERS = 3
NUM_EXPERTS = 40
GRACE_S = 30.0
GRACE = [f"--grace-s={GRACE_S}"]


def wide_spec() -> deployment_pb2.DeploymentSpec:
    """A deployment with a rank for each participant, a decision after every 8 samples."""
    return deployment_pb2.DeploymentSpec(
        layer_ids=range(NUM_LAYERS),
        num_logical_experts=NUM_EXPERTS,
        topology=deployment_pb2.Topology(
            num_nodes=1, ranks_per_node=NUM_PARTICIPANTS, slots_per_rank=3
        ),
        rollout=deployment_pb2.RolloutParameters(
            mode="ROLLOUT_MODE_COORDINATED", regression_tolerance=1e6
        ),
        trigger=deployment_pb2.TriggerParameters(window_samples=8),
    )


class Reporter:
    """A serving node that reports load without end."""

    def __init__(self, address: str, index: int) -> None:
        self.num_reports = 0
        self.applied: list[int] = []
        self.participant = Participant(
            address,
            NAME,
            f"node-{index}",
            [index],
            engine_run_id="run-1",
            apply=self._apply,
            backoff=QUICK,
        )

    async def _apply(self, plan: Plan) -> int:
        self.applied.append(plan.version)
        return self.num_reports

    async def serve(self, stopping: asyncio.Event) -> None:
        """Reports one sample after another, each once the one before is answered."""
        counts = np.ones((NUM_LAYERS, NUM_EXPERTS), dtype=np.int32)
        while not stopping.is_set():
            counts[:, self.num_reports // 50 % NUM_EXPERTS] += 10
            self.participant.report(counts, first_step=self.num_reports)
            self.num_reports += 1
            await self.participant.flush()


class Callers:
    """Clients that call without end: readers, two of them in threads, and an operator.

    They do nothing about a planner that goes away: their clients wait, within their deadlines.
    """

    def __init__(self, address: str) -> None:
        self.num_calls = 0
        self._address = address
        self._is_over = threading.Event()

    async def run(self) -> None:
        """Calls until `stop`; raises what any call has come to, should it be an error."""
        await asyncio.gather(
            self._read(),
            self._read(),
            asyncio.to_thread(self._read_in_thread),
            asyncio.to_thread(self._read_in_thread),
            self._order(),
        )

    def stop(self) -> None:
        """Ends the calls, each after the one that it is at."""
        self._is_over.set()

    async def _read(self) -> None:
        async with Client(self._address, timeout_s=PATIENCE_S) as client:
            while not self._is_over.is_set():
                await self._read_once(client)
                self.num_calls += 1

    async def _read_once(self, client: Client) -> None:
        """Makes another of three calls each time."""
        match self.num_calls % 3:
            case 0:
                await client.get_deployment(NAME)
            case 1:
                await client.get_plan(NAME)
            case _:
                await client.explain_decisions(NAME, limit=3)

    def _read_in_thread(self) -> None:
        with BlockingClient(self._address, timeout_s=PATIENCE_S) as client:
            while not self._is_over.is_set():
                client.list_plans(NAME, limit=3)
                self.num_calls += 1

    async def _order(self) -> None:
        async with Client(self._address, timeout_s=PATIENCE_S, backoff=QUICK) as client:
            for number in itertools.count():
                if self._is_over.is_set():
                    return
                await self._pause(client, f"order-{number}", str(number))

    async def _pause(self, client: Client, request_id: str, comment: str) -> None:
        """Gives an order under an id."""
        done = await client.pause(NAME, comment=comment, request_id=request_id)
        assert done.status.pause_comment == comment
        self.num_calls += 1


async def test_a_rolling_restart_under_load_fails_no_request(tmp_path: Path) -> None:
    """Every call gets its answer and every report exactly one; the drain ends well, and early."""
    stopping = asyncio.Event()
    async with AsyncExitStack() as stack:
        planner = PlannerProcess(tmp_path, options=GRACE)
        stack.callback(planner.kill)
        address = planner.address
        async with Client(address) as client:
            await client.create_deployment(NAME, wide_spec())
        reporters = [Reporter(address, index) for index in range(NUM_PARTICIPANTS)]
        for reporter in reporters:
            await stack.enter_async_context(reporter.participant)
        tasks = [asyncio.create_task(each.serve(stopping)) for each in reporters]
        await eventually(lambda: all(reporter.applied for reporter in reporters))
        callers = Callers(address)
        tasks.append(asyncio.create_task(callers.run()))
        stack.callback(callers.stop)
        await eventually(lambda: callers.num_calls > 20)

        code = await asyncio.to_thread(planner.terminate, GRACE_S)
        later = await asyncio.to_thread(PlannerProcess, tmp_path, listen=address)
        stack.callback(later.kill)
        num_calls = callers.num_calls
        num_reports = [reporter.num_reports for reporter in reporters]
        await eventually(lambda: callers.num_calls > num_calls + 20)
        await eventually(
            lambda: all(
                reporter.num_reports > num + 2
                for reporter, num in zip(reporters, num_reports, strict=True)
            )
        )
        stopping.set()
        callers.stop()
        await asyncio.gather(*tasks)

    assert code == 0
    for reporter in reporters:
        statistics = reporter.participant.statistics
        assert statistics.num_acked == reporter.num_reports
        assert statistics.num_refused == statistics.num_dropped == 0
        assert statistics.num_connects == 2
        assert reporter.participant.last_refusal is None
        assert reporter.applied == sorted(set(reporter.applied))
