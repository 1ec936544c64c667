"""Puts the service together and takes it apart: startup, run, drain, shutdown."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from expertplane.v1 import (
    deployment_service_pb2,
    placement_service_pb2,
    plan_service_pb2,
)
from expertplane_server.config import parse_address
from expertplane_server.core import limits
from expertplane_server.core.errors import UnavailableError
from expertplane_server.rpc.convert.participants import Cadence
from expertplane_server.rpc.convert.plans import PlanWriter
from expertplane_server.rpc.deployments import DeploymentServicer
from expertplane_server.rpc.endpoint import Endpoint
from expertplane_server.rpc.health import Health
from expertplane_server.rpc.placement import PlacementServicer
from expertplane_server.rpc.plans import PlanServicer
from expertplane_server.runtime.clock import SystemClock
from expertplane_server.runtime.directory import Directory
from expertplane_server.runtime.driver import Services
from expertplane_server.runtime.lag import watch_lag
from expertplane_server.runtime.solver import SolverProcess
from expertplane_server.runtime.store_thread import StoreThread
from expertplane_server.runtime.watch_hub import WatchHub
from expertplane_server.store import SqliteStore
from expertplane_server.telemetry.metrics import Metrics


if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

    from expertplane_server.config import ServerConfig
    from expertplane_server.store import Store

logger = logging.getLogger(__name__)

_RECONNECT_WINDOW_S = 5.0
_OPTIONS = [
    # Two processes on one port would split the participants between them in silence.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", limits.MAX_UNARY_MESSAGE_BYTES),
    ("grpc.max_send_message_length", limits.MAX_UNARY_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Finds peers that are gone without a word; one that does not read is only ended by its age.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_age_ms", 2 * 3600 * 1000),
    ("grpc.max_connection_age_grace_ms", 60_000),
]


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
        self._open_store = open_store or (lambda: SqliteStore(config.store_path))
        self._metrics = Metrics()
        self._health = Health()
        self._server: grpc.aio.Server | None = None
        self._directory: Directory | None = None
        self._solver: SolverProcess | None = None
        self._store: StoreThread | None = None
        self._scrape: tuple[WSGIServer, Thread] | None = None
        self._lag: asyncio.Task[None] | None = None
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
        # The port first: who asks for one that is taken should not wait for a solver, nor start a
        # new term. Nobody is served before the server starts.
        self._server = grpc.aio.server(options=_OPTIONS)
        self._bind(self._server)
        store = self._open_store()
        self._store = StoreThread(store, metrics)
        self._solver = SolverProcess(
            config.device, solve_timeout_s=config.solve_timeout_s, metrics=metrics
        )
        ready = await self._solver.start()
        services = Services(
            store=self._store,
            solver=self._solver,
            hub=WatchHub(),
            metrics=metrics,
            clock=SystemClock(),
        )
        self._directory = Directory(
            services, epoch=store.epoch, heartbeat_interval_s=config.heartbeat_interval_s
        )
        await self._directory.load()
        await self._health.start()
        self._add_services(self._server, self._directory, ready.policies)
        await self._server.start()
        self._start_metrics()
        self._lag = asyncio.create_task(watch_lag(metrics.loop_lag_seconds))
        await self._health.set_ready(True)
        logger.info(
            "serving on %s, epoch %d, store %s", self.address, store.epoch, config.store_path
        )

    async def drain(self) -> None:
        """Lets go of participants and watchers, then refuses new calls and ends the rest."""
        assert self._server is not None
        assert self._directory is not None
        await self._health.set_ready(False)
        await asyncio.sleep(self._config.drain_delay_s)
        self._directory.drain(_RECONNECT_WINDOW_S)
        await self._server.stop(self._config.grace_s)

    async def shutdown(self) -> None:
        """Gives everything back, in the opposite order."""
        if self._lag is not None:
            self._lag.cancel()
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

    def _bind(self, server: grpc.aio.Server) -> None:
        """Takes the port.

        Raises:
            UnavailableError: it is taken, or the address is not of this machine.
        """
        listen = self._config.listen
        try:
            port = server.add_insecure_port(listen)
        except RuntimeError as error:
            raise UnavailableError(
                f"Expected {listen} to be free and of this machine; choose another with --listen.",
                reason="ADDRESS_IN_USE",
            ) from error
        self.address = f"{listen.rpartition(':')[0]}:{port}"

    def _add_services(
        self, server: grpc.aio.Server, directory: Directory, policies: tuple[str, ...]
    ) -> None:
        """Adds the services, health and, when wanted, reflection."""
        config, metrics = self._config, self._metrics
        plans = PlanWriter()
        cadence = Cadence(
            heartbeat_interval_s=config.heartbeat_interval_s,
            report_interval_s=config.report_interval_s,
        )
        placement = PlacementServicer(directory, plans, cadence)
        planning = PlanServicer(directory, plans, policies)
        deployments = DeploymentServicer(directory, policies)
        files = {
            "PlacementService": placement_service_pb2,
            "PlanService": plan_service_pb2,
            "DeploymentService": deployment_service_pb2,
        }
        services = {name: file.DESCRIPTOR.services_by_name[name] for name, file in files.items()}
        server.add_generic_rpc_handlers(
            (
                Endpoint(services["PlacementService"], metrics).handlers(
                    raw_streams={"Connect": placement.connect}
                ),
                Endpoint(services["PlanService"], metrics).handlers(
                    unary={
                        "ComputePlan": planning.compute,
                        "GetPlan": planning.get,
                        "ListPlans": planning.list,
                        "ExplainDecisions": planning.explain,
                    },
                    server_streams={"WatchPlans": planning.watch},
                ),
                Endpoint(services["DeploymentService"], metrics).handlers(
                    unary={
                        "CreateDeployment": deployments.create,
                        "GetDeployment": deployments.get,
                        "ListDeployments": deployments.list,
                        "DeleteDeployment": deployments.delete,
                    }
                ),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        if config.has_reflection:
            names = [service.full_name for service in services.values()]
            health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
            reflection.enable_server_reflection([*names, health, reflection.SERVICE_NAME], server)

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
