"""Deployments found, made and removed: store and drivers change together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from unittest.mock import AsyncMock

import pytest

from expertplane_server.core import effects as fx
from expertplane_server.core.errors import ConflictError, NotFoundError, UnavailableError
from expertplane_server.runtime.directory import Directory
from expertplane_server.runtime.outbox import Outbox

from .. import builders


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .conftest import Bench


@pytest.fixture
async def directory(bench: Bench) -> AsyncIterator[Directory]:
    """An empty directory."""
    made = Directory(bench.services, epoch=bench.store.epoch, heartbeat_interval_s=5.0)
    yield made
    await made.stop()


async def create(directory: Directory, name: str = builders.NAME, request_id: str = "") -> None:
    """Create a deployment."""
    await directory.create(name, builders.spec(), request_id=request_id)


async def delete(directory: Directory, name: str = builders.NAME, request_id: str = "") -> None:
    """Delete a deployment."""
    await directory.delete(name, etag="", request_id=request_id)


async def test_created(bench: Bench, directory: Directory) -> None:
    """A created deployment is stored, has a driver, and is known to watchers."""
    await create(directory)

    assert directory.get(builders.NAME) is directory.find(builders.NAME)
    assert [each.name for each in bench.store.deployments()] == [builders.NAME]
    assert bench.hub.knows(builders.NAME)


async def test_unknown(directory: Directory) -> None:
    """What does not exist is not found, one way or the other."""
    assert directory.find(builders.NAME) is None
    with pytest.raises(NotFoundError):
        directory.get(builders.NAME)
    with pytest.raises(NotFoundError):
        await directory.stored_plan(builders.NAME, 1)
    with pytest.raises(NotFoundError):
        await directory.stored_plans(builders.NAME, below=0, limit=1)
    with pytest.raises(NotFoundError):
        await delete(directory)


async def test_loaded(bench: Bench, directory: Directory) -> None:
    """At the start every stored deployment gets its driver, with its latest plans."""
    bench.store.create_deployment("a/a", builders.spec(), request_id="", now_s=0.0)
    for _ in range(20):
        builders.published(bench.store, builders.draft(name="a/a"))
    await directory.load()
    group = directory.get("a/a").group

    assert group.committed is not None
    assert (group.committed.version, group.deployment.head) == (20, 20)
    assert bench.hub.latest("a/a") == group.committed
    assert bench.count("committed_version", deployment="a/a") == 20


async def test_listed(directory: Directory) -> None:
    """Deployments are listed by name, from behind a name on."""
    for name in ("b/b", "a/a", "c/c"):
        await create(directory, name)

    names = [driver.group.deployment.name for driver in directory.after("a/a")]
    assert names == ["b/b", "c/c"]


async def test_deleted(bench: Bench, directory: Directory) -> None:
    """The members of a deleted deployment are told; watchers and metrics forget it."""
    await create(directory)
    outbox = Outbox()
    directory.get(builders.NAME).attach(1, outbox)
    await delete(directory)

    assert await outbox.take() == fx.Welcome(verdict=fx.Verdict.DEPLOYMENT_UNKNOWN)
    assert not outbox.is_closed
    assert bench.store.deployments() == []
    assert not bench.hub.knows(builders.NAME)
    assert bench.count("committed_version", deployment=builders.NAME) is None


async def test_stale_etag(directory: Directory) -> None:
    """A removal under a stale etag leaves the driver where it is."""
    await create(directory)

    with pytest.raises(ConflictError):
        await directory.delete(builders.NAME, etag="stale", request_id="")
    assert directory.find(builders.NAME) is not None


async def test_repeated_while_the_first_is_under_way(directory: Directory) -> None:
    """A creation that is repeated before the first one is through gets the same answer."""
    first, second = await asyncio.gather(
        directory.create(builders.NAME, builders.spec(), request_id="r-1"),
        directory.create(builders.NAME, builders.spec(), request_id="r-1"),
    )

    assert first is second


async def test_removal_while_a_creation_is_under_way(bench: Bench, directory: Directory) -> None:
    """A removal waits for a creation: the two leave store and drivers in agreement."""
    await asyncio.gather(create(directory), delete(directory))

    assert (bench.store.deployments(), directory.find(builders.NAME)) == ([], None)


@pytest.mark.parametrize("num_steps", range(6))
async def test_caller_that_gives_up(bench: Bench, directory: Directory, num_steps: int) -> None:
    """Wherever its caller gives up, a creation leaves store and drivers in agreement."""
    creating = asyncio.create_task(create(directory))
    for _ in range(num_steps):
        await asyncio.sleep(0)
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    # Whatever was begun is finished before the next change.
    await create(directory, "other/name")

    stored = {each.name for each in bench.store.deployments()}
    assert stored == {driver.group.deployment.name for driver in directory.after("")}


async def test_creation_that_broke_off(bench: Bench, directory: Directory) -> None:
    """What was stored and not started is started by a repeated request."""
    bench.store.failing.add("recover")
    with pytest.raises(UnavailableError):
        await create(directory, request_id="r-1")
    bench.store.failing.clear()
    await create(directory, request_id="r-1")

    assert directory.find(builders.NAME) is not None


async def test_forecast_that_cannot_be_saved(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever one deployment's save trips over, the others are saved."""
    await create(directory, "a/a")
    await create(directory, "b/b")
    saved = AsyncMock()
    monkeypatch.setattr(directory.get("a/a"), "save_forecast", AsyncMock(side_effect=KeyError))
    monkeypatch.setattr(directory.get("b/b"), "save_forecast", saved)
    await directory.save_forecasts()

    saved.assert_awaited_once_with()
    assert "a/a: forecast not saved" in caplog.text


async def test_raised_epoch_reaches_every_deployment(directory: Directory) -> None:
    """The term is the store's: when one deployment has it raised, all write in the new one."""
    await create(directory, "a/a")
    await create(directory, "b/b")
    outbox = Outbox()
    driver = directory.get("a/a")
    driver.attach(1, outbox)
    await driver.submit(builders.hello(1, highest_epoch=6))
    await outbox.take()

    assert directory.epoch == 7
    assert directory.get("b/b").group.epoch == 7


async def test_drained(bench: Bench, directory: Directory) -> None:
    """A drain tells every stream, ends it in order, and ends the watches."""
    await create(directory)
    outbox = Outbox()
    directory.get(builders.NAME).attach(1, outbox)
    directory.drain(3.0)

    assert await outbox.take() == fx.Drain(3.0)
    assert await outbox.take() is None
    assert bench.hub.is_closed
