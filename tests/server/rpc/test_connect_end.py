"""How a participant's stream ends when its peer does not read, or is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from expertplane.v1 import placement_service_pb2 as pb
from expertplane_server.core.errors import UnavailableError
from expertplane_server.rpc import placement
from expertplane_server.rpc.convert import participants
from expertplane_server.rpc.convert.plans import PlanWriter

from .. import builders
from . import messages


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .harness import Server


async def test_peer_that_does_not_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not come to its end ends the stream, and is counted."""
    monkeypatch.setattr(placement, "_WRITE_TIMEOUT_S", 0.0)
    cadence = participants.Cadence(heartbeat_interval_s=5.0, report_interval_s=1.0)
    servicer = placement.PlacementServicer(server.directory, PlanWriter(), cadence)

    class Stuck:
        async def write(self, raw: bytes) -> None:
            await asyncio.Event().wait()

    with pytest.raises(UnavailableError) as refusal:
        await servicer._write(Stuck(), b"")

    assert refusal.value.reason == "SLOW_READER"
    assert server.count("slow_readers_total", cause="write_timeout") == 1


async def test_call_that_is_cancelled_while_it_ends(server: Server) -> None:
    """A write fails, and then gRPC cancels the call: the member is gone all the same."""
    await server.create()
    cadence = participants.Cadence(heartbeat_interval_s=5.0, report_interval_s=1.0)
    servicer = placement.PlacementServicer(server.directory, PlanWriter(), cadence)
    is_ending = asyncio.Event()

    class Gone:
        async def write(self, raw: bytes) -> None:
            raise ConnectionError("the call is over")

    async def requests() -> AsyncIterator[bytes]:
        yield pb.ConnectRequest(hello=messages.hello()).SerializeToString()
        try:
            await asyncio.Event().wait()
        finally:
            is_ending.set()
            await asyncio.sleep(0)

    call = asyncio.create_task(servicer.connect(requests(), Gone()))
    await is_ending.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    while servicer._endings:
        await asyncio.gather(*servicer._endings)
    await server.settle()

    assert (await server.get()).status.num_participants == 0
    assert not server.directory.get(builders.NAME)._outboxes
