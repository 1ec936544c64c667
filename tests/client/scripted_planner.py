"""A planner on a real port that says what a test tells it to, and keeps what it hears."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from expertplane.v1 import (
    deployment_service_pb2 as deployments_pb2,
    deployment_service_pb2_grpc as deployments_grpc,
    placement_service_pb2 as placement_pb2,
    placement_service_pb2_grpc as placement_grpc,
    plan_service_pb2 as plans_pb2,
    plan_service_pb2_grpc as plans_grpc,
)

from . import builders


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType
    from typing import Self


PATIENCE_S = 20.0
"""A test that waits longer than this has failed."""


class RefusedError(Exception):
    """What an answer raises in place of a message."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ScriptedStream:
    """One participant's stream."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._heard: asyncio.Queue[placement_pb2.ConnectRequest] = asyncio.Queue()
        self._said: asyncio.Queue[placement_pb2.ConnectResponse | None] = asyncio.Queue()
        self._nonce = 0
        self.has_ended = asyncio.Event()

    def say(self, **message: Any) -> int:
        """Sends a message, named by its kind, and returns its nonce."""
        self._nonce += 1
        self.say_raw(placement_pb2.ConnectResponse(epoch=self.epoch, nonce=self._nonce, **message))
        return self._nonce

    def say_raw(self, response: placement_pb2.ConnectResponse) -> None:
        """Sends a message as it is."""
        self._said.put_nowait(response)

    def end(self) -> None:
        """Ends the stream in order."""
        self._said.put_nowait(None)

    async def hear(self, kind: str) -> Any:
        """Returns the next message of a kind, passing over others."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                request = await self._heard.get()
                if request.WhichOneof("message") == kind:
                    return getattr(request, kind)

    def heard_now(self, kind: str) -> Any:
        """Returns a message of a kind that was heard already; raises QueueEmpty for none."""
        while (request := self._heard.get_nowait()).WhichOneof("message") != kind:
            pass
        return getattr(request, kind)

    async def serve(
        self, requests: AsyncIterator[placement_pb2.ConnectRequest]
    ) -> AsyncIterator[placement_pb2.ConnectResponse]:
        """Carries messages both ways until the stream ends."""
        reading = asyncio.create_task(self._read(requests))
        try:
            while (response := await self._said.get()) is not None:
                yield response
        finally:
            reading.cancel()
            self.has_ended.set()

    async def _read(self, requests: AsyncIterator[placement_pb2.ConnectRequest]) -> None:
        async for request in requests:
            self._heard.put_nowait(request)
            if request.WhichOneof("message") == "goodbye":
                self.end()


class ScriptedPlanner(
    placement_grpc.PlacementServiceServicer,
    plans_grpc.PlanServiceServicer,
    deployments_grpc.DeploymentServiceServicer,
):
    """Serves all three services; `answers` holds what unary methods do, by name."""

    def __init__(self) -> None:
        self.epoch = 1
        self.port = 0
        self.answers: dict[str, Callable[[Any], Any]] = {
            "DeleteDeployment": lambda _: deployments_pb2.DeleteDeploymentResponse()
        }
        self.requests: list[Any] = []
        self.failure: tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]] | None = None
        self.num_failures: int | None = None
        self.refusals: asyncio.Queue[grpc.StatusCode] = asyncio.Queue()
        self._streams: asyncio.Queue[ScriptedStream] = asyncio.Queue()
        self.watches: asyncio.Queue[Watch] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Listens, on the same port as before after a `kill`."""
        # Few streams to a connection, so that participants who shared one would starve.
        limits = (("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 4))
        self._server = grpc.aio.server(options=limits)
        for add in (
            placement_grpc.add_PlacementServiceServicer_to_server,
            plans_grpc.add_PlanServiceServicer_to_server,
            deployments_grpc.add_DeploymentServiceServicer_to_server,
        ):
            add(self, self._server)  # type: ignore[no-untyped-call]  # generated without types
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()

    async def kill(self) -> None:
        """Breaks every stream and closes the port."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def stream(self) -> ScriptedStream:
        """Returns the next stream that a participant opens."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._streams.get()

    async def welcomed(self, **welcome: Any) -> tuple[ScriptedStream, placement_pb2.Hello]:
        """Returns the next stream after its Hello was answered."""
        stream = await self.stream()
        hello: placement_pb2.Hello = await stream.hear("hello")
        stream.say(welcome=builders.welcome(**welcome))
        return stream, hello

    async def Connect(  # noqa: N802, RUF100 - the wire's name
        self,
        request_iterator: AsyncIterator[placement_pb2.ConnectRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[placement_pb2.ConnectResponse]:
        """Hands the stream to the test."""
        await self._refuse(context)
        stream = ScriptedStream(self.epoch)
        self._streams.put_nowait(stream)
        async for response in stream.serve(request_iterator):
            yield response

    async def WatchPlans(  # noqa: N802, RUF100 - the wire's name
        self,
        request: plans_pb2.WatchPlansRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[plans_pb2.WatchPlansResponse]:
        """Hands the watch to the test."""
        await self._refuse(context)
        watch = Watch(request)
        self.watches.put_nowait(watch)
        while (response := await watch.said.get()) is not None:
            yield response

    async def ComputePlan(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("ComputePlan", request, context)

    async def GetPlan(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("GetPlan", request, context)

    async def ListPlans(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("ListPlans", request, context)

    async def ExplainDecisions(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("ExplainDecisions", request, context)

    async def CreateDeployment(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("CreateDeployment", request, context)

    async def GetDeployment(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("GetDeployment", request, context)

    async def ListDeployments(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("ListDeployments", request, context)

    async def UpdateDeployment(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("UpdateDeployment", request, context)

    async def DeleteDeployment(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("DeleteDeployment", request, context)

    async def GetLoad(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("GetLoad", request, context)

    async def DiffPlans(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("DiffPlans", request, context)

    async def PublishPlan(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("PublishPlan", request, context)

    async def Rebalance(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("Rebalance", request, context)

    async def RollBack(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("RollBack", request, context)

    async def Pause(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("Pause", request, context)

    async def Resume(self, request: Any, context: Any) -> Any:  # noqa: N802, RUF100
        """Answers as the test says."""
        return await self._answer("Resume", request, context)

    async def _answer(self, name: str, request: Any, context: Any) -> Any:
        self.requests.append(request)
        await self._refuse(context)
        try:
            return self.answers[name](request)
        except RefusedError as refusal:
            await context.abort(refusal.code, str(refusal))

    async def _refuse(self, context: Any) -> None:
        """Fails as the test says, `num_failures` times or, for None, every time."""
        if self.failure is None or self.num_failures == 0:
            return
        if self.num_failures is not None:
            self.num_failures -= 1
        self.refusals.put_nowait(self.failure[0])
        await context.abort(*self.failure)


class Watch:
    """One watch of plans."""

    def __init__(self, request: plans_pb2.WatchPlansRequest) -> None:
        self.request = request
        self.said: asyncio.Queue[plans_pb2.WatchPlansResponse | None] = asyncio.Queue()
