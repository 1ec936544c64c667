"""A participant: keeps a session with the planner, for ever, and never needs the planner to serve.

The protocol is in `session`, what to say when in `outbox`, load in `reporting`, one connection in
`stream`, when to make the next in `reconnecting`, the engine in `staging` and `keeper`, which also
keeps the disk; this module connects them.
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
    StagePlan,
    Unstage,
    Welcomed,
)
from .errors import CallCancelledError, UnavailableError
from .identity import Identity
from .keeper import Keeper
from .messages import goodbye
from .outbox import Outbox
from .reconnecting import Reconnecting
from .reporting import Reporting
from .session import DEFAULT_HEARTBEAT_INTERVAL_S, Session
from .staging import Stager
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
            for one plan at a time. What it raises is told to the planner, which tries again, but
            for `PlanUnacceptableError`, after which it does not.
        stage: Fetches the weights of a plan into spare buffers, within the seconds given, so that
            `apply` of this plan is quick. Is cancelled when the plan is withdrawn or the time is
            up. Raises like `apply`, and has nothing fetched then. None: all plans count as staged.
        unstage: Drops what `stage` has fetched of a version, also when that was cancelled. None of
            the three is called while another runs.
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
        stage: Callable[[Plan, float], Awaitable[None]] | None = None,
        unstage: Callable[[int], Awaitable[None]] | None = None,
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
        self._reconnecting = Reconnecting(backoff or Backoff(), rng or random.Random())
        self._credentials = credentials
        self._session = Session(self._identity)
        self._outbox = Outbox(MAX_UNANSWERED_REPORTS, self._session.heartbeat)
        self._reporting = Reporting(self._session, self._outbox)
        stager = Stager(self._session, stage, unstage, self._say)
        self._keeper = Keeper(self._identity, self._session, apply, cache, stager, self._say)
        self._stream: Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._is_connected = False
        self._is_running = False
        self._heartbeat_interval_s = DEFAULT_HEARTBEAT_INTERVAL_S
        self._last_refusal: Problem | None = None
        self._num_connects = 0
        self._last_heard_s: float | None = None

    @property
    def plan(self) -> Plan | None:
        """The last known good plan: the one that the ranks switched to last."""
        return self._keeper.plan

    @property
    def applied_version(self) -> int:
        """The version that the ranks serve with; 0 is the start placement."""
        return self._session.applied_version

    @property
    def staged_version(self) -> int:
        """The version that is prepared and not switched to; 0 when there is none."""
        return self._session.staged_version

    @property
    def is_connected(self) -> bool:
        """Whether a planner has said welcome on a stream that lives."""
        return self._is_connected

    @property
    def last_heard_s(self) -> float | None:
        """When the planner said anything last, on the event loop's clock; None for never."""
        return self._last_heard_s

    @property
    def last_refusal(self) -> Problem | None:
        """Why the planner refused a message, or a stream, the last time that it did."""
        return self._last_refusal

    @property
    def statistics(self) -> Statistics:
        """What has been done so far."""
        return Statistics(
            num_sent=self._outbox.num_sent,
            num_acked=self._reporting.num_acked,
            num_refused=self._reporting.num_refused,
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
        self._reporting.add(
            counts,
            first_step=first_step,
            steps_per_sample=steps_per_sample,
            kind=kind,
            scope=scope,
        )
        self._wake()

    async def flush(self) -> bool:
        """Waits until every report is answered; False when the participant stopped before."""
        all_answered = self._reporting.all_answered
        await _first(all_answered, self._stopped)
        return all_answered.is_set()

    async def restored(self) -> None:
        """Waits until the ranks serve with the plan from the cache, or there is none to serve."""
        await self._keeper.is_restored.wait()

    async def _stay_connected(self) -> None:
        while not self._stopping.is_set():
            ending = await self._connect()
            self._note(ending)
            if self._stopping.is_set():
                return
            delay_s = self._reconnecting.delay_s()
            logger.info("connecting again in %.3f s: %s", delay_s, ending.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()

    async def _connect(self) -> Ending:
        self._reconnecting.open()
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
        self._last_heard_s = asyncio.get_running_loop().time()
        for effect in self._session.on_response(response):
            self._carry_out(effect)
        return not self._reconnecting.is_leaving

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Welcomed():
                self._on_welcome(effect)
            case AdoptPlan() | StagePlan() | Unstage() | Remember():
                self._keeper.carry_out(effect)
            case Send(request):
                self._say(request)
            case Acked(sequence):
                self._reporting.ack(sequence)
            case RefusedReport(sequence, problem):
                self._reporting.refuse(sequence)
                self._last_refusal = problem
                logger.warning("the planner refused a message: %s", problem.message)
            case SetReportInterval(interval_s):
                self._outbox.set_report_interval(interval_s)
            case DrainRequested(window_s):
                self._reconnecting.drain(window_s)

    def _on_welcome(self, welcome: Welcomed) -> None:
        if not self._is_connected:
            self._num_connects += 1
            self._is_connected = True
            self._reconnecting.welcome()
        self._heartbeat_interval_s = welcome.heartbeat_interval_s
        self._reporting.set_limits(welcome.max_samples_per_report, welcome.max_message_bytes)
        self._outbox.welcome(
            asyncio.get_running_loop().time(),
            can_report=welcome.is_deployment_known,
            heartbeat_interval_s=welcome.heartbeat_interval_s,
            report_interval_s=welcome.report_interval_s,
        )
        self._wake()

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
