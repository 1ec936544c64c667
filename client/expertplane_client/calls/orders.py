"""The calls of PlanService that change something, described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane.v1 import plan_service_pb2 as pb
from expertplane_client.names import check_deployment

from .base import (
    PLANS,
    SOLVE_TIMEOUT_S,
    WRITE_TIMEOUT_S,
    Call,
    check_version,
    map_tensor,
    new_request_id,
)


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from expertplane.v1 import decision_pb2, deployment_pb2, plan_pb2


def publish_plan(
    deployment: str,
    phy2log: NDArray[np.integer[Any]],
    *,
    comment: str = "",
    request_id: str | None = None,
    expected_head: int | None = None,
) -> Call[plan_pb2.PlanMetadata]:
    """Describes PublishPlan; see `Client.publish_plan`."""
    return Call(
        method=f"{PLANS}/PublishPlan",
        request=pb.PublishPlanRequest(
            deployment=check_deployment(deployment),
            phy2log=map_tensor(phy2log, field="phy2log"),
            comment=comment,
            request_id=new_request_id(request_id),
            expected_head=_expected_head(expected_head),
        ),
        response_class=pb.PublishPlanResponse,
        parse=lambda answer: answer.plan,
        # The planner scores what it publishes, which may have to wait for its solver.
        timeout_s=SOLVE_TIMEOUT_S,
        is_read=False,
    )


def rebalance(
    deployment: str, *, request_id: str | None = None, expected_head: int | None = None
) -> Call[decision_pb2.Decision]:
    """Describes Rebalance; see `Client.rebalance`."""
    return Call(
        method=f"{PLANS}/Rebalance",
        request=pb.RebalanceRequest(
            deployment=check_deployment(deployment),
            request_id=new_request_id(request_id),
            expected_head=_expected_head(expected_head),
        ),
        response_class=pb.RebalanceResponse,
        parse=lambda answer: answer.decision,
        timeout_s=SOLVE_TIMEOUT_S,
        is_read=False,
    )


def roll_back(
    deployment: str,
    to_version: int,
    *,
    request_id: str | None = None,
    expected_head: int | None = None,
) -> Call[plan_pb2.PlanMetadata]:
    """Describes RollBack; see `Client.roll_back`."""
    return Call(
        method=f"{PLANS}/RollBack",
        request=pb.RollBackRequest(
            deployment=check_deployment(deployment),
            to_version=check_version("to_version", to_version),
            request_id=new_request_id(request_id),
            expected_head=_expected_head(expected_head),
        ),
        response_class=pb.RollBackResponse,
        parse=lambda answer: answer.plan,
        timeout_s=WRITE_TIMEOUT_S,
        is_read=False,
    )


def pause(
    deployment: str, *, comment: str = "", request_id: str | None = None
) -> Call[deployment_pb2.Deployment]:
    """Describes Pause; see `Client.pause`."""
    return Call(
        method=f"{PLANS}/Pause",
        request=pb.PauseRequest(
            deployment=check_deployment(deployment),
            comment=comment,
            request_id=new_request_id(request_id),
        ),
        response_class=pb.PauseResponse,
        parse=lambda answer: answer.deployment,
        timeout_s=WRITE_TIMEOUT_S,
        is_read=False,
    )


def resume(deployment: str, *, request_id: str | None = None) -> Call[deployment_pb2.Deployment]:
    """Describes Resume; see `Client.resume`."""
    return Call(
        method=f"{PLANS}/Resume",
        request=pb.ResumeRequest(
            deployment=check_deployment(deployment), request_id=new_request_id(request_id)
        ),
        response_class=pb.ResumeResponse,
        parse=lambda answer: answer.deployment,
        timeout_s=WRITE_TIMEOUT_S,
        is_read=False,
    )


def _expected_head(version: int | None) -> int | None:
    return None if version is None else check_version("expected_head", version)
