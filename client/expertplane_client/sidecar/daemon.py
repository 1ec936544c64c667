"""The sidecar itself: a participant for each run of the engine, kept going for ever."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.backoff import Backoff
from expertplane_client.errors import InputError
from expertplane_client.participant import Participant

from .desk import Desk
from .directory_port import DirectoryPort
from .figures import Figures, add_counts
from .memory import Memory
from .socket_port import SocketPort


if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from expertplane_client.plan import Plan

    from .config import SidecarConfig
    from .dialogue import Applied, EngineHello, Load, Refused, Staged


logger = logging.getLogger(__name__)

RETRY_S = 1.0
"""Wait before a participant that has failed is made anew, in seconds."""


class Sidecar:
    """Speaks for an engine: hands load up and plans down, whichever of the two is there.

    Every run of the engine has a participant of its own, as its steps and its placement start
    anew. An engine that has only lost its connection keeps the participant that it had.

    Args:
        config: What the operator has set.
        on_change: Called when readiness may have changed.
        backoff: Waits between connections to the planner.
    """

    def __init__(
        self,
        config: SidecarConfig,
        on_change: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._config = config
        self._on_change = on_change
        self._backoff = backoff or Backoff()
        self._desk = Desk(on_change)
        self._memory = Memory(config.cache, config.deployment, config.participant_id)
        self._port = self._new_port()
        self._loop = asyncio.get_running_loop()
        self._participant: Participant | None = None
        self._served: EngineHello | None = None
        self._newcomer: EngineHello | None = None
        self._has_newcomer = asyncio.Event()
        self._is_restored = False
        self._past: dict[str, int] = {}
        self._num_engines = self._num_ignored = self._num_complaints = 0

    @property
    def is_ready(self) -> bool:
        """Whether an engine is there and knows what to serve with."""
        return self._desk.engine is not None and self._is_restored

    def figures(self) -> Figures:
        """Returns what there is to tell now; any thread may ask."""
        participant, counts = self._participant, self._past
        more: dict[str, Any] = {}
        if participant is not None:
            counts = add_counts(counts, participant.statistics)
            heard_s = participant.last_heard_s
            more = {
                "is_connected": participant.is_connected,
                "applied_version": participant.applied_version,
                "staged_version": participant.staged_version,
                "plan_age_s": _age_s(participant.plan),
                "planner_silence_s": math.nan if heard_s is None else self._loop.time() - heard_s,
            }
        return Figures(
            is_engine_attached=self._desk.engine is not None,
            is_ready=self.is_ready,
            num_engines=self._num_engines,
            num_ignored=self._num_ignored,
            num_complaints=self._num_complaints,
            **more | counts,
        )

    async def start(self) -> None:
        """Opens the way to the engine.

        Raises:
            InputError: it cannot be opened.
        """
        await self._port.start()
        self._desk.open(self._port)

    async def run(self, stopping: asyncio.Event) -> None:
        """Serves whatever engine comes until `stopping` is set; then says goodbye."""
        port = asyncio.create_task(self._port.run())
        # A port that fails ends the process, whoever is served.
        port.add_done_callback(lambda _: self._has_newcomer.set())
        try:
            while not stopping.is_set():
                await _any(self._has_newcomer.wait(), stopping.wait(), asyncio.shield(port))
                if port.done():
                    port.result()
                if self._newcomer is not None and not stopping.is_set():
                    await self._serve(self._newcomer, stopping)
        finally:
            port.cancel()
            await asyncio.gather(port, return_exceptions=True)

    def close(self) -> None:
        """Closes the way to the engine."""
        self._port.close()

    # What follows is the `Reception`.

    def come(self, hello: EngineHello) -> None:
        """Takes an engine that has come, or come back."""
        run_id = hello.engine_run_id or self._config.engine_run_id
        if not run_id:
            raise InputError("Expected hello.engine_run_id, as none is configured, got none.")
        hello = dataclasses.replace(hello, engine_run_id=run_id)
        self._num_engines += 1
        participant = self._participant
        if participant is not None and self._is_same(hello, participant.plan):
            logger.info("the engine of run %s is back", run_id)
            self._desk.resume(hello, participant.plan)
            return
        logger.info("an engine of run %s has come", run_id)
        # Nothing that the old participant wants may reach the new engine.
        self._desk.detach()
        self._newcomer = hello
        self._has_newcomer.set()

    def go(self) -> None:
        """Notes that the engine is gone."""
        logger.warning("the engine is gone; its plan waits for the next")
        self._newcomer = None
        self._has_newcomer.clear()
        self._desk.detach()

    def answer(self, message: Staged | Applied | Refused) -> bool:
        """Takes an answer; False when nothing of the kind was asked."""
        return self._desk.answer(message)

    def report(self, load: Load) -> None:
        """Takes load samples; drops those whose plan is not certain."""
        participant = self._participant
        is_certain = (
            participant is not None
            and self.is_ready
            and participant.applied_version == self._desk.applied_version
        )
        if participant is None or not is_certain:
            self._num_ignored += 1
            return
        participant.report(
            load.counts,
            first_step=load.first_step,
            steps_per_sample=load.steps_per_sample,
            kind=load.kind,
            scope=load.scope,
        )

    def complain(self, message: str) -> None:
        """Notes that an engine has said what could not be taken."""
        self._num_complaints += 1
        logger.warning("an engine's message is refused: %s", message)

    async def _serve(self, hello: EngineHello, stopping: asyncio.Event) -> None:
        self._newcomer, self._served = None, hello
        self._has_newcomer.clear()
        self._is_restored = False
        self._desk.attach(hello)
        await self._memory.believe(hello.applied)
        participant = self._participant = self._new_participant(hello)
        running = asyncio.create_task(participant.run())
        restoring = asyncio.create_task(self._restore(participant))
        try:
            await _any(self._has_newcomer.wait(), stopping.wait(), asyncio.shield(running))
            if stopping.is_set():
                self._desk.close()
                await participant.stop("the sidecar stops")
        finally:
            running.cancel()
            restoring.cancel()
            (outcome, _) = await asyncio.gather(running, restoring, return_exceptions=True)
            self._past = add_counts(self._past, participant.statistics)
            self._participant = None
            self._is_restored = False
        if isinstance(outcome, Exception):
            await self._retry(hello, stopping)

    async def _retry(self, hello: EngineHello, stopping: asyncio.Event) -> None:
        logger.error("the participant has failed; another one follows in %g s", RETRY_S)
        await _any(self._has_newcomer.wait(), stopping.wait(), asyncio.sleep(RETRY_S))
        if self._newcomer is None and self._desk.engine is not None:
            self._newcomer = hello
            self._has_newcomer.set()

    async def _restore(self, participant: Participant) -> None:
        await participant.restored()
        self._is_restored = True
        if participant.plan is None:
            self._desk.say_no_plan()
        self._on_change()

    async def _switch(self, plan: Plan) -> int:
        if self._is_restored:
            await self._memory.order(plan)
        return await self._desk.switch(plan, is_start=not self._is_restored)

    def _is_same(self, hello: EngineHello, plan: Plan | None) -> bool:
        served = self._served
        if served is None or not self._is_restored or self._newcomer is not None:
            return False
        if served.engine_run_id != hello.engine_run_id:
            return False
        starts = served.initial_phy2log, hello.initial_phy2log
        is_same_start = all(start is None for start in starts) or (
            all(start is not None for start in starts) and np.array_equal(*starts)  # type: ignore[arg-type]  # neither is None here
        )
        return is_same_start and self._desk.is_served_with(plan, hello)

    def _new_participant(self, hello: EngineHello) -> Participant:
        config = self._config
        return Participant(
            config.planner,
            config.deployment,
            config.participant_id,
            config.ranks,
            engine_run_id=hello.engine_run_id,
            apply=self._switch,
            stage=self._desk.stage,
            unstage=self._desk.unstage,
            initial_phy2log=hello.initial_phy2log,
            cache=self._memory.cache,
            generation=config.generation,
            max_staged_bytes=config.max_staged_bytes,
            backoff=self._backoff,
        )

    def _new_port(self) -> SocketPort | DirectoryPort:
        handoff = self._config.handoff
        if handoff.kind == "socket":
            return SocketPort(handoff.path, handoff.max_message_bytes, self)
        return DirectoryPort(
            handoff.path, handoff.poll_interval_s, handoff.max_message_bytes, self
        )


def _age_s(plan: Plan | None) -> float:
    if plan is None or plan.created_at is None:
        return math.nan
    return (datetime.datetime.now(datetime.UTC) - plan.created_at).total_seconds()


async def _any(*waits: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> None:
    # Waits for the first; what is handed over as a task goes on.
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
