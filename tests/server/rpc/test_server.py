"""How the server listens, and how much it takes at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import plan_service_pb2 as pb
from expertplane_server.core import limits
from expertplane_server.core.errors import UnavailableError
from expertplane_server.rpc import orders
from expertplane_server.rpc.server import open_server

from .. import builders
from .messages import tensor


if TYPE_CHECKING:
    from .harness import Server


async def test_port_has_one_owner() -> None:
    """Two planners on one port would split the participants: the second is refused."""
    first, address = open_server("127.0.0.1:0")
    with pytest.raises(UnavailableError) as refusal:
        open_server(address)
    await first.stop(None)

    assert refusal.value.reason == "ADDRESS_IN_USE"
    assert address in refusal.value.message


async def test_streams_are_capped_by_the_services_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cap of gRPC's would count streams that last for days among the calls."""
    told: dict[str, Any] = {}
    make = grpc.aio.server

    def server(**settings: Any) -> Any:
        told.update(settings)
        return make(**settings)

    monkeypatch.setattr(grpc.aio, "server", server)
    opened, _ = open_server("127.0.0.1:0")
    await opened.stop(None)

    assert "maximum_concurrent_rpcs" not in told
    assert ("grpc.so_reuseport", 0) in told["options"]


async def test_calls_without_tensors_are_small(server: Server) -> None:
    """Text of many megabytes would hold the event loop up for longer than a heartbeat may wait."""
    await server.create()
    before = server.state()
    comment = "x" * limits.MAX_SMALL_MESSAGE_BYTES
    request = pb.PauseRequest(deployment=builders.NAME, comment=comment)
    refusal = await server.refusal("PlanService/Pause", request)
    publication = pb.PublishPlanRequest(deployment=builders.NAME, comment=comment)
    large = await server.refusal("PlanService/PublishPlan", publication)

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "MESSAGE_TOO_LARGE",
    )
    assert refusal.retry_after_s is None
    assert (large.code, large.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["comment"])
    assert server.state() == before


async def test_too_many_publications(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large requests only a few wait at a time, and each that ends makes room."""
    monkeypatch.setattr(orders, "_MAX_PUBLICATIONS", 1)
    await server.create()
    await server.lead_to(0, 3, 1, 2)
    await server.lead_to(1, 2, 0, 3)
    monkeypatch.setattr(orders, "_MAX_PUBLICATIONS", 0)
    request = pb.PublishPlanRequest(
        deployment=builders.NAME, phy2log=tensor([[0, 1, 2, 3]], "int16")
    )
    refusal = await server.refusal("PlanService/PublishPlan", request)

    assert (refusal.code, refusal.reason, refusal.retry_after_s) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_ORDERS",
        1.0,
    )
