"""Puts the service together and takes it apart: startup, run, drain, shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING

from prometheus_client import start_http_server

from expertplane_server.config import parse_address
from expertplane_server.core.errors import UnavailableError
from expertplane_server.rpc.convert.participants import Cadence
from expertplane_server.rpc.health import Health
from expertplane_server.rpc.server import add_services, open_server
from expertplane_server.runtime.clock import SystemClock
from expertplane_server.runtime.collector import spare_the_loop
from expertplane_server.runtime.crash_points import CrashPoints
from expertplane_server.runtime.directory import Directory
from expertplane_server.runtime.lag import watch_lag
from expertplane_server.runtime.services import Services
from expertplane_server.runtime.solver import SolverProcess, care_for_device
from expertplane_server.runtime.store_thread import StoreThread
from expertplane_server.runtime.watch_hub import WatchHub
from expertplane_server.store import SqliteStore
from expertplane_server.telemetry.metrics import Metrics


if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

    import grpc

    from expertplane_server.config import ServerConfig
    from expertplane_server.store import Store

logger = logging.getLogger(__name__)

_RECONNECT_WINDOW_S = 5.0


class App:
    """The service.

    Args:
        config: what the operator set.
        open_store: makes the store; the SQLite file of the configuration when left out.
    """

    def __init__(
        self, config: ServerConfig, *, open_store: Callable[[], Store] | None = None
    ) -> None:
        self._config = config
        self._open_store = open_store or (
            lambda: SqliteStore(config.store_path, keep_plans=config.keep_plans)
        )
        self._metrics = Metrics()
        self._health = Health()
        self._server: grpc.aio.Server | None = None
        self._directory: Directory | None = None
        self._solver: SolverProcess | None = None
        self._store: StoreThread | None = None
        self._scrape: tuple[WSGIServer, Thread] | None = None
        self._lag: asyncio.Task[None] | None = None
        self._care: asyncio.Task[None] | None = None
        self.address = ""
        self.metrics_address = ""

    async def serve(self, on_ready: Callable[[App], None] | None = None) -> None:
        """Runs until SIGTERM or SIGINT, then drains; a second signal cuts the drain short.

        Args:
            on_ready: called once when the service is ready.
        """
        stop, hurry = asyncio.Event(), asyncio.Event()

        def on_signal() -> None:
            (hurry if stop.is_set() else stop).set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        try:
            await self.startup()
            spare_the_loop()  # the process is this service's own
            if on_ready is not None:
                on_ready(self)
            await stop.wait()
            logger.info("draining for up to %g s", self._config.grace_s)
            drain = asyncio.create_task(self.drain())
            cut = asyncio.create_task(hurry.wait())
            await asyncio.wait({drain, cut}, return_when=asyncio.FIRST_COMPLETED)
            for task in (drain, cut):
                task.cancel()
            await asyncio.gather(drain, cut, return_exceptions=True)
        finally:
            await self.shutdown()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self) -> None:
        """Opens the store, warms the solver, loads the deployments, then listens.

        Raises:
            ServiceError: store, solver or port is not to be had.
        """
        config, metrics = self._config, self._metrics
        crash_points = CrashPoints.from_environment(os.environ)
        # The port first: who asks for one that is taken should not wait for a solver, nor start a
        # new term. Nobody is served before the server starts.
        self._server, self.address = open_server(config.listen)
        store = self._open_store()
        self._store = StoreThread(store, metrics)
        clock = SystemClock()
        self._solver = SolverProcess(
            config.device, solve_timeout_s=config.solve_timeout_s, metrics=metrics, clock=clock
        )
        ready = await self._solver.start()
        services = Services(
            store=self._store,
            solver=self._solver,
            hub=WatchHub(),
            metrics=metrics,
            clock=clock,
            crash_points=crash_points,
        )
        self._directory = Directory(
            services,
            epoch=store.epoch,
            heartbeat_interval_s=config.heartbeat_interval_s,
            report_interval_s=config.report_interval_s,
        )
        await self._directory.load()
        await self._health.start()
        add_services(
            self._server,
            self._directory,
            policies=ready.policies,
            cadence=Cadence(
                heartbeat_interval_s=config.heartbeat_interval_s,
                report_interval_s=config.report_interval_s,
            ),
            health=self._health,
            has_reflection=config.has_reflection,
        )
        await self._server.start()
        self._start_metrics()
        self._lag = asyncio.create_task(watch_lag(metrics.loop_lag_seconds))
        self._care = asyncio.create_task(
            care_for_device(self._solver, self._directory.save_forecasts)
        )
        await self._directory.warmed()
        await self._health.set_ready(True)
        logger.info(
            "serving on %s, epoch %d, store %s", self.address, store.epoch, config.store_path
        )

    async def drain(self) -> None:
        """Lets go of participants and watchers, saves what was learned, refuses new calls.

        The forecasts, and the calls that were accepted, each have `grace_s` to come to their end.
        """
        assert self._server is not None
        assert self._directory is not None
        if self._care is not None:
            self._care.cancel()
        await self._health.set_ready(False)
        await asyncio.sleep(self._config.drain_delay_s)
        self._directory.drain(_RECONNECT_WINDOW_S)
        ending = asyncio.create_task(self._server.stop(self._config.grace_s))
        try:
            async with asyncio.timeout(self._config.grace_s):
                await self._directory.save_forecasts()
        except TimeoutError:
            logger.warning("not all forecasts were saved within %g s", self._config.grace_s)
        finally:
            await ending

    async def shutdown(self) -> None:
        """Gives everything back, in the opposite order."""
        for task in (self._lag, self._care):
            if task is not None:
                task.cancel()
        if self._server is not None:
            await self._server.stop(None)
        if self._directory is not None:
            await self._directory.stop()
        if self._solver is not None:
            await self._solver.stop()
        if self._store is not None:
            await self._store.close()
        if self._scrape is not None:
            server, thread = self._scrape
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            thread.join()

    def _start_metrics(self) -> None:
        """Serves /metrics from a thread of its own: a scrape must not need the event loop.

        Raises:
            UnavailableError: the port is taken.
        """
        if not self._config.metrics:
            return
        host, port = parse_address(self._config.metrics, "metrics")
        try:
            self._scrape = start_http_server(port, host, registry=self._metrics.registry)
        except OSError as error:
            raise UnavailableError(
                f"Expected {self._config.metrics} to be free for metrics, got: {error}; "
                "choose another with --metrics.",
                reason="ADDRESS_IN_USE",
            ) from error
        bound = self._scrape[0].server_port
        self.metrics_address = f"{self._config.metrics.rpartition(':')[0]}:{bound}"
