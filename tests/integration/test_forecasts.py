"""What a real planner has learned outlives its processes, and bounds what its plans move."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from expertplane.v1 import deployment_pb2
from expertplane_client import Backoff, Client, Participant

from ..support.planner_process import PlannerProcess
from .deployments import NUM_EXPERTS, NUM_LAYERS, NUM_RANKS, NUM_SLOTS, hot_counts, small_spec
from .engines import eventually


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from expertplane_client import Plan

NAME = "test/forecast"
WINDOWS = f'forecast_windows{{deployment="{NAME}"}}'
BUDGET = 2


class Node:
    """The one node of a deployment: it has all ranks and switches at once."""

    def __init__(self, participant: Participant) -> None:
        self.participant = participant
        self.num_windows = 0

    async def serve(self, planner: PlannerProcess, num_windows: int, *, seen: int) -> None:
        """Report windows, each with another hot expert, each learned before the next.

        Args:
            planner: who learns.
            num_windows: how many.
            seen: windows that the planner knows of before.
        """
        for number in range(1, num_windows + 1):
            counts = hot_counts(self.num_windows * 5 % NUM_EXPERTS)
            self.participant.report(counts, first_step=2 * self.num_windows)
            await self.participant.flush()
            self.num_windows += 1
            await eventually_shows(planner, WINDOWS, seen + number)


@asynccontextmanager
async def node(planner: PlannerProcess) -> AsyncIterator[Node]:
    """Serve as a deployment's only node."""

    async def apply(plan: Plan) -> int:
        return 0

    participant = Participant(
        planner.address,
        NAME,
        "node-0",
        range(NUM_RANKS),
        engine_run_id="run",
        apply=apply,
        backoff=Backoff(initial_s=0.05, max_s=0.2),
    )
    async with participant:
        yield Node(participant)


def metric(planner: PlannerProcess, series: str) -> float:
    """Return the value of a series, 0 without it."""
    with urllib.request.urlopen(planner.metrics_url, timeout=10) as answer:
        lines = str(answer.read(), "utf-8").splitlines()
    values = [line.split()[-1] for line in lines if line.startswith(f"expertplane_{series} ")]
    return float(values[0]) if values else 0.0


async def eventually_shows(planner: PlannerProcess, series: str, value: float) -> None:
    """Wait until a series has a value."""
    async with asyncio.timeout(60):
        # It is another process that brings it about: there is no event to wait on.
        while await asyncio.to_thread(metric, planner, series) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def create(
    planner: PlannerProcess, *, budget: int | None = None, num_nodes: int = 1
) -> None:
    """Create the deployment, with an expert group for each node."""
    spec = small_spec()
    spec.topology.num_nodes = num_nodes
    spec.topology.ranks_per_node = NUM_RANKS // num_nodes
    spec.num_expert_groups = num_nodes
    spec.policy.CopyFrom(deployment_pb2.PolicySpec(max_moved_slots_per_layer=budget))
    async with Client(planner.address) as client:
        await client.create_deployment(NAME, spec)


async def test_a_killed_planner_remembers_what_it_has_saved(tmp_path: Path) -> None:
    """After kill -9 the forecast goes on from its checkpoint: the 4th of 5 windows."""
    planner = PlannerProcess(tmp_path)
    try:
        await create(planner)
        async with node(planner) as only:
            await only.serve(planner, 5, seen=0)
            await eventually_shows(planner, 'forecast_checkpoints_total{outcome="saved"}', 3)
            planner.kill()
            await eventually(lambda: not only.participant.is_connected)

            planner = PlannerProcess(tmp_path, listen=planner.address)
            await eventually(lambda: only.participant.is_connected)
            await only.serve(planner, 1, seen=4)
    finally:
        planner.kill()

    assert "forecast restored, 4 windows" in planner.log.read_text()


async def test_a_drained_planner_remembers_everything(tmp_path: Path) -> None:
    """A planner that is asked to stop saves what it has learned first."""
    planner = PlannerProcess(tmp_path)
    try:
        await create(planner)
        async with node(planner) as only:
            await only.serve(planner, 3, seen=0)
            assert await asyncio.to_thread(planner.terminate) == 0

            planner = PlannerProcess(tmp_path, listen=planner.address)
            await eventually(lambda: only.participant.is_connected)
            await only.serve(planner, 1, seen=3)
    finally:
        planner.kill()


async def test_what_breaks_the_mode_is_put_right(tmp_path: Path) -> None:
    """A start placement that scatters groups is replaced; later plans keep the budget."""
    planner = PlannerProcess(tmp_path)
    try:
        await create(planner, budget=BUDGET, num_nodes=2)
        async with node(planner) as only, Client(planner.address) as client:
            await only.serve(planner, 6, seen=0)
            # In this order, or the plan of a decision might be one more than there were.
            decisions = await client.explain_decisions(NAME)
            head = (await client.get_deployment(NAME)).status.head_version
            plans = [await client.get_plan(NAME, version) for version in range(1, head + 1)]
    finally:
        planner.kill()
    first, *others = [each for each in decisions if each.plan_version]

    assert first.message.startswith("The placement in force breaks the mode.")
    assert first.message.endswith(f"beyond the budget of {BUDGET}.")
    assert others
    assert not any("mode" in each.message for each in others)
    for old, new in zip(plans, plans[1:], strict=False):
        for before, after in zip(old.phy2log.tolist(), new.phy2log.tolist(), strict=True):
            assert moved_slots(before, after) <= BUDGET
    for plan in plans:
        group = plan.phy2log.reshape(NUM_LAYERS, 2, -1) // (NUM_EXPERTS // 2)
        assert (group == group[:, :, :1]).all()


async def test_every_plan_keeps_its_budget(planner: PlannerProcess) -> None:
    """From one version to the next no layer moves more slots than the budget allows."""
    await create(planner, budget=BUDGET)
    async with node(planner) as only, Client(planner.address) as client:
        await only.serve(planner, 12, seen=0)
        # In this order, or the plan of a decision might be one more than there were.
        decisions = await client.explain_decisions(NAME)
        head = (await client.get_deployment(NAME)).status.head_version
        plans = [await client.get_plan(NAME, version) for version in range(1, head + 1)]

    assert len(plans) >= 3
    start = [[slot % NUM_EXPERTS for slot in range(NUM_SLOTS)] for _ in range(NUM_LAYERS)]
    maps = [start, *(plan.phy2log.tolist() for plan in plans)]
    for plan, old, new in zip(plans, maps, maps[1:], strict=False):
        moved = [moved_slots(old[layer], new[layer]) for layer in range(NUM_LAYERS)]
        assert max(moved) <= BUDGET
        assert sum(moved) == plan.moved_slots > 0
        assert plan.parent_version == plan.version - 1
        assert plan.transfers is not None
        assert plan.transfers.parent_version == plan.parent_version
        assert sum(link != "SAME_RANK" for link in plan.transfers.links) == plan.moved_slots
    for decision in decisions:
        if decision.plan_version:
            assert decision.predicted_gain_s > 0
            assert decision.moved_slots == plans[decision.plan_version - 1].moved_slots


def moved_slots(old: list[int], new: list[int]) -> int:
    """Count the experts of one layer that ranks hold now and did not hold before."""
    per_rank = NUM_SLOTS // NUM_RANKS
    return sum(
        (Counter(new[first : first + per_rank]) - Counter(old[first : first + per_rank])).total()
        for first in range(0, NUM_SLOTS, per_rank)
    )
