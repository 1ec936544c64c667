"""PlanService: what operators order. Each call may be repeated under its request id."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from expertplane.v1 import plan_service_pb2 as pb
from expertplane.wire import digest_phy2log
from expertplane_server.core import orders
from expertplane_server.core.errors import ExhaustedError
from expertplane_server.core.plan import Decision, Plan
from expertplane_server.core.spec import check_name
from expertplane_server.rpc.convert.fields import comment, counter, request_of
from expertplane_server.rpc.convert.participants import phy2log_from
from expertplane_server.rpc.convert.plans import decision_to, deployment_to, metadata_to


if TYPE_CHECKING:
    from expertplane.v1 import deployment_pb2
    from expertplane_server.runtime.directory import Directory
    from expertplane_server.runtime.driver import Driver


_MAX_PUBLICATIONS = 8
"""PublishPlan calls in flight: each holds up to 64 MiB, and as much again as integers."""


class OrderServicer:
    """Passes operators' orders to the deployments.

    Args:
        directory: the deployments.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._num_publications = 0

    async def publish(self, request: pb.PublishPlanRequest) -> pb.PublishPlanResponse:
        """Publishes the caller's own placement."""
        driver = self._driver(request.deployment)
        if self._num_publications >= _MAX_PUBLICATIONS:
            raise ExhaustedError(
                f"Expected at most {_MAX_PUBLICATIONS} PublishPlan calls in flight.",
                retry_after_s=1.0,
                reason="TOO_MANY_ORDERS",
            )
        self._num_publications += 1
        try:
            return await self._publish(driver, request)
        finally:
            self._num_publications -= 1

    async def _publish(
        self, driver: Driver, request: pb.PublishPlanRequest
    ) -> pb.PublishPlanResponse:
        """Reads a placement and has it published."""
        # Up to 64 MiB are checked and digested: a thread's work.
        action = await asyncio.to_thread(_publication, request)
        call = f"publish {action.digest} for {request.deployment}"
        answer = await driver.order(
            action,
            request=request_of(request.request_id, call),
            expected_head=_expected_head(request),
        )
        assert isinstance(answer, Plan)
        return pb.PublishPlanResponse(plan=metadata_to(answer))

    async def rebalance(self, request: pb.RebalanceRequest) -> pb.RebalanceResponse:
        """Has a decision taken now."""
        driver = self._driver(request.deployment)
        answer = await driver.order(
            orders.Rebalance(),
            request=request_of(
                request.request_id, f"rebalance {request.deployment}", is_for_decision=True
            ),
            expected_head=_expected_head(request),
        )
        assert isinstance(answer, Decision)
        return pb.RebalanceResponse(decision=decision_to(answer))

    async def roll_back(self, request: pb.RollBackRequest) -> pb.RollBackResponse:
        """Publishes the content of an earlier version under a new one."""
        driver = self._driver(request.deployment)
        version = counter(request.to_version, "to_version")
        call = f"roll {request.deployment} back to version {version}"
        repeatable = request_of(request.request_id, call)
        # Looked up before the version: what a repeated call went back to may not be kept any more.
        answer = await driver.first_answer(orders.RollBack(None), repeatable)
        if answer is None:
            name = request.deployment
            plan = await self._directory.stored_plan(name, version) if version else None
            answer = await driver.order(
                orders.RollBack(plan), request=repeatable, expected_head=_expected_head(request)
            )
        assert isinstance(answer, Plan)
        return pb.RollBackResponse(plan=metadata_to(answer))

    async def pause(self, request: pb.PauseRequest) -> pb.PauseResponse:
        """Stops automatic publication."""
        driver = self._driver(request.deployment)
        call = f"pause {request.deployment}"
        await driver.order(
            orders.Pause(comment(request.comment)), request=request_of(request.request_id, call)
        )
        return pb.PauseResponse(deployment=self._deployment(driver))

    async def resume(self, request: pb.ResumeRequest) -> pb.ResumeResponse:
        """Lifts a pause."""
        driver = self._driver(request.deployment)
        call = f"resume {request.deployment}"
        await driver.order(orders.Resume(), request=request_of(request.request_id, call))
        return pb.ResumeResponse(deployment=self._deployment(driver))

    def _driver(self, name: str) -> Driver:
        """Returns the driver of a deployment.

        Raises:
            InvalidArgumentError: it is no name.
            NotFoundError: there is no such deployment.
        """
        return self._directory.get(check_name(name, at="deployment"))

    def _deployment(self, driver: Driver) -> deployment_pb2.Deployment:
        """Writes a deployment as it is now."""
        return deployment_to(driver.group, self._directory.services.clock.now().monotonic_s)


def _publication(request: pb.PublishPlanRequest) -> orders.Publish:
    """Reads a placement of the caller's own.

    Raises:
        InvalidArgumentError: it is no such tensor, or the comment is too long.
    """
    told = comment(request.comment)
    phy2log = phy2log_from(request.phy2log, "phy2log")
    return orders.Publish(phy2log, digest_phy2log(phy2log), told)


def _expected_head(
    request: pb.PublishPlanRequest | pb.RebalanceRequest | pb.RollBackRequest,
) -> int | None:
    """Returns the head that the caller has seen, None where it does not say."""
    return request.expected_head if request.HasField("expected_head") else None
