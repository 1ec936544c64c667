"""`expertplane health`: asks a server whether it serves, for probes and shells.

Needs click and grpcio-health-checking.
"""

from __future__ import annotations

import click
import grpc
from grpc_health.v1 import health_pb2

from .channel import open_blocking_channel
from .console import address_option, errors_in_one_line
from .errors import NotFoundError
from .status import call_error


_METHOD = "/grpc.health.v1.Health/Check"


@click.command()
@click.option(
    "--service", default="readiness", show_default=True, help="liveness, readiness, leader or ''."
)
@click.option("--timeout-s", type=float, default=5.0, show_default=True, help="Seconds to wait.")
@address_option
def health(service: str, timeout_s: float, address: str) -> None:
    """Ask a planner whether it serves; the exit code is 0 when it does."""
    with errors_in_one_line(), open_blocking_channel(address, None) as channel:
        check = channel.unary_unary(
            _METHOD,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
                raise NotFoundError(
                    f"Expected liveness, readiness, leader or '', got {service!r}.",
                    code=grpc.StatusCode.NOT_FOUND,
                    method=_METHOD,
                ) from error
            raise call_error(error, method=_METHOD, address=address) from error
    click.echo(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise click.exceptions.Exit(1)
