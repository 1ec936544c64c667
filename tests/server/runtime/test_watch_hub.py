"""Who waits for plans misses none of the changes, and holds nobody up."""

from __future__ import annotations

import asyncio

import pytest

from expertplane_server.runtime.watch_hub import WatchHub

from .. import builders


async def waiting(hub: WatchHub, name: str = builders.NAME) -> asyncio.Task[None]:
    """Return a task that waits for the next change already."""
    task = asyncio.create_task(hub.changed(name))
    await asyncio.sleep(0)
    return task


async def test_shown() -> None:
    """The latest plan is there for whoever looks."""
    hub = WatchHub()
    assert (hub.knows(builders.NAME), hub.latest(builders.NAME)) == (False, None)
    hub.show(builders.NAME, None)
    assert (hub.knows(builders.NAME), hub.latest(builders.NAME)) == (True, None)

    plan = builders.plan()
    hub.show(builders.NAME, plan)
    assert hub.latest(builders.NAME) is plan


async def test_every_watcher_is_woken() -> None:
    """A change wakes all who wait for it, and nobody else."""
    hub = WatchHub()
    first, second = await waiting(hub), await waiting(hub)
    other = await waiting(hub, "other/name")
    hub.show(builders.NAME, builders.plan())
    await asyncio.gather(first, second)

    assert not other.done()
    other.cancel()


async def test_no_change_is_missed() -> None:
    """Who waits right after looking misses no change that comes in between."""
    hub = WatchHub()
    seen: list[int] = []

    async def watch() -> None:
        while len(seen) < 3:
            plan = hub.latest(builders.NAME)
            if plan is not None and (not seen or plan.version > seen[-1]):
                seen.append(plan.version)
                continue
            await hub.changed(builders.NAME)

    task = asyncio.create_task(watch())
    for version in (1, 2, 3):
        await asyncio.sleep(0)
        hub.show(builders.NAME, builders.plan(version=version))
    await task

    assert seen == [1, 2, 3]


async def test_versions_may_be_skipped() -> None:
    """Two changes before a watcher is scheduled are one to it."""
    hub = WatchHub()
    task = await waiting(hub)
    hub.show(builders.NAME, builders.plan(version=1))
    hub.show(builders.NAME, builders.plan(version=2))
    await task

    latest = hub.latest(builders.NAME)
    assert latest is not None
    assert latest.version == 2


async def test_forgotten() -> None:
    """A removal is a change."""
    hub = WatchHub()
    hub.show(builders.NAME, builders.plan())
    task = await waiting(hub)
    hub.forget(builders.NAME)
    await task

    assert (hub.knows(builders.NAME), hub.latest(builders.NAME)) == (False, None)


async def test_closed() -> None:
    """The end wakes everybody."""
    hub = WatchHub()
    tasks = [await waiting(hub), await waiting(hub, "other/name")]
    hub.close()
    await asyncio.gather(*tasks)

    assert hub.is_closed


async def test_nothing_is_kept_about_names_that_nobody_watches() -> None:
    """Names come from clients: when the last watcher of one goes, nothing of it stays."""
    hub = WatchHub()
    tasks = [await waiting(hub, f"no/such-{number}") for number in range(50)]
    tasks.append(await waiting(hub, "no/such-0"))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert (hub._changed, hub._num_watching) == ({}, {})


async def test_one_watcher_may_go_while_another_stays() -> None:
    """A watcher that gives up does not take the others with it."""
    hub = WatchHub()
    leaving, staying = await waiting(hub), await waiting(hub)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    hub.show(builders.NAME, builders.plan())

    await staying
    assert hub._num_watching == {}


async def test_a_change_wakes_once() -> None:
    """Who starts to wait after a change waits for the next, also while others still wake up."""
    hub = WatchHub()
    earlier = [await waiting(hub), await waiting(hub)]
    late = asyncio.create_task(hub.changed(builders.NAME))
    hub.show(builders.NAME, builders.plan())
    await asyncio.gather(*earlier)
    await asyncio.sleep(0)

    assert not late.done()
    hub.show(builders.NAME, builders.plan(version=2))
    await late
