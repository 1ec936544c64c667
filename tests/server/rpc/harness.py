"""A real gRPC server on a free port, over a memory store and an in-process solver."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from expertplane.v1 import (
    deployment_service_pb2 as deployments_pb2,
    placement_service_pb2 as placement_pb2,
    plan_service_pb2 as plans_pb2,
)
from expertplane_server.core import orders
from expertplane_server.rpc.convert.participants import Cadence
from expertplane_server.rpc.convert.plans import deployment_to
from expertplane_server.rpc.health import Health
from expertplane_server.rpc.server import add_services, open_server
from expertplane_server.rpc.status import DETAILS_KEY
from expertplane_server.runtime.directory import Directory
from expertplane_server.runtime.services import Services
from expertplane_server.runtime.store_thread import StoreThread
from expertplane_server.runtime.watch_hub import WatchHub
from expertplane_server.telemetry.metrics import Metrics

from .. import builders
from ..fakes import FailingStore, HandClock, InProcessSolver
from . import messages


if TYPE_CHECKING:
    from types import TracebackType

    from google.protobuf.message import Message

SERVICES = {
    service.name: service
    for file in (deployments_pb2, placement_pb2, plans_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
}
PATIENCE_S = 20.0
"""A test that waits longer than this has failed."""


@dataclass
class Refusal:
    """What a call that failed says about it."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    fields: list[str] = field(default_factory=list)
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Self:
        """Read the details of an error."""
        told = cls(error.code(), error.details() or "")
        for key, value in error.trailing_metadata() or ():
            if key == DETAILS_KEY:
                assert isinstance(value, bytes)
                told._read(status_pb2.Status.FromString(value))
        return told

    def _read(self, status: Any) -> None:
        assert status.code == self.code.value[0]
        assert status.message == self.message
        for detail in status.details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                assert info.domain == "expertplane"
                self.reason = info.reason
            if detail.Unpack(bad):
                self.fields = [violation.field for violation in bad.field_violations]
            if detail.Unpack(retry):
                self.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9


class Stream:
    """A participant's raw stream."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def say(self, **message: Any) -> None:
        """Send a message, named by its kind."""
        await self.say_raw(placement_pb2.ConnectRequest(**message).SerializeToString())

    async def say_raw(self, raw: bytes) -> None:
        """Send bytes."""
        await self._call.write(raw)

    async def hear(self, kind: str | None = None) -> Any:
        """Return the next message, or the next of a kind, passing over heartbeats."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                raw = await self._call.read()
                assert raw is not grpc.aio.EOF, await self._call.code()
                response = placement_pb2.ConnectResponse.FromString(raw)
                got = response.WhichOneof("message")
                if got == "heartbeat" and kind != got:
                    continue
                assert kind in (None, got), response
                return getattr(response, got)

    async def half_close(self) -> None:
        """Say no more."""
        await self._call.done_writing()

    def cancel(self) -> None:
        """Drop the stream."""
        self._call.cancel()

    async def end(self) -> Refusal | None:
        """Wait for the end of the stream: a refusal, or None for a good end."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while (await self._call.read()) is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                return Refusal.of(error)
            code = await self._call.code()
            assert code is grpc.StatusCode.OK
            return None


class Watch:
    """A raw stream of plans."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def next(self) -> plans_pb2.WatchPlansResponse:
        """Return the next response."""
        async with asyncio.timeout(PATIENCE_S):
            raw = await self._call.read()
            assert raw is not grpc.aio.EOF
            return plans_pb2.WatchPlansResponse.FromString(raw)

    async def end(self) -> Refusal:
        """Wait for the end of the watch, which is always a refusal."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while True:
                    assert (await self._call.read()) is not grpc.aio.EOF
            except grpc.aio.AioRpcError as error:
                return Refusal.of(error)

    def cancel(self) -> None:
        """Drop the watch."""
        self._call.cancel()


class Server:
    """The service without its processes: `async with` starts and stops it."""

    def __init__(self) -> None:
        self.store = FailingStore()
        self.solver = InProcessSolver()
        self.clock = HandClock()
        self.metrics = Metrics()
        self.hub = WatchHub()

    async def __aenter__(self) -> Self:
        self._store_thread = StoreThread(self.store, self.metrics)
        services = Services(
            store=self._store_thread,
            solver=self.solver,  # type: ignore[arg-type]  # as much of it as a driver uses
            hub=self.hub,
            metrics=self.metrics,
            clock=self.clock,
        )
        self.directory = Directory(services, epoch=self.store.epoch, heartbeat_interval_s=5.0)
        await self.directory.load()
        self._server, address = open_server("127.0.0.1:0")
        add_services(
            self._server,
            self.directory,
            policies=("deepseek", "robust"),
            cadence=Cadence(heartbeat_interval_s=5.0, report_interval_s=1.0),
            health=Health(),
            has_reflection=False,
        )
        await self._server.start()
        self.channel = grpc.aio.insecure_channel(
            address, options=[("grpc.max_receive_message_length", -1)]
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.channel.close()
        await self._server.stop(None)
        await self.directory.stop()
        await self._store_thread.close()

    async def call(self, path: str, request: Message | bytes) -> Any:
        """Call "Service/Method" and return the response."""
        service, method = path.split("/")
        descriptor = SERVICES[service].methods_by_name[method]
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        call: Any = self.channel.unary_unary(
            f"/{descriptor.containing_service.full_name}/{method}"
        )
        async with asyncio.timeout(PATIENCE_S):
            answer = await call(raw)
        return _response_class(descriptor).FromString(answer)

    async def refusal(self, path: str, request: Message | bytes) -> Refusal:
        """Call "Service/Method", which must fail, and return how."""
        try:
            response = await self.call(path, request)
        except grpc.aio.AioRpcError as error:
            return Refusal.of(error)
        raise AssertionError(f"expected a refusal, got {response}")

    async def create(self, name: str = builders.NAME, **changes: Any) -> Any:
        """Create a deployment."""
        request = deployments_pb2.CreateDeploymentRequest(name=name, spec=messages.spec(**changes))
        response = await self.call("DeploymentService/CreateDeployment", request)
        return response.deployment

    async def delete(self, name: str = builders.NAME) -> None:
        """Delete a deployment."""
        request = deployments_pb2.DeleteDeploymentRequest(name=name)
        await self.call("DeploymentService/DeleteDeployment", request)

    async def get(self, name: str = builders.NAME) -> Any:
        """Return a deployment."""
        request = deployments_pb2.GetDeploymentRequest(name=name)
        return (await self.call("DeploymentService/GetDeployment", request)).deployment

    def connect(self) -> Stream:
        """Open a participant's stream."""
        return Stream(self.channel.stream_stream("/expertplane.v1.PlacementService/Connect")())

    async def join(self, **changes: Any) -> Stream:
        """Open a participant's stream and return it behind its Welcome."""
        stream = self.connect()
        await stream.say(hello=messages.hello(**changes))
        await stream.hear("welcome")
        return stream

    def watch(self, name: str = builders.NAME, **changes: Any) -> Watch:
        """Watch the plans of a deployment."""
        request = plans_pb2.WatchPlansRequest(deployment=name, **changes)
        call: Any = self.channel.unary_stream("/expertplane.v1.PlanService/WatchPlans")
        return Watch(call(request.SerializeToString()))

    async def publish(self, stream: Stream, *experts: int, step: int) -> Any:
        """Lead the deployment to a plan through a participant's report, and apply it."""
        self.solver.answer = builders.solution(experts)
        report = messages.load_report(first_step=step, sequence=step)
        await stream.say(load_report=report)
        await stream.hear("report_ack")
        commit = await stream.hear("commit")
        await stream.say(
            ack=placement_pb2.Ack(
                version=commit.version,
                digest=commit.digest,
                phase=placement_pb2.ACK_PHASE_APPLIED,
            )
        )
        return commit

    async def lead_to(self, *experts: int, name: str = builders.NAME, **changes: Any) -> Any:
        """Publish an operator's placement of one layer and return the plan's metadata."""
        phy2log = messages.tensor([experts], "int32")
        request = plans_pb2.PublishPlanRequest(deployment=name, phy2log=phy2log, **changes)
        return (await self.call("PlanService/PublishPlan", request)).plan

    async def settle(self, name: str = builders.NAME) -> None:
        """Wait until what was answered before has been handled to its end, windows learned."""
        driver = self.directory.get(name)
        await driver.order(orders.Resume())
        # The forecast's turn comes behind the windows that wait for it.
        await driver.save_forecast()

    def count(self, name: str, **labels: str) -> float | None:
        """Return a metric."""
        return self.metrics.registry.get_sample_value(f"expertplane_{name}", labels)

    def state(self) -> object:
        """Return everything that the store holds, plans by their digests, and what is told."""
        deployments = self.store.deployments()
        kept = [self.store.recover(each.name, num_plans=1000) for each in deployments]
        return (
            self.store.epoch,
            deployments,
            [
                (
                    [(plan.version, plan.state, plan.digest) for plan in each.plans],
                    each.decisions,
                    each.parked,
                    each.superseded,
                )
                for each in kept
            ],
            [
                deployment_to(driver.group, 0.0).SerializeToString(deterministic=True)
                for driver in self.directory.after("")
            ],
        )


def _response_class(descriptor: Any) -> Any:
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(descriptor.output_type)
