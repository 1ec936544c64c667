"""The calls of DeploymentService, described."""

from __future__ import annotations

from typing import Any

from expertplane.v1 import deployment_pb2, deployment_service_pb2 as pb
from expertplane_client.load import LoadForecast
from expertplane_client.names import check_deployment

from .base import (
    DEPLOYMENTS,
    PAGE_SIZE,
    READ_TIMEOUT_S,
    WRITE_TIMEOUT_S,
    Call,
    Flow,
    Page,
    all_pages,
    new_request_id,
)


def create_deployment(
    name: str, spec: deployment_pb2.DeploymentSpec, *, request_id: str | None = None
) -> Call[deployment_pb2.Deployment]:
    """Describes CreateDeployment; see `Client.create_deployment`."""
    return Call(
        method=f"{DEPLOYMENTS}/CreateDeployment",
        request=pb.CreateDeploymentRequest(
            name=check_deployment(name), spec=spec, request_id=new_request_id(request_id)
        ),
        response_class=pb.CreateDeploymentResponse,
        parse=_deployment,
        timeout_s=WRITE_TIMEOUT_S,
        is_read=False,
    )


def get_deployment(name: str) -> Call[deployment_pb2.Deployment]:
    """Describes GetDeployment; see `Client.get_deployment`."""
    return Call(
        method=f"{DEPLOYMENTS}/GetDeployment",
        request=pb.GetDeploymentRequest(name=check_deployment(name)),
        response_class=pb.GetDeploymentResponse,
        parse=_deployment,
        timeout_s=READ_TIMEOUT_S,
        is_read=True,
    )


def update_deployment(
    name: str, spec: deployment_pb2.DeploymentSpec, *, etag: str, request_id: str | None = None
) -> Call[deployment_pb2.Deployment]:
    """Describes UpdateDeployment; see `Client.update_deployment`."""
    return Call(
        method=f"{DEPLOYMENTS}/UpdateDeployment",
        request=pb.UpdateDeploymentRequest(
            name=check_deployment(name),
            spec=spec,
            etag=etag,
            request_id=new_request_id(request_id),
        ),
        response_class=pb.UpdateDeploymentResponse,
        parse=_deployment,
        timeout_s=WRITE_TIMEOUT_S,
        is_read=False,
    )


def delete_deployment(name: str, *, etag: str = "", request_id: str | None = None) -> Call[None]:
    """Describes DeleteDeployment; see `Client.delete_deployment`."""
    return Call(
        method=f"{DEPLOYMENTS}/DeleteDeployment",
        request=pb.DeleteDeploymentRequest(
            name=check_deployment(name), etag=etag, request_id=new_request_id(request_id)
        ),
        response_class=pb.DeleteDeploymentResponse,
        parse=lambda _: None,
        timeout_s=WRITE_TIMEOUT_S,
        is_read=False,
    )


def list_deployments() -> Flow[list[deployment_pb2.Deployment]]:
    """Describes ListDeployments, over all pages; see `Client.list_deployments`."""

    def page(token: str) -> Call[Page[deployment_pb2.Deployment]]:
        return Call(
            method=f"{DEPLOYMENTS}/ListDeployments",
            request=pb.ListDeploymentsRequest(page_size=PAGE_SIZE, page_token=token),
            response_class=pb.ListDeploymentsResponse,
            parse=lambda answer: Page(tuple(answer.deployments), answer.next_page_token),
            timeout_s=READ_TIMEOUT_S,
            is_read=True,
        )

    return all_pages(page, None)


def get_load(deployment: str) -> Call[LoadForecast]:
    """Describes GetLoad; see `Client.get_load`."""
    return Call(
        method=f"{DEPLOYMENTS}/GetLoad",
        request=pb.GetLoadRequest(deployment=check_deployment(deployment)),
        response_class=pb.GetLoadResponse,
        parse=LoadForecast.from_message,
        timeout_s=READ_TIMEOUT_S,
        is_read=True,
    )


def _deployment(answer: Any) -> deployment_pb2.Deployment:
    deployment: deployment_pb2.Deployment = answer.deployment
    return deployment
