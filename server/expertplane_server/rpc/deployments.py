"""DeploymentService: what is planned for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from expertplane.v1 import deployment_service_pb2 as pb
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.spec import check_name
from expertplane_server.rpc.convert.fields import page_size
from expertplane_server.rpc.convert.plans import deployment_to
from expertplane_server.rpc.convert.specs import spec_from


if TYPE_CHECKING:
    from collections.abc import Collection

    from expertplane_server.core.spec import DeploymentSpec
    from expertplane_server.runtime.directory import Directory

_REQUEST_ID = re.compile(r"[a-zA-Z0-9._-]{0,64}")


class DeploymentServicer:
    """Answers calls about deployments.

    Args:
        directory: the deployments.
        policies: names of the policies that the solver knows.
    """

    def __init__(self, directory: Directory, policies: Collection[str]) -> None:
        self._directory = directory
        self._policies = policies

    async def create(self, request: pb.CreateDeploymentRequest) -> pb.CreateDeploymentResponse:
        """Adds a deployment."""
        name = check_name(request.name, at="name")
        request_id = _checked_request_id(request.request_id)
        spec = spec_from(request.spec, self._policies)
        await self._check_policy(spec)
        driver = await self._directory.create(name, spec, request_id=request_id)
        return pb.CreateDeploymentResponse(deployment=deployment_to(driver.group))

    async def _check_policy(self, spec: DeploymentSpec) -> None:
        """Has the solver look at a policy's parameters and abilities, which it alone knows.

        Raises:
            InvalidArgumentError: the policy does not take them, or not these ranks.
            ServiceError: the solver cannot be asked now.
        """
        has_slow_ranks = not spec.topology.has_equal_capacities
        if not spec.policy.parameters and not has_slow_ranks:
            return
        try:
            await self._directory.services.solver.check_policy(
                spec.policy, has_slow_ranks=has_slow_ranks
            )
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                error.message, field=f"spec.{error.field}", reason=error.reason
            ) from None

    async def get(self, request: pb.GetDeploymentRequest) -> pb.GetDeploymentResponse:
        """Returns one deployment."""
        driver = self._directory.get(check_name(request.name, at="name"))
        return pb.GetDeploymentResponse(deployment=deployment_to(driver.group))

    async def list(self, request: pb.ListDeploymentsRequest) -> pb.ListDeploymentsResponse:
        """Returns a page of deployments; the token is the last name of the page before."""
        size = page_size(request.page_size)
        drivers = self._directory.after(request.page_token)
        page = [deployment_to(driver.group) for driver in drivers[:size]]
        token = page[-1].name if len(drivers) > size else ""
        return pb.ListDeploymentsResponse(deployments=page, next_page_token=token)

    async def delete(self, request: pb.DeleteDeploymentRequest) -> pb.DeleteDeploymentResponse:
        """Removes a deployment."""
        name = check_name(request.name, at="name")
        request_id = _checked_request_id(request.request_id)
        await self._directory.delete(name, etag=request.etag, request_id=request_id)
        return pb.DeleteDeploymentResponse()


def _checked_request_id(request_id: str) -> str:
    """Returns a request id, or "" for a call that goes without.

    Raises:
        InvalidArgumentError: it does not match the pattern.
    """
    if _REQUEST_ID.fullmatch(request_id) is None:
        raise InvalidArgumentError(
            f"Expected {_REQUEST_ID.pattern}, got {request_id[:80]!r}.", field="request_id"
        )
    return request_id
