"""The parts that a driver shares, without processes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import pytest

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.runtime.driver import Driver
from expertplane_server.runtime.outbox import Outbox
from expertplane_server.runtime.services import Services
from expertplane_server.runtime.store_thread import StoreThread
from expertplane_server.runtime.watch_hub import WatchHub
from expertplane_server.telemetry.metrics import Metrics

from .. import builders
from ..fakes import FailingStore, HandClock, InProcessSolver


if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Bench:
    """Store, solver, hub, metrics and clock."""

    def __init__(self) -> None:
        self.store = FailingStore()
        self.solver = InProcessSolver()
        self.hub = WatchHub()
        self.metrics = Metrics()
        self.clock = HandClock()
        self.store_thread = StoreThread(self.store, self.metrics)
        self.services = Services(
            store=self.store_thread,
            solver=self.solver,  # type: ignore[arg-type]  # as much of it as a driver uses
            hub=self.hub,
            metrics=self.metrics,
            clock=self.clock,
        )
        self.epochs: list[int] = []

    def driver(self) -> Driver:
        """Return a driver of a fresh deployment that has not been started."""
        self.store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
        self.store.calls.clear()
        return Driver(builders.group(), self.services, on_epoch=self.epochs.append)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Driven]:
        """Start a driver with one member, and stop it."""
        driver = self.driver()
        driver.start()
        yield await Driven(driver).join()
        await driver.stop()

    def count(self, name: str, **labels: str) -> float | None:
        """Return a metric."""
        return self.metrics.registry.get_sample_value(f"expertplane_{name}", labels)


class Driven:
    """A driver and the stream of its first member."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.outbox = Outbox()

    async def join(self) -> Self:
        """Say hello on stream 1."""
        self.driver.attach(1, self.outbox)
        await self.driver.submit(builders.hello(1))
        return self

    async def ask(self, event: ev.Event, num_answers: int) -> list[str]:
        """Submit an event and return the kinds of the next answers."""
        await self.driver.submit(event)
        return await self.hear(num_answers)

    async def settle(self) -> None:
        """Wait until all that was submitted has been handled; passes over what is said."""
        error = InvalidArgumentError("the last word")
        await self.driver.submit(ev.Refuse(stream=1, sequence=0, error=error))
        while True:
            message = await self.outbox.take()
            if isinstance(message, fx.Refused) and message.error is error:
                return

    async def hear(self, num_answers: int) -> list[str]:
        """Return the kinds of the next messages, heartbeats left out."""
        kinds: list[str] = []
        while len(kinds) < num_answers:
            kind = type(await self.outbox.take()).__name__
            if kind != "PlannerHeartbeat":
                kinds.append(kind)
        return kinds


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Fresh parts."""
    made = Bench()
    yield made
    await made.store_thread.close()
