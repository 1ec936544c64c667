"""Drives one deployment's core: one task takes the events and carries out the effects in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.errors import ServiceError
from expertplane_server.runtime.forecast_keeper import ForecastKeeper


if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    import numpy as np

    from expertplane_server.core.group import Group
    from expertplane_server.core.plan import Decision
    from expertplane_server.runtime.clock import Clock
    from expertplane_server.runtime.outbox import Outbox
    from expertplane_server.runtime.solver import SolverProcess
    from expertplane_server.runtime.store_thread import StoreThread
    from expertplane_server.runtime.watch_hub import WatchHub
    from expertplane_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_MAX_QUEUED = 128
_TICK_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What every driver shares."""

    store: StoreThread
    solver: SolverProcess
    hub: WatchHub
    metrics: Metrics
    clock: Clock


class Driver:
    """The task around one `Group`.

    Args:
        group: the core; nobody else changes it.
        services: store, solver, watchers, metrics, clock.
        on_epoch: called when the store's epoch had to be raised.
    """

    def __init__(
        self, group: Group, services: Services, *, on_epoch: Callable[[int], None]
    ) -> None:
        self.group = group
        self._services = services
        self._on_epoch = on_epoch
        self._queue: asyncio.Queue[ev.Event] = asyncio.Queue(_MAX_QUEUED)
        self._outboxes: dict[int, Outbox] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._jobs: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self._solve_asked_at_s = 0.0
        self._label = services.metrics.label(group.deployment.name)
        self._forecast = ForecastKeeper(group.deployment, services, self._label)

    def start(self) -> None:
        """Starts the task and its clock."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._tick())]

    async def stop(self) -> None:
        """Stops the task. Streams are left to their owners; what is not handled yet is dropped."""
        self._is_stopped = True
        tasks = [*self._tasks, *self._jobs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait()
            # Whoever waits for room is let through, and what it brings is dropped as well.
            await asyncio.sleep(0)

    async def submit(self, event: ev.Event) -> None:
        """Queues an event; waits while the queue is full, which is the back-pressure.

        A stopped driver takes nothing: the event is dropped.
        """
        if not self._is_stopped:
            await self._queue.put(event)

    def attach(self, stream: int, outbox: Outbox) -> None:
        """Makes a stream's outbox known before its Hello is submitted."""
        self._outboxes[stream] = outbox

    def detach(self, stream: int) -> None:
        """Forgets a stream's outbox."""
        self._outboxes.pop(stream, None)

    def send_all(self, message: fx.Message) -> None:
        """Hands a message to every stream."""
        for outbox in self._outboxes.values():
            outbox.put(message)

    def close_all(self) -> list[Outbox]:
        """Forgets every stream and returns their outboxes."""
        outboxes = list(self._outboxes.values())
        self._outboxes.clear()
        return outboxes

    async def _run(self) -> None:
        """Takes one event after another."""
        while True:
            event = await self._queue.get()
            try:
                await self._handle(event)
            except Exception:
                # The outermost loop: one event must not take the deployment down with it.
                self._services.metrics.core_errors.inc()
                logger.exception("event %s failed", type(event).__name__)

    async def _tick(self) -> None:
        """Lets the core know that time passes; a full queue is its own reminder."""
        while True:
            await asyncio.sleep(_TICK_S)
            with contextlib.suppress(asyncio.QueueFull):
                self._queue.put_nowait(ev.Tick())

    async def _handle(self, event: ev.Event) -> None:
        """Hands one event to the core and carries out what it wants."""
        for effect in self.group.handle(event, self._services.clock.now()):
            await self._carry_out(effect)
        self._services.metrics.participants.labels(self._label).set(len(self.group.members))

    async def _carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Send(stream, message):
                self._send(stream, message)
            case fx.EndStream(stream, error):
                self._end(stream, error)
            case fx.CountSample(fate):
                self._services.metrics.samples.labels(self._label, fate).inc()
            case fx.Solve():
                self._solve_asked_at_s = time.perf_counter()
                self._begin(self._solve(effect))
            case fx.Learn(samples):
                self._begin(self._learn(samples))
            case fx.Record(decision):
                self._record(decision)
            case fx.Announce(plan):
                self._services.metrics.committed_version.labels(self._label).set(plan.version)
                self._services.hub.show(self.group.deployment.name, plan)
            case _:
                await self._persist(effect)

    def _send(self, stream: int, message: fx.Message) -> None:
        """Hands a message to a stream's outbox, if the stream is still there."""
        if isinstance(message, fx.Refused):
            self._services.metrics.refused.labels(message.error.reason).inc()
        outbox = self._outboxes.get(stream)
        if outbox is not None:
            outbox.put(message)

    def _end(self, stream: int, error: ServiceError) -> None:
        """Ends a stream with an error, if it is still there."""
        outbox = self._outboxes.get(stream)
        if outbox is not None:
            outbox.close(error)

    async def _persist(self, effect: fx.Effect) -> None:
        """Carries out a store effect and feeds the answer back before anything else happens."""
        name = self.group.deployment.name
        store = self._services.store
        match effect:
            case fx.StorePlan(draft):
                epoch, now_s = self.group.epoch, self._services.clock.now().wall_s
                try:
                    plan = await store.run(
                        "publish", lambda store: store.publish(draft, epoch=epoch, now_s=now_s)
                    )
                except Exception as error:  # whatever it is, the core must hear of it
                    await self._handle(ev.StoreFailed(message=self._told(error)))
                else:
                    await self._handle(ev.Stored(plan=plan))
            case fx.StoreApplied(version):
                try:
                    await store.run(
                        "mark_applied", lambda store: store.mark_applied(name, version)
                    )
                except ServiceError as error:
                    logger.warning("%s: v%d not marked applied: %s", name, version, error.message)
            case fx.RaiseCounters(stream, version, epoch):
                try:
                    head, raised = await store.run(
                        "raise_counters",
                        lambda store: store.raise_counters(name, version=version, epoch=epoch),
                    )
                except ServiceError as error:
                    self._end(stream, error)
                    return
                logger.warning("%s: counters raised to version %d, epoch %d", name, head, raised)
                self._on_epoch(raised)
                await self._handle(ev.CountersRaised(head=head, epoch=raised))
            case _:
                raise AssertionError(f"no way to carry out {type(effect).__name__}")

    async def save_forecast(self) -> None:
        """Writes the forecast to the store, unless it is there already."""
        await self._forecast.save()

    def _begin(self, job: Coroutine[Any, Any, None]) -> None:
        """Starts what takes the solver's time; events go on meanwhile.

        Tasks begin in the order in which they are made, so windows stand in line in their order.
        """
        task = asyncio.create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _learn(self, samples: tuple[np.ndarray[Any, Any], ...]) -> None:
        """Shows the forecast a window that nobody plans for."""
        try:
            await self._forecast.learn(samples)
            await self._forecast.save_if_due()
        except Exception as error:  # the outermost of its task
            self._told(error)

    async def _solve(self, effect: fx.Solve) -> None:
        """Has a job solved and brings the answer back as an event."""
        answer: ev.Event
        try:
            solution = await self._forecast.solve(effect.samples, effect.incumbent)
        except Exception as error:  # whatever it is, the core must hear of it
            answer = ev.SolveFailed(solve=effect.solve, message=self._told(error))
        else:
            answer = ev.Solved(solve=effect.solve, solution=solution)
        await self.submit(answer)
        try:
            await self._forecast.save_if_due()
        except Exception as error:  # the outermost of its task
            self._told(error)

    def _told(self, error: Exception) -> str:
        """Returns what a decision says of an error; one that is no refusal is a defect."""
        if isinstance(error, ServiceError):
            return error.message
        self._services.metrics.core_errors.inc()
        logger.error("%s: defect", self.group.deployment.name, exc_info=error)
        return f"{type(error).__name__}: {error}"

    def raise_epoch(self, epoch: int) -> None:
        """Tells the core that the store's term has moved on."""
        self.group.handle(ev.CountersRaised(head=0, epoch=epoch), self._services.clock.now())

    def _record(self, decision: Decision) -> None:
        """Logs and counts a decision."""
        metrics, name = self._services.metrics, self.group.deployment.name
        metrics.decisions.labels(self._label, decision.reason).inc()
        if decision.evaluation is not None:
            metrics.decision_seconds.observe(time.perf_counter() - self._solve_asked_at_s)
            for placement, value in (
                ("incumbent", decision.balancedness_before),
                ("candidate", decision.balancedness_after),
            ):
                if value > 0:  # an incumbent that has lost experts has none
                    metrics.balancedness.labels(self._label, placement).set(value)
        logger.info("%s: %s %s", name, decision.reason, decision.message)
