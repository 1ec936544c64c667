"""Puts the sidecar together with its metrics, its health and the signals that end it."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from .daemon import Sidecar
from .health import HealthServer
from .metrics import MetricsServer


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane_client.backoff import Backoff

    from .config import SidecarConfig


logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 9.0
"""Time that an orderly stop may take, in seconds; what is left then is cut short."""


class SidecarApp:
    """One sidecar process.

    Args:
        config: What the operator has set.
        backoff: Waits between connections to the planner.
    """

    def __init__(self, config: SidecarConfig, backoff: Backoff | None = None) -> None:
        self._config = config
        self._has_changed = asyncio.Event()
        self.sidecar = Sidecar(config, self._has_changed.set, backoff)
        self._metrics = MetricsServer(self.sidecar.figures)
        self._health = HealthServer()
        self.metrics_address = ""
        """Where /metrics is served; empty before the start, or when it is off."""
        self.health_address = ""
        """Where health is served; empty before the start, or when it is off."""

    async def serve(self, on_ready: Callable[[SidecarApp], None]) -> None:
        """Runs until SIGTERM or SIGINT, then says goodbye; a second signal cuts that short.

        Args:
            on_ready: Called once when an engine may come.

        Raises:
            InputError: an address or the way to the engine cannot be had.
        """
        stopping, hurry = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(
                number, lambda: (hurry if stopping.is_set() else stopping).set()
            )
        try:
            await self.start()
            on_ready(self)
            await self.run(stopping, hurry)
        finally:
            await self.close()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def start(self) -> None:
        """Listens everywhere.

        Raises:
            InputError: an address or the way to the engine cannot be had.
        """
        if self._config.metrics:
            self.metrics_address = self._metrics.start(self._config.metrics)
        if self._config.health:
            self.health_address = await self._health.start(self._config.health)
        await self.sidecar.start()

    async def run(self, stopping: asyncio.Event, hurry: asyncio.Event) -> None:
        """Serves until `stopping` is set, and no longer than it takes to stop in order.

        Args:
            stopping: Ends it in order.
            hurry: Cuts that short.
        """
        running = asyncio.create_task(self.sidecar.run(stopping))
        telling = asyncio.create_task(self._tell_health())
        waits = [asyncio.create_task(event.wait()) for event in (stopping, hurry)]
        try:
            await asyncio.wait((running, waits[0]), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                logger.info("stopping, for up to %g s", STOP_TIMEOUT_S)
                await asyncio.wait(
                    (running, waits[1]),
                    timeout=STOP_TIMEOUT_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if running.done():
                running.result()
            else:
                logger.warning("what is left is cut short")
        finally:
            for task in (running, telling, *waits):
                task.cancel()
            await asyncio.gather(running, telling, *waits, return_exceptions=True)

    async def close(self) -> None:
        """Stops listening."""
        self.sidecar.close()
        await self._health.stop()
        self._metrics.stop()

    async def _tell_health(self) -> None:
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            await self._health.set_ready(self.sidecar.is_ready)
