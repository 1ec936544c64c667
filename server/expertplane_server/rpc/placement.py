"""PlacementService.Connect: one participant's session.

Two loops share an outbox: a reader that turns messages into events, and a writer that sends what
the core answers. The call's context is touched by the writer alone, while the call is alive.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

from expertplane_server.core import effects as fx, events as ev, limits
from expertplane_server.core.errors import (
    ExhaustedError,
    InvalidArgumentError,
    ServiceError,
    UnavailableError,
)
from expertplane_server.rpc.convert import participants as convert
from expertplane_server.runtime.outbox import Outbox
from expertplane_server.store.refusals import no_such_deployment


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from expertplane.v1 import placement_service_pb2 as pb
    from expertplane_server.rpc.convert.participants import Cadence
    from expertplane_server.rpc.convert.plans import PlanWriter
    from expertplane_server.runtime.directory import Directory
    from expertplane_server.runtime.driver import Driver

logger = logging.getLogger(__name__)

_HELLO_TIMEOUT_S = 10.0
_WRITE_TIMEOUT_S = 20.0
"""gRPC hides some 4 MB before a write blocks; a peer that is this late does not read."""


class PlacementServicer:
    """Serves participants.

    Args:
        directory: the deployments.
        plans: writes stored plans.
        cadence: how often participants speak.
    """

    def __init__(self, directory: Directory, plans: PlanWriter, cadence: Cadence) -> None:
        self._directory = directory
        self._plans = plans
        self._cadence = cadence
        self._streams = itertools.count(1)
        self._num_streams = 0
        self._endings: set[asyncio.Task[None]] = set()

    async def connect(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serves one stream to its end.

        Raises:
            ServiceError: the stream ends with this refusal.
        """
        if self._directory.services.hub.is_closed:
            raise _draining()
        if self._num_streams >= limits.MAX_STREAMS:
            raise ExhaustedError(
                f"Expected at most {limits.MAX_STREAMS} streams.",
                retry_after_s=30.0,
                reason="TOO_MANY_STREAMS",
            )
        outbox = Outbox(self._directory.services.metrics)
        session = _Session(
            next(self._streams), outbox, self._directory, self._cadence.heartbeat_interval_s
        )
        self._num_streams += 1
        reader = asyncio.create_task(session.read(requests))
        reader.add_done_callback(session.on_read_end)
        deadline = asyncio.get_running_loop().call_later(_HELLO_TIMEOUT_S, session.expect_hello)
        writer = convert.ResponseWriter(self._plans, self._cadence)
        try:
            while (message := await outbox.take()) is not None:
                await self._write(context, writer.encode(message, self._directory.epoch))
        finally:
            self._num_streams -= 1
            deadline.cancel()
            # gRPC may cancel this task a second time, and the core must hear of the end.
            ending = asyncio.create_task(_end(reader, session))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            await asyncio.shield(ending)

    async def _write(self, context: Any, response: bytes) -> None:
        """Writes a message, within bounds.

        Raises:
            UnavailableError: the peer does not read.
        """
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await context.write(response)
        except TimeoutError:
            self._directory.services.metrics.slow_readers.labels("write_timeout").inc()
            raise UnavailableError(
                f"Expected a peer that reads within {_WRITE_TIMEOUT_S:g} s.", reason="SLOW_READER"
            ) from None


async def _end(reader: asyncio.Task[None], session: _Session) -> None:
    """Ends a session: its reader first, which has nothing to say after the end."""
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    await session.end()


class _Session:
    """The reader's side of a stream.

    Attributes:
        hello: the Hello that was accepted for processing; None before.
        driver: the deployment's driver; None while the deployment does not exist.
    """

    def __init__(
        self, stream: int, outbox: Outbox, directory: Directory, heartbeat_interval_s: float
    ) -> None:
        self._stream = stream
        self._heartbeat_interval_s = heartbeat_interval_s
        self._outbox = outbox
        self._directory = directory
        self._name = ""
        self._hello: ev.Hello | None = None
        self._driver: Driver | None = None
        self._finder: asyncio.Task[None] | None = None
        self._is_goodbye = False

    async def read(self, requests: AsyncIterator[bytes]) -> None:
        """Takes messages until the peer closes, says goodbye, or opens without a Hello."""
        async for raw in requests:
            if len(raw) > limits.MAX_CONNECT_MESSAGE_BYTES:
                self._outbox.close(_too_large(len(raw)))
                return
            try:
                request = convert.parse_request(raw)
            except ServiceError as error:
                await self._refuse(0, error)
                continue
            if self._hello is None:
                await self._open(request)
            else:
                await self._take(request)
            if self._is_goodbye or self._outbox.is_closed:
                break
        self._outbox.close()

    def on_read_end(self, task: asyncio.Task[None]) -> None:
        """Ends the stream when its reader has failed: a defect must not leave it deaf."""
        if task.cancelled() or task.exception() is None:
            return
        self._directory.services.metrics.core_errors.inc()
        logger.error("reading a stream failed", exc_info=task.exception())
        self._outbox.close(UnavailableError("The planner failed; connect again.", reason="DEFECT"))

    def expect_hello(self) -> None:
        """Ends the stream when its Hello has not come in time."""
        if self._hello is None:
            error = InvalidArgumentError(
                f"Expected a Hello within {_HELLO_TIMEOUT_S:g} s, got none.",
                field="message",
                reason="HELLO_EXPECTED",
            )
            self._outbox.close(error)

    async def end(self) -> None:
        """Tells the core that the stream is over."""
        if self._finder is not None:
            self._finder.cancel()
            await asyncio.gather(self._finder, return_exceptions=True)
        if self._driver is not None:
            self._driver.detach(self._stream)
        # A driver that is gone takes no events any more.
        if self._driver is not None and self._directory.find(self._name) is self._driver:
            await self._driver.submit(
                ev.StreamEnded(stream=self._stream, is_goodbye=self._is_goodbye)
            )

    async def _open(self, request: pb.ConnectRequest) -> None:
        """Takes the first message; anything but a good Hello ends the stream."""
        hellos = self._directory.services.metrics.hellos
        try:
            if request.WhichOneof("message") != "hello":
                got = request.WhichOneof("message") or "an unknown message"
                raise InvalidArgumentError(
                    f"Expected the first message to be a Hello, got {got}.",
                    field="message",
                    reason="HELLO_EXPECTED",
                )
            self._name = convert.deployment_from(request.hello)
            self._hello = convert.hello_from(request.hello, self._stream)
        except ServiceError as error:
            hellos.labels("refused").inc()
            self._outbox.close(error)
            return
        if not await self._join():
            hellos.labels(fx.Verdict.DEPLOYMENT_UNKNOWN).inc()
            self._outbox.put(fx.Welcome(verdict=fx.Verdict.DEPLOYMENT_UNKNOWN))
            self._finder = asyncio.create_task(self._find())

    async def _join(self) -> bool:
        """Submits the Hello to the deployment, and tells whether there is one."""
        driver = self._directory.find(self._name)
        if driver is None:
            return False
        assert self._hello is not None
        self._driver = driver
        driver.attach(self._stream, self._outbox)
        await driver.submit(self._hello)
        return True

    async def _find(self) -> None:
        """Waits until the deployment appears, then joins it; a drain ends the wait."""
        hub = self._directory.services.hub
        while not await self._join():
            if hub.is_closed:
                self._outbox.close(_draining())
                return
            try:
                async with asyncio.timeout(self._heartbeat_interval_s):
                    await hub.changed(self._name)
            except TimeoutError:
                # There is no deployment to send it for, but a silent planner looks dead.
                self._outbox.put(fx.PlannerHeartbeat(head=0, committed=0))

    async def _take(self, request: pb.ConnectRequest) -> None:
        """Turns a message into an event. Kinds that this release does not know are ignored."""
        kind = request.WhichOneof("message")
        if kind == "goodbye":
            self._is_goodbye = True
            return
        sequence = request.load_report.sequence if kind == "load_report" else 0
        try:
            event = self._event(kind, request)
        except ServiceError as error:
            await self._refuse(sequence, error)
            return
        if event is None:
            return
        if self._driver is None or self._directory.find(self._name) is not self._driver:
            await self._rejoin(sequence, is_report=kind == "load_report")
            return
        await self._driver.submit(event)

    def _event(self, kind: str | None, request: pb.ConnectRequest) -> ev.Event | None:
        """Returns the event of a message, or None for one without meaning here.

        Raises:
            InvalidArgumentError: a field breaks its rule.
        """
        match kind:
            case "load_report":
                return convert.report_from(request.load_report, self._stream)
            case "ack":
                return convert.ack_from(request.ack, self._stream)
            case "nack":
                return convert.nack_from(request.nack, self._stream)
            case "heartbeat":
                applied = convert.ref_from(request.heartbeat.applied, "heartbeat.applied")
                return ev.Heartbeat(stream=self._stream, applied=applied)
            case "hello":
                raise InvalidArgumentError(
                    "Expected one Hello a stream, got another.",
                    field="message",
                    reason="HELLO_REPEATED",
                )
            case _:
                return None

    async def _rejoin(self, sequence: int, *, is_report: bool) -> None:
        """Answers for a deployment that is gone, and waits for it to come back."""
        if self._driver is not None:
            self._driver = None
            self._finder = asyncio.create_task(self._find())
        if is_report:
            error = no_such_deployment(self._name)
            self._outbox.put(fx.Refused(sequence=sequence, error=error))

    async def _refuse(self, sequence: int, error: ServiceError) -> None:
        """Turns a bad message down in band, in order with the other answers."""
        if self._driver is None:
            self._outbox.put(fx.Refused(sequence=sequence, error=error))
        else:
            await self._driver.submit(
                ev.Refuse(stream=self._stream, sequence=sequence, error=error)
            )


def _draining() -> UnavailableError:
    """Returns the end of a stream that another planner is to serve."""
    return UnavailableError("The planner is draining; connect again.", reason="DRAINING")


def _too_large(num_bytes: int) -> ExhaustedError:
    """Returns the end of a stream that sent more than it may."""
    return ExhaustedError(
        f"Expected messages of at most {limits.MAX_CONNECT_MESSAGE_BYTES} bytes, got {num_bytes}.",
        retry_after_s=None,
        reason="MESSAGE_TOO_LARGE",
    )
