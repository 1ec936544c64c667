"""Health under the names that probes ask for."""

from __future__ import annotations

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio


NAMES = ("", "liveness", "readiness", "leader")
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Answers grpc.health.v1.

    "liveness" serves as long as the event loop answers at all; "readiness" from the warm solver to
    the drain; "leader" likewise, since a single planner always leads; "" follows readiness.
    """

    def __init__(self) -> None:
        self.servicer = aio.HealthServicer()

    async def start(self) -> None:
        """Alive, not ready yet."""
        for name in NAMES:
            await self.servicer.set(name, _SERVING if name == "liveness" else _NOT_SERVING)

    async def set_ready(self, is_ready: bool) -> None:
        """Opens or closes the service to new work."""
        for name in NAMES:
            if name != "liveness":
                await self.servicer.set(name, _SERVING if is_ready else _NOT_SERVING)
