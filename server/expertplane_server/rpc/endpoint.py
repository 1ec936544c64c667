"""Makes gRPC handlers of plain coroutines: parse, call, map refusals, count.

Requests arrive as bytes and are parsed here, so that bytes that do not parse are refused like any
other bad input.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from expertplane_server.core import limits
from expertplane_server.core.errors import ExhaustedError, InvalidArgumentError, ServiceError
from expertplane_server.rpc.status import (
    DETAILS_KEY,
    status_code,
    status_details,
    status_message,
)


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

    from expertplane_server.telemetry.metrics import Metrics

    Context = grpc.aio.ServicerContext[Any, Any]


class Endpoint:
    """Builds the handlers of one service.

    Args:
        service: the service's descriptor.
        metrics: where calls are counted.
    """

    def __init__(self, service: ServiceDescriptor, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    def handlers(
        self,
        *,
        unary: Mapping[str, Callable[[Any], Awaitable[Message]]] | None = None,
        server_streams: Mapping[str, Callable[[Any], AsyncIterator[Message]]] | None = None,
        raw_streams: Mapping[str, Callable[[Any, Any], Awaitable[None]]] | None = None,
        large: Collection[str] = (),
    ) -> grpc.GenericRpcHandler:
        """Returns the handlers of every method of the service.

        Args:
            unary: request to response, by method name.
            server_streams: request to responses, by method name.
            raw_streams: bytes and context in, the coroutine writes; by method name.
            large: names of the unary methods whose requests may be as large as gRPC lets through.
        """
        unary, server_streams, raw_streams = unary or {}, server_streams or {}, raw_streams or {}
        table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in self._service.methods:
            if method.name in server_streams:
                table[method.name] = self._server_stream(method, server_streams[method.name])
            elif method.name in raw_streams:
                table[method.name] = self._raw_stream(method, raw_streams[method.name])
            else:
                is_large = method.name in large
                table[method.name] = self._unary(method, unary[method.name], is_large=is_large)
        return grpc.method_handlers_generic_handler(self._service.full_name, table)

    def _unary(
        self,
        method: MethodDescriptor,
        call: Callable[[Any], Awaitable[Message]],
        *,
        is_large: bool,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        name = method.name

        async def handle(raw: bytes, context: Context) -> bytes:
            start_s = time.perf_counter()
            try:
                if not is_large:
                    _check_size(raw)
                response = await call(_parse(method, raw))
            except ServiceError as error:
                self._count(name, status_code(error))
                await abort(context, error)
            self._count(name, grpc.StatusCode.OK)
            self._metrics.request_seconds.labels(name).observe(time.perf_counter() - start_s)
            return response.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle)

    def _server_stream(
        self, method: MethodDescriptor, call: Callable[[Any], AsyncIterator[Message]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        name = method.name

        async def handle(raw: bytes, context: Context) -> AsyncIterator[bytes]:
            with self._metrics.streams.labels(name).track_inprogress():
                try:
                    _check_size(raw)
                    async for response in call(_parse(method, raw)):
                        yield response.SerializeToString()
                except ServiceError as error:
                    self._count(name, status_code(error))
                    await abort(context, error)
                except (asyncio.CancelledError, GeneratorExit):
                    self._count(name, grpc.StatusCode.CANCELLED)
                    raise
            self._count(name, grpc.StatusCode.OK)

        return grpc.unary_stream_rpc_method_handler(handle)

    def _raw_stream(
        self, method: MethodDescriptor, call: Callable[[Any, Any], Awaitable[None]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        name = method.name

        async def handle(requests: AsyncIterator[bytes], context: Context) -> None:
            with self._metrics.streams.labels(name).track_inprogress():
                try:
                    await call(requests, context)
                except ServiceError as error:
                    self._count(name, status_code(error))
                    refusal = error
                except asyncio.CancelledError:
                    self._count(name, grpc.StatusCode.CANCELLED)
                    raise
                else:
                    self._count(name, grpc.StatusCode.OK)
                    return
            # Behind a peer that does not read this waits until its connection ends.
            await abort(context, refusal)

        return grpc.stream_stream_rpc_method_handler(handle)

    def _count(self, method: str, code: grpc.StatusCode) -> None:
        """Counts a finished call."""
        self._metrics.requests.labels(method, code.name).inc()


async def abort(context: Context, error: ServiceError) -> NoReturn:
    """Ends a call with a refusal and its details."""
    await context.abort(
        status_code(error),
        status_message(error),
        trailing_metadata=((DETAILS_KEY, status_details(error)),),
    )
    raise AssertionError("abort returned")


def _check_size(raw: bytes) -> None:
    """Refuses a request that is too large for one without a tensor.

    Raises:
        ExhaustedError: it is.
    """
    most = limits.MAX_SMALL_MESSAGE_BYTES
    if len(raw) > most:
        raise ExhaustedError(
            f"Expected a request of at most {most} bytes, got {len(raw)}.",
            retry_after_s=None,
            reason="MESSAGE_TOO_LARGE",
        )


def _parse(method: MethodDescriptor, raw: bytes) -> Message:
    """Parses a request.

    Raises:
        InvalidArgumentError: the bytes are not such a message.
    """
    request = GetMessageClass(method.input_type)()
    try:
        request.ParseFromString(raw)
    except DecodeError as error:
        raise InvalidArgumentError(
            f"Expected the bytes of a {method.input_type.name}, "
            f"got {len(raw)} bytes that do not parse.",
            reason="UNPARSABLE",
        ) from error
    return request
