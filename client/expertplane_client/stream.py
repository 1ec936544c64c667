"""One stream to the planner: a task that reads, a task that writes, and their common end."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from expertplane.v1 import placement_service_pb2 as placement_pb2

from .status import call_error


if TYPE_CHECKING:
    from collections.abc import Callable

    from .errors import CallError
    from .outbox import Outbox


METHOD = "/expertplane.v1.PlacementService/Connect"

_WRITE_TIMEOUT_S = 30.0
_GOODBYE_TIMEOUT_S = 2.0
# What grpc.aio says, with status INTERNAL, of a message for a connection that is gone.
_BROKEN = "Internal error from Core"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ended."""

    message: str
    """For people."""

    error: CallError | None = None
    """What the planner, or the connection, ended it with; None when it ended in order."""


class Stream:
    """Carries what is in the outbox to the planner, and hands over what comes back.

    Args:
        channel: A channel of its own.
        address: Where it leads, for messages.
        outbox: What to say.
        on_response: Takes each message of the planner; returns False to end the stream.
        silence_s: Tells how long the planner may be silent, in seconds.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: str,
        outbox: Outbox,
        *,
        on_response: Callable[[placement_pb2.ConnectResponse], bool],
        silence_s: Callable[[], float],
    ) -> None:
        self._address = address
        self._outbox = outbox
        self._on_response = on_response
        self._silence_s = silence_s
        self._has_work = asyncio.Event()
        self._call = channel.stream_stream(
            METHOD,
            request_serializer=placement_pb2.ConnectRequest.SerializeToString,
            response_deserializer=placement_pb2.ConnectResponse.FromString,
        )()

    def wake(self) -> None:
        """Makes the writer look into the outbox."""
        self._has_work.set()

    async def run(self, stopping: asyncio.Event) -> Ending:
        """Reads and writes until either side ends the stream; leaves nothing behind.

        Args:
            stopping: Ends the stream in order, after the outbox has said its last word. Whoever
                sets it closes the outbox first.
        """
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        stopper = asyncio.create_task(stopping.wait())
        tasks = (reader, writer, stopper)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stopper.done() and not reader.done() and not writer.done():
                self.wake()
                # The planner answers a Goodbye by ending the stream; a dead one does not.
                await asyncio.wait((reader,), timeout=_GOODBYE_TIMEOUT_S)
            # A write to a broken stream fails first; why it broke is the reader's to say.
            if writer.done() and not reader.done():
                await asyncio.wait((reader,), timeout=_GOODBYE_TIMEOUT_S)
        finally:
            for task in tasks:
                task.cancel()
            self._call.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._ending(reader, writer)

    async def _read(self) -> None:
        while True:
            async with asyncio.timeout(self._silence_s()):
                response = await self._call.read()
            if not isinstance(response, placement_pb2.ConnectResponse):  # grpc.aio.EOF
                return
            if not self._on_response(response):
                return

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._has_work.clear()
            message = self._outbox.pop(loop.time())
            if message is not None:
                async with asyncio.timeout(_WRITE_TIMEOUT_S):
                    await self._call.write(message)
            elif self._outbox.is_finished:
                await self._call.done_writing()
                return
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._outbox.due_s()):
                        await self._has_work.wait()

    def _ending(self, reader: asyncio.Task[None], writer: asyncio.Task[None]) -> Ending:
        for task, name in ((reader, "a message"), (writer, "to read")):
            if task.cancelled():
                continue
            match task.exception():
                case grpc.aio.AioRpcError() as error if error.details() == _BROKEN:
                    return Ending(f"Expected a connection to {self._address}, it broke.")
                case grpc.aio.AioRpcError() as error:
                    failure = call_error(error, method=METHOD, address=self._address)
                    return Ending(failure.message, failure)
                case TimeoutError():
                    return Ending(f"Expected the planner {name} in time, got silence.")
                case asyncio.InvalidStateError() | None:  # ended by the planner, in order
                    continue
                case error:
                    raise error
        return Ending("The stream ended.")
