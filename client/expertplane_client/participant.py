"""A participant: keeps a session with the planner, for ever, and never needs the planner to serve.

The protocol is in `session`, what to say when in `outbox`, one connection in `stream`, the engine
and the disk in `keeper`; this module connects them and decides when to connect again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from typing import TYPE_CHECKING, Any, Literal

from .backoff import Backoff
from .channel import check_address, open_channel
from .effects import (
    Acked,
    AdoptPlan,
    DrainRequested,
    Effect,
    Problem,
    RefusedReport,
    Remember,
    Send,
    SetReportInterval,
    Welcomed,
)
from .errors import CallCancelledError, UnavailableError
from .identity import Identity
from .keeper import Keeper
from .messages import goodbye
from .outbox import Outbox
from .reports import load_reports
from .session import (
    DEFAULT_HEARTBEAT_INTERVAL_S,
    MAX_MESSAGE_BYTES,
    MAX_SAMPLES_PER_REPORT,
    Session,
)
from .statistics import Statistics
from .stream import Ending, Stream


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    import grpc
    import numpy as np
    from numpy.typing import NDArray

    from expertplane.v1 import placement_service_pb2 as placement_pb2

    from .cache import PlanCache
    from .messages import Request
    from .plan import Plan


logger = logging.getLogger(__name__)

MAX_UNANSWERED_REPORTS = 64
SILENT_INTERVALS = 3
"""Heartbeats that the planner may miss before the participant connects anew."""

STOP_GRACE_S = 10.0
"""Time that a switch under way has to end when the participant stops, in seconds."""


class Participant:
    """Answers for some ranks of a deployment: load up, plans down.

        participant = Participant(
            "planner:50051", "prod/deepseek-v3", "node-0", range(8),
            engine_run_id=run_id, apply=switch_ranks, cache=PlanCache(folder),
        )
        async with participant:
            participant.report(counts, first_step=step)

    Runs inside one event loop; another thread goes through `loop.call_soon_threadsafe`. Several
    participants may share a process, each with a connection of its own.

    Args:
        address: Planner, "host:port" or a gRPC target.
        deployment: "namespace/name".
        participant_id: Names the participant within its deployment; the same after a restart.
        ranks: Ranks that it answers for, ascending.
        engine_run_id: Names the run of the engine; step numbers restart with it.
        apply: Switches the ranks to a plan and returns the engine step at which they did. Called
            for one plan at a time. What it raises is told to the planner, which tries again.
        initial_phy2log: [num_layers, num_slots] integer, the engine's start placement; None means
            that slot p holds expert p mod num_logical_experts.
        cache: Where the last known good plan lies over a restart; None keeps it nowhere.
        generation: Topology generation that the engine was started with; 0 accepts any.
        max_staged_bytes: Size of the spare weight buffers of each rank, in bytes; 0 for no limit.
        rng: Where jitter comes from.
        backoff: Waits between connections.
        credentials: TLS; None connects in the clear.

    Raises:
        InputError: an argument breaks its rule.
    """

    def __init__(
        self,
        address: str,
        deployment: str,
        participant_id: str,
        ranks: Sequence[int],
        *,
        engine_run_id: str,
        apply: Callable[[Plan], Awaitable[int]],
        initial_phy2log: NDArray[np.integer[Any]] | None = None,
        cache: PlanCache | None = None,
        generation: int = 0,
        max_staged_bytes: int = 0,
        rng: random.Random | None = None,
        backoff: Backoff | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._address = check_address(address)
        self._identity = Identity(
            deployment=deployment,
            participant_id=participant_id,
            ranks=tuple(ranks),
            # Never from `rng`: two starts with one seed must not pass for one another.
            incarnation=str(uuid.uuid4()),
            engine_run_id=engine_run_id,
            generation=generation,
            initial_phy2log=initial_phy2log,
            max_staged_bytes=max_staged_bytes,
        )
        self._rng = rng or random.Random()
        self._backoff = backoff or Backoff()
        self._credentials = credentials
        self._session = Session(self._identity)
        self._outbox = Outbox(MAX_UNANSWERED_REPORTS, self._session.heartbeat)
        self._keeper = Keeper(self._identity, self._session, apply, cache, self._say)
        self._stream: Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._all_answered = asyncio.Event()
        self._all_answered.set()
        self._is_connected = False
        self._is_running = False
        self._drain_window_s: float | None = None
        self._heartbeat_interval_s = DEFAULT_HEARTBEAT_INTERVAL_S
        self._max_samples = MAX_SAMPLES_PER_REPORT
        self._max_message_bytes = MAX_MESSAGE_BYTES
        self._last_refusal: Problem | None = None
        self._num_acked = self._num_refused = self._num_connects = 0

    @property
    def plan(self) -> Plan | None:
        """The last known good plan: the one that the ranks switched to last."""
        return self._keeper.plan

    @property
    def applied_version(self) -> int:
        """The version that the ranks serve with; 0 is the start placement."""
        return self._session.applied_version

    @property
    def is_connected(self) -> bool:
        """Whether a planner has said welcome on a stream that lives."""
        return self._is_connected

    @property
    def last_refusal(self) -> Problem | None:
        """Why the planner refused a message, or a stream, the last time that it did."""
        return self._last_refusal

    @property
    def statistics(self) -> Statistics:
        """What has been done so far."""
        return Statistics(
            num_acked=self._num_acked,
            num_refused=self._num_refused,
            num_dropped=self._outbox.num_dropped,
            num_connects=self._num_connects,
            num_plans=self._keeper.num_plans,
        )

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        await self.stop()
        await self._task

    async def run(self) -> None:
        """Serves until `stop`: the cached plan first, then whatever the planner says.

        Runs once. Never ends by itself: a planner that is away or refuses is tried for ever.
        """
        assert not self._is_running, "a participant runs once"
        self._is_running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(self._keeper.run())
                await _first(self._keeper.is_restored, self._stopping)
                await self._stay_connected()
                await self._keeper.settle(STOP_GRACE_S)
                keeping.cancel()
        except Exception:
            # Whoever waits for a plan inside `async with` would otherwise never hear of it.
            logger.exception("participant %s has failed", self._identity.participant_id)
            raise
        finally:
            self._stopped.set()

    async def stop(self, reason: str = "") -> None:
        """Says goodbye, ends `run` and returns when it has ended; the ranks keep their plan.

        A switch under way has a grace of 10 s to end. Reports without an answer are lost; `flush`
        first where they matter.

        Args:
            reason: For people.
        """
        if not self._stopping.is_set():
            self._outbox.close(goodbye(reason))
            self._stopping.set()
        if self._is_running:
            await self._stopped.wait()
        self._stopped.set()

    def report(
        self,
        counts: NDArray[Any],
        first_step: int,
        steps_per_sample: int = 1,
        kind: Literal["logical", "physical"] = "logical",
        scope: Literal["participant", "deployment"] = "participant",
    ) -> None:
        """Puts load samples on their way to the planner; never waits.

        At most 64 reports wait for their answer; after that the oldest makes room. They are sent
        again after a reconnect, and the planner counts each sample once.

        Args:
            counts: [num_layers, columns] or, for consecutive samples, [num_samples, num_layers,
                columns], tokens, integers or floats. Columns are logical experts; for physical
                counts the slots of the own ranks in rank order, or all slots when the scope is the
                deployment. Copied.
            first_step: Engine step that the first sample starts at. Steps before the latest switch
                count under the plan before it; a sample that straddles the switch is left out.
            steps_per_sample: Engine steps in each sample; all participants use the same grid.
            kind: What the columns are.
            scope: Whose tokens are counted: those of the own ranks, or everybody's, which the
                planner accepts from one participant of its choice.

        Raises:
            InputError: wrong dimensions, dtype or steps, or a sample is too large to send.
        """
        reports = load_reports(
            counts,
            first_step=first_step,
            steps_per_sample=steps_per_sample,
            kind=kind,
            scope=scope,
            switch=self._session.switch,
            max_samples=self._max_samples,
            max_message_bytes=self._max_message_bytes,
        )
        for report in reports:
            self._outbox.add_report(report)
            self._all_answered.clear()
        self._wake()

    async def flush(self) -> bool:
        """Waits until every report is answered; False when the participant stopped before."""
        await _first(self._all_answered, self._stopped)
        return self._all_answered.is_set()

    async def _stay_connected(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            num_connects = self._num_connects
            ending = await self._connect()
            self._note(ending)
            if self._num_connects > num_connects:
                attempt = 0
            if self._drain_window_s is not None:
                delay_s = self._rng.uniform(0.0, self._drain_window_s)
            else:
                delay_s = self._backoff.delay_s(attempt, self._rng)
                attempt += 1
            logger.info("connecting again in %.3f s: %s", delay_s, ending.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()

    async def _connect(self) -> Ending:
        self._drain_window_s = None
        # Before the Welcome the planner has not told its interval, and the last one may be stale.
        self._heartbeat_interval_s = DEFAULT_HEARTBEAT_INTERVAL_S
        # A new channel each time: gRPC's own waits between connections are none of ours.
        async with open_channel(self._address, self._credentials, is_private=True) as channel:
            self._outbox.open(self._session.hello())
            self._stream = Stream(
                channel,
                self._address,
                self._outbox,
                on_response=self._on_response,
                silence_s=lambda: SILENT_INTERVALS * self._heartbeat_interval_s,
            )
            try:
                return await self._stream.run(self._stopping)
            finally:
                self._stream = None
                self._is_connected = False

    def _on_response(self, response: placement_pb2.ConnectResponse) -> bool:
        for effect in self._session.on_response(response):
            self._carry_out(effect)
        return self._drain_window_s is None

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Welcomed():
                self._on_welcome(effect)
            case AdoptPlan(plan):
                self._keeper.adopt(plan)
            case Send(request):
                self._say(request)
            case Remember():
                self._keeper.remember()
            case Acked(sequence):
                self._num_acked += self._settle_report(sequence)
            case RefusedReport(sequence, problem):
                self._settle_report(sequence)
                self._num_refused += 1
                self._last_refusal = problem
                logger.warning("the planner refused a message: %s", problem.message)
            case SetReportInterval(interval_s):
                self._outbox.set_report_interval(interval_s)
            case DrainRequested(window_s):
                self._drain_window_s = window_s

    def _on_welcome(self, welcome: Welcomed) -> None:
        if not self._is_connected:
            self._num_connects += 1
            self._is_connected = True
        self._heartbeat_interval_s = welcome.heartbeat_interval_s
        self._max_samples = min(welcome.max_samples_per_report, MAX_SAMPLES_PER_REPORT)
        self._max_message_bytes = min(welcome.max_message_bytes, MAX_MESSAGE_BYTES)
        self._outbox.welcome(
            asyncio.get_running_loop().time(),
            can_report=welcome.is_deployment_known,
            heartbeat_interval_s=welcome.heartbeat_interval_s,
            report_interval_s=welcome.report_interval_s,
        )
        self._wake()

    def _settle_report(self, sequence: int) -> bool:
        is_ours = self._outbox.settle_report(sequence)
        if not self._outbox.num_reports:
            self._all_answered.set()
        return is_ours

    def _say(self, request: Request) -> None:
        # Without a stream nothing is lost: the next Hello tells what the ranks serve with.
        if self._stream is not None:
            self._outbox.say(request)
            self._wake()

    def _wake(self) -> None:
        if self._stream is not None:
            self._stream.wake()

    def _note(self, ending: Ending) -> None:
        error = ending.error
        if error is None or isinstance(error, UnavailableError | CallCancelledError):
            return
        self._last_refusal = Problem.from_error(error)
        logger.warning("the planner ended the stream: %s", error.message)


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
