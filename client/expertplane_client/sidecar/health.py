"""Health of the sidecar under the names that probes ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio

from expertplane_client.errors import InputError

from .config import parse_address


if TYPE_CHECKING:
    from collections.abc import Mapping


_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthServer:
    """Answers grpc.health.v1 on a port of its own.

    "liveness" serves as long as the event loop answers at all; "readiness", and "" with it, while
    an engine is there and knows what to serve with. Neither asks for a planner.
    """

    def __init__(self) -> None:
        self._servicer = aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> str:
        """Listens, and returns the address that it got: alive, and not ready yet.

        Raises:
            InputError: the address cannot be listened on.
        """
        host, _ = parse_address(address, "health")
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise InputError(
                f"Expected to listen on {address} for health, got: {error}."
            ) from error
        await self._set({"liveness": True, "readiness": False, "": False})
        await server.start()
        self._server = server
        return f"{host}:{port}"

    async def set_ready(self, is_ready: bool) -> None:
        """Says whether the engine is there and knows what to serve with."""
        await self._set({"readiness": is_ready, "": is_ready})

    async def stop(self) -> None:
        """Stops listening."""
        if self._server is not None:
            await self._server.stop(None)

    async def _set(self, services: Mapping[str, bool]) -> None:
        for name, is_serving in services.items():
            await self._servicer.set(name, _SERVING if is_serving else _NOT_SERVING)
