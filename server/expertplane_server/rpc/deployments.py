"""DeploymentService: what is planned for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from expertplane.v1 import deployment_service_pb2 as pb
from expertplane_server.core import orders
from expertplane_server.core.errors import ExhaustedError, InvalidArgumentError
from expertplane_server.core.spec import check_name
from expertplane_server.rpc.convert.fields import (
    checked_etag,
    checked_request_id,
    page_size,
    request_of,
)
from expertplane_server.rpc.convert.loads import load_to
from expertplane_server.rpc.convert.plans import deployment_to
from expertplane_server.rpc.convert.specs import spec_from


if TYPE_CHECKING:
    from collections.abc import Collection

    from expertplane.v1 import deployment_pb2
    from expertplane_server.core.spec import DeploymentSpec
    from expertplane_server.runtime.directory import Directory
    from expertplane_server.runtime.driver import Driver

_MAX_LOADS = 8
"""Calls of GetLoad in flight: each takes a turn of the solver that a window may want."""


class DeploymentServicer:
    """Answers calls about deployments.

    Args:
        directory: the deployments.
        policies: names of the policies that the solver knows.
    """

    def __init__(self, directory: Directory, policies: Collection[str]) -> None:
        self._directory = directory
        self._policies = policies
        self._num_loads = 0

    async def create(self, request: pb.CreateDeploymentRequest) -> pb.CreateDeploymentResponse:
        """Adds a deployment."""
        name = check_name(request.name, at="name")
        request_id = checked_request_id(request.request_id)
        spec = spec_from(request.spec, self._policies)
        await self._check_policy(spec)
        driver = await self._directory.create(name, spec, request_id=request_id)
        return pb.CreateDeploymentResponse(deployment=self._written(driver))

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
        return pb.GetDeploymentResponse(deployment=self._written(driver))

    async def list(self, request: pb.ListDeploymentsRequest) -> pb.ListDeploymentsResponse:
        """Returns a page of deployments; the token is the last name of the page before."""
        size = page_size(request.page_size)
        drivers = self._directory.after(request.page_token)
        page = [self._written(driver) for driver in drivers[:size]]
        token = page[-1].name if len(drivers) > size else ""
        return pb.ListDeploymentsResponse(deployments=page, next_page_token=token)

    async def update(self, request: pb.UpdateDeploymentRequest) -> pb.UpdateDeploymentResponse:
        """Replaces a spec."""
        name = check_name(request.name, at="name")
        read = checked_etag(request.etag)
        repeatable = request_of(request.request_id, f"update {name} from etag {read}")
        if not read:
            raise InvalidArgumentError("Expected the etag that was read, got none.", field="etag")
        spec = spec_from(request.spec, self._policies)
        driver = self._directory.get(name)
        await self._check_policy(spec)
        await driver.order(orders.Update(spec, read), request=repeatable)
        return pb.UpdateDeploymentResponse(deployment=self._written(driver))

    async def get_load(self, request: pb.GetLoadRequest) -> pb.GetLoadResponse:
        """Returns what the forecast expects, and what the placement in force makes of it."""
        driver = self._directory.get(check_name(request.deployment, at="deployment"))
        if self._num_loads >= _MAX_LOADS:
            raise ExhaustedError(
                f"Expected at most {_MAX_LOADS} GetLoad calls in flight.",
                retry_after_s=1.0,
                reason="SOLVER_BUSY",
            )
        self._num_loads += 1
        try:
            # Taken together, before any wait: the spec may change meanwhile, and shapes with it.
            in_force, spec = driver.group.in_force, driver.group.deployment.spec
            expected = await driver.expect()
            return await asyncio.to_thread(load_to, expected, in_force, spec.topology)
        finally:
            self._num_loads -= 1

    def _written(self, driver: Driver) -> deployment_pb2.Deployment:
        """Writes a deployment as it is now."""
        return deployment_to(driver.group, self._directory.services.clock.now().monotonic_s)

    async def delete(self, request: pb.DeleteDeploymentRequest) -> pb.DeleteDeploymentResponse:
        """Removes a deployment."""
        name = check_name(request.name, at="name")
        request_id = checked_request_id(request.request_id)
        read = checked_etag(request.etag)
        await self._directory.delete(name, etag=read, request_id=request_id)
        return pb.DeleteDeploymentResponse()
