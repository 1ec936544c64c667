"""A disk without room: plans are not published, everything else goes on, and so do plans later."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING

import pytest

from expertplane.v1 import decision_pb2
from expertplane_client import Client, UnavailableError

from ..support.planner_process import PlannerProcess, running_planner
from .deployments import hot_counts
from .engines import PATIENCE_S, Engines, coordinated_spec, placement


if TYPE_CHECKING:
    from pathlib import Path

NAME = "test/full-disk"
NO_ROOM_BYTES = 4096
"""Where every file ends while there is no room: within the first page of a transaction."""


def set_room(planner: PlannerProcess, num_bytes: int) -> None:
    """Lets files of the planner grow up to a size: writes beyond it fail, as on a full disk."""
    hard = resource.prlimit(planner.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(planner.process.pid, resource.RLIMIT_FSIZE, (num_bytes, hard))


async def failed_decision(client: Client, engines: Engines) -> decision_pb2.Decision:
    """Reports load until the planner has decided that it cannot store a plan."""
    step = 100
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for index in (0, 1):
                engines[index].participant.report(hot_counts(5), first_step=step)
            step += 2
            for index in (0, 1):
                await engines[index].participant.flush()
            for decision in await client.explain_decisions(NAME):
                if decision.reason == decision_pb2.DECISION_REASON_FAILED_STORE:
                    return decision
            await asyncio.sleep(0.02)


async def test_a_full_disk_stops_plans_and_nothing_else(tmp_path: Path) -> None:
    """No version is given that is not durable; reads and ranks go on; with room, plans again."""
    with running_planner(tmp_path) as planner:
        room = resource.prlimit(planner.process.pid, resource.RLIMIT_FSIZE)[0]
        async with Client(planner.address) as client:
            await client.create_deployment(NAME, coordinated_spec(hold_down_s=0))
            async with Engines(planner.address, NAME, tmp_path) as engines:
                await client.publish_plan(NAME, placement(1))
                await engines.serve(1)
                await engines.settled()

                set_room(planner, NO_ROOM_BYTES)
                with pytest.raises(UnavailableError, match="Expected to write"):
                    await client.publish_plan(NAME, placement(2), request_id="refused")
                with pytest.raises(UnavailableError):
                    await client.pause(NAME)
                decision = await failed_decision(client, engines)
                full = (await client.get_deployment(NAME)).status
                plan = await client.get_plan(NAME)
                plans = await client.list_plans(NAME)
                assert engines[0].participant.is_connected
                assert engines[0].participant.applied_version == 1

                set_room(planner, room)
                second = await client.publish_plan(NAME, placement(2), request_id="refused")
                await engines.serve(2)
                await engines.settled()
                states = await engines.check_history()
            planner.kill()
            with running_planner(tmp_path, listen=planner.address):
                kept = {p.version: p.digest for p in await client.list_plans(NAME)}

    assert decision.plan_version == 0
    assert (full.head_version, full.committed_version, full.is_paused) == (1, 1, False)
    assert (plan.version, [each.version for each in plans]) == (1, [1])
    assert second.version == 2
    assert states == {1: "SUPERSEDED", 2: "APPLIED"}
    assert kept == {1: plan.digest, 2: second.digest}
    assert engines[0].applied == engines[1].applied == [1, 2]
