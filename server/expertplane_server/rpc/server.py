"""The gRPC server: its port, its limits, its services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from expertplane.v1 import deployment_service_pb2, placement_service_pb2, plan_service_pb2
from expertplane_server.core import limits
from expertplane_server.core.errors import UnavailableError
from expertplane_server.rpc.convert.plans import PlanWriter
from expertplane_server.rpc.deployments import DeploymentServicer
from expertplane_server.rpc.endpoint import Endpoint
from expertplane_server.rpc.orders import OrderServicer
from expertplane_server.rpc.placement import PlacementServicer
from expertplane_server.rpc.plans import PlanServicer


if TYPE_CHECKING:
    from collections.abc import Collection

    from expertplane_server.rpc.convert.participants import Cadence
    from expertplane_server.rpc.health import Health
    from expertplane_server.runtime.directory import Directory

_PLACEMENT = placement_service_pb2.DESCRIPTOR.services_by_name["PlacementService"]
_PLANS = plan_service_pb2.DESCRIPTOR.services_by_name["PlanService"]
_DEPLOYMENTS = deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"]
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]

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


def open_server(listen: str) -> tuple[grpc.aio.Server, str]:
    """Makes a server that has its port and serves nothing yet; returns it with its address.

    Args:
        listen: HOST:PORT; port 0 picks a free one.

    Raises:
        UnavailableError: the port is taken, or the address is not of this machine.
    """
    server = grpc.aio.server(options=_OPTIONS)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise UnavailableError(
            f"Expected {listen} to be free and of this machine; choose another with --listen.",
            reason="ADDRESS_IN_USE",
        ) from error
    return server, f"{listen.rpartition(':')[0]}:{port}"


def add_services(
    server: grpc.aio.Server,
    directory: Directory,
    *,
    policies: Collection[str],
    cadence: Cadence,
    health: Health,
    has_reflection: bool,
) -> None:
    """Adds every service of the contract, health and, when wanted, reflection.

    Args:
        server: not started yet.
        directory: the deployments.
        policies: names of the policies that the solver knows.
        cadence: how often participants speak.
        health: answers probes.
        has_reflection: lets tools discover the services.
    """
    metrics, plans = directory.services.metrics, PlanWriter()
    placement = PlacementServicer(directory, plans, cadence)
    planning = PlanServicer(directory, plans, policies)
    ordering = OrderServicer(directory)
    deployments = DeploymentServicer(directory, policies)
    server.add_generic_rpc_handlers(
        (
            Endpoint(_PLACEMENT, metrics).handlers(raw_streams={"Connect": placement.connect}),
            Endpoint(_PLANS, metrics).handlers(
                unary={
                    "ComputePlan": planning.compute,
                    "GetPlan": planning.get,
                    "ListPlans": planning.list,
                    "DiffPlans": planning.diff,
                    "PublishPlan": ordering.publish,
                    "Rebalance": ordering.rebalance,
                    "RollBack": ordering.roll_back,
                    "Pause": ordering.pause,
                    "Resume": ordering.resume,
                    "ExplainDecisions": planning.explain,
                },
                server_streams={"WatchPlans": planning.watch},
                large=("ComputePlan", "PublishPlan"),
            ),
            Endpoint(_DEPLOYMENTS, metrics).handlers(
                unary={
                    "CreateDeployment": deployments.create,
                    "GetDeployment": deployments.get,
                    "ListDeployments": deployments.list,
                    "UpdateDeployment": deployments.update,
                    "DeleteDeployment": deployments.delete,
                    "GetLoad": deployments.get_load,
                }
            ),
        )
    )
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    if has_reflection:
        names = [each.full_name for each in (_PLACEMENT, _PLANS, _DEPLOYMENTS, _HEALTH)]
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
