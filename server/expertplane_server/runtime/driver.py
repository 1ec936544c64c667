"""Drives one deployment's core: one task takes the events and carries out the effects in order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.errors import ServiceError, UnavailableError
from expertplane_server.runtime.forecast_keeper import ForecastKeeper
from expertplane_server.runtime.instruments import Instruments
from expertplane_server.runtime.order_book import OrderBook
from expertplane_server.runtime.persistence import Persistence


if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    import numpy as np

    from expertplane_server.core.group import Group
    from expertplane_server.core.plan import Decision, Plan, Request
    from expertplane_server.core.spec import Deployment
    from expertplane_server.runtime.jobs import Expected
    from expertplane_server.runtime.outbox import Outbox
    from expertplane_server.runtime.services import Services

logger = logging.getLogger(__name__)

_MAX_QUEUED = 128
_TICK_S = 0.25
_SAVE_BEFORE_UPDATE_S = 5.0
"""How long a change of the ranks waits for the forecast to be saved; behind a long solve the last
checkpoint has to do."""


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
        self._is_tick_due = False
        self._orders = OrderBook()
        self._persistence = Persistence(group, services)
        self._instruments = Instruments(group, services)
        self._forecast = ForecastKeeper(group.deployment, services, self._instruments.label)

    def start(self) -> None:
        """Shows what is in force, and starts the task and its clock."""
        committed = self.group.committed
        self._instruments.on_effect(fx.Announce(committed))
        self._instruments.look(0)
        self._services.hub.show(self.group.deployment.name, committed)
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._tick())]

    async def stop(self) -> None:
        """Stops the task. Streams are left to their owners; what is not handled yet is dropped."""
        self._is_stopped = True
        tasks = [*self._tasks, *self._jobs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._forecast.retire()
        self._orders.close()
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

    async def order(
        self,
        action: orders.Action,
        *,
        request: Request | None = None,
        expected_head: int | None = None,
    ) -> Plan | Decision | Deployment:
        """Has an operator's order carried out, and returns the answer.

        A repeated request gets the first answer, also while the first is on its way.

        Args:
            action: what to do.
            request: makes a repeat return the first answer; None goes without.
            expected_head: the head that the operator has seen; None skips the check.

        Raises:
            ServiceError: the order is refused, or the deployment is being stopped.
        """
        waiting = self._orders.find(request)
        if waiting is None:
            waiting = self._orders.open(request)
            try:
                if isinstance(action, orders.Update):
                    await self._save_before(action)
                await self.submit(
                    ev.Order(
                        order=waiting.order,
                        action=action,
                        request=request,
                        expected_head=expected_head,
                    )
                )
            except asyncio.CancelledError:
                error = UnavailableError("The first to ask has given up.", reason="CANCELLED")
                self._orders.answer(waiting.order, error)
                raise
        # Others may wait for the same answer; one that gives up does not take it from them.
        answer = await asyncio.shield(waiting.answer)
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    async def first_answer(
        self, action: orders.Action, request: Request | None
    ) -> Plan | Decision | Deployment | None:
        """Returns the answer to an order that was carried out before; None to a new one.

        Raises:
            ServiceError: as `Persistence.first_answer` does.
        """
        if request is None:
            return None
        return await self._persistence.first_answer(action, request)

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

    def raise_epoch(self, epoch: int) -> None:
        """Tells the core that the store's term has moved on."""
        self.group.handle(ev.CountersRaised(head=0, epoch=epoch), self._services.clock.now())

    # The loop.

    async def _run(self) -> None:
        """Takes one event after another."""
        await self._survive("beginning", self._resume())
        while True:
            event = await self._next()
            self._instruments.on_event(event)
            name = f"event {type(event).__name__}"
            step = self._take_order(event) if isinstance(event, ev.Order) else self._handle(event)
            if not await self._survive(name, step):
                # An order may be answered by a later event than its own, which may be this one.
                self._orders.fail(_defect())
            self._instruments.count_members()
            if isinstance(event, ev.Tick | ev.Order):
                self._instruments.look(self._queue.qsize())

    async def _next(self) -> ev.Event:
        """Returns the next event; also under pressure heartbeats are due, and relief."""
        if self._is_tick_due:
            self._is_tick_due = False
            return ev.Tick(1.0)
        return await self._queue.get()

    async def _resume(self) -> None:
        """Puts an end to what a crash has cut short."""
        await self._carry_out_all(self.group.begin(self._services.clock.now()))

    async def _survive(self, what: str, step: Coroutine[Any, Any, None]) -> bool:
        """Takes a step, and tells whether it succeeded.

        One event must not take the deployment down with it.
        """
        try:
            await step
        except Exception:
            self._services.metrics.core_errors.inc()
            logger.exception("%s failed", what)
            return False
        return True

    async def _tick(self) -> None:
        """Lets the core know that time passes, also while the queue is full."""
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                self._queue.put_nowait(ev.Tick(self._queue.qsize() / _MAX_QUEUED))
            except asyncio.QueueFull:
                self._is_tick_due = True

    async def _take_order(self, order: ev.Order) -> None:
        """Gives an order to the core, unless it repeats one that was carried out before."""
        self._orders.take(order.order)
        try:
            first = await self.first_answer(order.action, order.request)
        except ServiceError as error:
            self._orders.answer(order.order, error)
            return
        if first is not None:
            self._orders.answer(order.order, first)
            return
        await self._handle(order)

    async def _handle(self, event: ev.Event) -> None:
        """Hands one event to the core and carries out what it wants."""
        effects = self.group.handle(event, self._services.clock.now())
        if isinstance(event, ev.DeploymentStored | ev.ReadBack):
            self._forecast = self._forecast.follow(self.group.deployment)
        await self._carry_out_all(effects)

    async def _carry_out_all(self, effects: Sequence[fx.Effect]) -> None:
        """Carries out one effect after another."""
        for effect in effects:
            await self._carry_out(effect)

    async def _carry_out(self, effect: fx.Effect) -> None:
        self._instruments.on_effect(effect)
        match effect:
            case fx.Send(stream, message):
                outbox = self._outboxes.get(stream)
                if outbox is not None:
                    outbox.put(message)
            case fx.EndStream(stream, error):
                self._end(stream, error)
            case fx.Solve():
                self._begin(self._solve(effect))
            case fx.Learn(samples):
                self._begin(self._learn(samples))
            case fx.Announce(plan):
                self._services.hub.show(self.group.deployment.name, plan)
            case fx.Answer(order, answer):
                self._orders.answer(order, answer)
            case fx.CountSample() | fx.Reached() | fx.Observed() | fx.Regressed():
                pass  # the instruments have seen it
            case _:
                await self._persist(effect)

    async def _persist(self, effect: fx.Effect) -> None:
        """Carries out a store effect and feeds the answer back before anything else happens."""
        answer: ev.Event | None
        if isinstance(effect, fx.RaiseCounters):
            try:
                raised = await self._persistence.raise_counters(effect)
            except ServiceError as error:
                if effect.stream is not None:
                    self._instruments.on_hello_answered(effect.stream, "refused")
                    self._end(effect.stream, error)
                answer = ev.RaiseFailed()
            else:
                self._on_epoch(raised.epoch)
                answer = raised
        else:
            answer = await self._persistence.carry_out(effect)
        if answer is not None:
            await self._handle(answer)

    def _end(self, stream: int, error: ServiceError) -> None:
        """Ends a stream with an error, if it is still there."""
        outbox = self._outboxes.get(stream)
        if outbox is not None:
            outbox.close(error)

    # The forecast.

    async def expect(self) -> Expected:
        """Returns what the forecast expects; raises as `ForecastKeeper.expect` does."""
        return await self._forecast.expect()

    async def save_forecast(self) -> None:
        """Writes the forecast to the store, unless it is there already."""
        await self._forecast.save()

    async def _save_before(self, update: orders.Update) -> None:
        """Saves the forecast before other ranks begin with what is stored of it."""
        deployment = self.group.deployment
        if update.etag != deployment.etag or deployment.spec.has_same_ranks(update.spec):
            return  # it will be refused, or the forecast stays where it is
        try:
            async with asyncio.timeout(_SAVE_BEFORE_UPDATE_S):
                await self._forecast.save()
        except TimeoutError:
            logger.warning("%s: forecast not saved in time", self.group.deployment.name)
        except Exception as error:  # an order does not hang on it
            self._persistence.refusal_of(error)

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
            self._persistence.refusal_of(error)

    async def _solve(self, effect: fx.Solve) -> None:
        """Has a job solved and brings the answer back as an event."""
        answer: ev.Event
        try:
            solution = await self._forecast.solve(
                effect.samples,
                effect.incumbent,
                max_moved_slots=effect.max_moved_slots,
                is_new=effect.is_new,
            )
        except Exception as error:  # whatever it is, the core must hear of it
            message = self._persistence.refusal_of(error).message
            answer = ev.SolveFailed(solve=effect.solve, message=message)
        else:
            answer = ev.Solved(solve=effect.solve, solution=solution)
        await self.submit(answer)
        try:
            await self._forecast.save_if_due()
        except Exception as error:  # the outermost of its task
            self._persistence.refusal_of(error)


def _defect() -> UnavailableError:
    """Returns the answer to an order that the planner has tripped over; the log says how."""
    return UnavailableError("The planner failed; see whether it was done.", reason="DEFECT")
