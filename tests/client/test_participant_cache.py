"""What a participant keeps on disk, and what it does with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from expertplane_client import CacheEntry, PlanCache

from . import builders
from .engine import Engine, participant
from .scripted_planner import PATIENCE_S, ScriptedPlanner


if TYPE_CHECKING:
    from pathlib import Path


async def test_a_restarting_engine_serves_the_cached_plan(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """With no planner in sight the ranks switch to the last known good plan."""
    PlanCache(tmp_path).save(
        builders.DEPLOYMENT,
        "node-0",
        CacheEntry(plan=builders.plan(4), highest_version=6, highest_epoch=3),
    )
    await planner.kill()
    engine = Engine()
    async with participant(planner, engine, cache=PlanCache(tmp_path)) as node:
        async with asyncio.timeout(PATIENCE_S):
            await engine.is_switching.wait()
        planner.epoch = 3
        await planner.start()
        stream = await planner.stream()
        hello = await stream.hear("hello")

        assert engine.versions == [4]
        assert (node.applied_version, node.plan and node.plan.version) == (4, 4)
        assert (hello.applied.version, hello.highest_version, hello.highest_epoch) == (4, 6, 3)


async def test_what_is_applied_is_on_disk_before_it_is_acked(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """When the planner hears of a switch, a restart will serve that plan."""
    cache = PlanCache(tmp_path)
    async with participant(planner, Engine(), cache=cache):
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(1))
        await stream.hear("ack")

        entry = cache.load(builders.DEPLOYMENT, "node-0")
        assert entry is not None
        assert entry.plan is not None
        assert (entry.plan.version, entry.highest_version, entry.highest_epoch) == (1, 1, 1)


async def test_a_damaged_cache_does_not_stop_a_participant(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """It starts with the start placement, as if nothing had been kept."""
    cache = PlanCache(tmp_path)
    path = cache.path(builders.DEPLOYMENT, "node-0")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{")
    engine = Engine()
    async with participant(planner, engine, cache=cache):
        _, hello = await planner.welcomed()

        assert hello.applied.version == 0
        assert engine.versions == []
        assert path.with_name("node-0.json.damaged").exists()


async def test_a_cache_that_cannot_be_written_does_not_stop_a_switch(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """Serving is worth more than remembering."""
    (tmp_path / "file").touch()
    async with participant(planner, Engine(), cache=PlanCache(tmp_path / "file")):
        stream, _ = await planner.welcomed()
        stream.say(commit=builders.commit(1))

        assert (await stream.hear("ack")).version == 1


async def test_a_cached_plan_of_another_shape_is_left(
    planner: ScriptedPlanner, tmp_path: Path
) -> None:
    """An engine that was started with another topology does not serve the old one's plan."""
    cache = PlanCache(tmp_path)
    entry = CacheEntry(plan=builders.plan(4), highest_version=6, highest_epoch=1)
    cache.save(builders.DEPLOYMENT, "node-0", entry)
    engine = Engine()
    start = builders.phy2log(((0, 1, 2),))
    async with participant(planner, engine, cache=cache, initial_phy2log=start):
        _, hello = await planner.welcomed()

        assert (hello.applied.version, hello.highest_version) == (0, 6)
        assert engine.versions == []
