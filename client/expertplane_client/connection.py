"""How calls reach a planner, for asyncio and for threads: deadlines, errors, one repetition.

A call that changes something carries a request id. Where the planner went away before it answered,
the same message is sent once more, after a short wait: it acts once, and gives the first answer
again. The repetition waits for a planner to come up, within its deadline, where the client waits
at all; then reads are repeated as well. Everything else is left to the caller.
"""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from .backoff import Backoff
from .channel import check_address, open_blocking_channel, open_channel
from .errors import CallError
from .status import call_error


if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from . import calls


T = TypeVar("T")


class Connection:
    """One channel for asyncio, opened by the first call.

    Args:
        address: "host:port" or a gRPC target.
        credentials: TLS; None connects in the clear.
        timeout_s: Deadline of every call, in seconds; None takes each call's own.
        wait_for_ready: Lets calls that only read wait for the planner to come up, within their
            deadline, instead of failing at once.
        backoff: Waits between the streams of a watch, and before a call is repeated.
        rng: Where jitter comes from.

    Raises:
        InputError: the address is not in order.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = True,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._address = check_address(address)
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._wait_for_ready = wait_for_ready
        self._backoff = backoff or Backoff()
        self._rng = rng or random.Random()
        self._is_closed = False
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the client for good; calls in flight are cancelled."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close()

    async def _drive(self, flow: calls.Flow[T]) -> T:
        answer = None
        while True:
            try:
                call = flow.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = await self._call(call)

    async def _call(self, call: calls.Call[T]) -> T:
        try:
            return await self._call_once(call)
        except CallError as error:
            if self._is_closed or not call.may_repeat(error, waits=self._wait_for_ready):
                raise
            await asyncio.sleep(self._backoff.delay_s(0, self._rng))
            # Closed while it waits, the client has nothing more to send than this error.
            if self._is_closed:
                raise
        return await self._call_once(call, is_repeat=True)

    async def _call_once(self, call: calls.Call[T], *, is_repeat: bool = False) -> T:
        invoke = self._open().unary_unary(
            call.method,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response_class.FromString,
        )
        try:
            response = await invoke(
                call.request,
                timeout=call.timeout_s if self._timeout_s is None else self._timeout_s,
                wait_for_ready=self._wait_for_ready and (call.is_read or is_repeat),
            )
        except grpc.aio.AioRpcError as error:
            raise call_error(error, method=call.method, address=self._address) from error
        return call.parse(response)

    def _open(self) -> grpc.aio.Channel:
        assert not self._is_closed, "the client is closed"
        # Opened by the first call, inside the loop that will use it.
        if self._channel is None:
            self._channel = open_channel(self._address, self._credentials)
        return self._channel


class BlockingConnection:
    """One channel for threads; arguments and errors are those of `Connection`."""

    def __init__(
        self,
        address: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = True,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._address = check_address(address)
        self._timeout_s = timeout_s
        self._wait_for_ready = wait_for_ready
        self._backoff = backoff or Backoff()
        self._rng = rng or random.Random()
        self._is_closed = threading.Event()
        self._channel = open_blocking_channel(address, credentials)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel for good; watches end, other calls in flight are cancelled."""
        self._is_closed.set()
        self._channel.close()

    def _drive(self, flow: calls.Flow[T]) -> T:
        answer = None
        while True:
            try:
                call = flow.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = self._call(call)

    def _call(self, call: calls.Call[T]) -> T:
        try:
            return self._call_once(call)
        except CallError as error:
            is_closed = self._is_closed.is_set()
            if is_closed or not call.may_repeat(error, waits=self._wait_for_ready):
                raise
            # Closed while it waits, the client has nothing more to send than this error.
            if self._is_closed.wait(self._backoff.delay_s(0, self._rng)):
                raise
        return self._call_once(call, is_repeat=True)

    def _call_once(self, call: calls.Call[T], *, is_repeat: bool = False) -> T:
        invoke = self._channel.unary_unary(
            call.method,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response_class.FromString,
        )
        try:
            response = invoke(
                call.request,
                timeout=call.timeout_s if self._timeout_s is None else self._timeout_s,
                wait_for_ready=self._wait_for_ready and (call.is_read or is_repeat),
            )
        except grpc.RpcError as error:
            raise call_error(error, method=call.method, address=self._address) from error
        return call.parse(response)
