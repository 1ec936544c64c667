"""Every call that the planner serves, described once. Does no I/O.

A `Call` says what to send and how to read the answer; a `Flow`, for what takes several calls, is a
generator that yields them and receives their answers. `Client` and `BlockingClient` only carry
them out.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    deployment_service_pb2 as deployments_pb2,
    plan_pb2,
    plan_service_pb2 as plans_pb2,
)

from .errors import InputError, ProtocolError
from .names import check_deployment, mode_enum_name
from .plan import Plan
from .tensors import to_tensor


if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message
    from numpy.typing import NDArray

    from expertplane.v1 import tensor_pb2


T = TypeVar("T")

READ_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 30.0
SOLVE_TIMEOUT_S = 120.0

_DEPLOYMENTS = "/expertplane.v1.DeploymentService"
_PLANS = "/expertplane.v1.PlanService"
_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One unary call: what to send, and how to read the answer."""

    method: str
    """Path of the method, such as "/expertplane.v1.PlanService/GetPlan"."""

    request: Message
    """The message to send."""

    response_class: type[Message]
    """The message to expect."""

    parse: Callable[[Any], T]
    """Reads the answer; raises ProtocolError."""

    timeout_s: float
    """Default deadline, in seconds."""

    is_read: bool
    """Whether the call changes nothing, so that it may wait for the planner to come up."""


Flow: TypeAlias = Generator[Call[Any], Any, T]
"""Yields calls, receives their answers, returns the result."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list."""

    items: tuple[T, ...]
    """What the page holds."""

    next_token: str
    """Asks for the next page; empty on the last one."""


def create_deployment(
    name: str, spec: deployment_pb2.DeploymentSpec, *, request_id: str | None = None
) -> Call[deployment_pb2.Deployment]:
    """Describes CreateDeployment; see `Client.create_deployment`."""
    return Call(
        method=f"{_DEPLOYMENTS}/CreateDeployment",
        request=deployments_pb2.CreateDeploymentRequest(
            name=check_deployment(name), spec=spec, request_id=_request_id(request_id)
        ),
        response_class=deployments_pb2.CreateDeploymentResponse,
        parse=_deployment,
        timeout_s=WRITE_TIMEOUT_S,
        is_read=False,
    )


def get_deployment(name: str) -> Call[deployment_pb2.Deployment]:
    """Describes GetDeployment; see `Client.get_deployment`."""
    return Call(
        method=f"{_DEPLOYMENTS}/GetDeployment",
        request=deployments_pb2.GetDeploymentRequest(name=check_deployment(name)),
        response_class=deployments_pb2.GetDeploymentResponse,
        parse=_deployment,
        timeout_s=READ_TIMEOUT_S,
        is_read=True,
    )


def delete_deployment(name: str, *, etag: str = "", request_id: str | None = None) -> Call[None]:
    """Describes DeleteDeployment; see `Client.delete_deployment`."""
    return Call(
        method=f"{_DEPLOYMENTS}/DeleteDeployment",
        request=deployments_pb2.DeleteDeploymentRequest(
            name=check_deployment(name), etag=etag, request_id=_request_id(request_id)
        ),
        response_class=deployments_pb2.DeleteDeploymentResponse,
        parse=lambda _: None,
        timeout_s=WRITE_TIMEOUT_S,
        is_read=False,
    )


def list_deployments() -> Flow[list[deployment_pb2.Deployment]]:
    """Describes ListDeployments, over all pages; see `Client.list_deployments`."""

    def page(token: str) -> Call[Page[deployment_pb2.Deployment]]:
        return Call(
            method=f"{_DEPLOYMENTS}/ListDeployments",
            request=deployments_pb2.ListDeploymentsRequest(page_size=_PAGE_SIZE, page_token=token),
            response_class=deployments_pb2.ListDeploymentsResponse,
            parse=lambda answer: Page(tuple(answer.deployments), answer.next_page_token),
            timeout_s=READ_TIMEOUT_S,
            is_read=True,
        )

    return _all_pages(page, None)


def compute_plan(
    load: NDArray[Any],
    *,
    num_nodes: int,
    num_ranks: int,
    num_slots: int,
    masked_ranks: Sequence[int] = (),
    rank_capacities: Sequence[float] | None = None,
    num_expert_groups: int = 1,
    mode: str = "auto",
    policy: str = "",
    spill: int = 0,
    seed: int = 0,
    policy_parameters: Mapping[str, str] | None = None,
    incumbent: NDArray[np.integer[Any]] | None = None,
    max_moved_slots_per_layer: int | None = None,
) -> Call[Plan]:
    """Describes ComputePlan; see `Client.compute_plan`."""
    if max_moved_slots_per_layer is not None and not 0 <= max_moved_slots_per_layer < 2**32:
        raise InputError(
            f"Expected max_moved_slots_per_layer in [0, 2^32), got {max_moved_slots_per_layer}."
        )
    request = plans_pb2.ComputePlanRequest(
        topology=_topology(num_nodes, num_ranks, num_slots, masked_ranks, rank_capacities),
        num_expert_groups=num_expert_groups,
        policy=deployment_pb2.PolicySpec(
            name=policy,
            mode=mode_enum_name(mode),
            seed=seed,
            max_foreign_replicas=spill,
            parameters=policy_parameters,
            max_moved_slots_per_layer=max_moved_slots_per_layer,
        ),
        omit_derived_maps=True,
    )
    _add_load(request, load)
    num_layers, num_logical_experts = load.shape[-2:]

    def parse(answer: plans_pb2.ComputePlanResponse) -> Plan:
        plan = _plan(answer)
        expected = [num_layers, num_slots, num_logical_experts]
        got = [plan.num_layers, plan.num_slots, plan.num_logical_experts]
        if got != expected:
            raise ProtocolError(f"Expected a plan of [L, P, E] = {expected}, got {got}.")
        return plan

    if incumbent is not None:
        request.incumbent_phy2log.CopyFrom(_map_tensor(incumbent))
    return Call(
        method=f"{_PLANS}/ComputePlan",
        request=request,
        response_class=plans_pb2.ComputePlanResponse,
        parse=parse,
        timeout_s=SOLVE_TIMEOUT_S,
        is_read=True,
    )


def _map_tensor(phy2log: NDArray[np.integer[Any]]) -> tensor_pb2.Tensor:
    """Returns a map as the planner takes it, whatever integers it came in."""
    if phy2log.dtype.kind not in "iu" or phy2log.size == 0:
        raise InputError(
            f"Expected an incumbent of integers, got {phy2log.dtype.name} of shape "
            f"{list(phy2log.shape)}."
        )
    if int(phy2log.min()) < -1 or int(phy2log.max()) > np.iinfo(np.int32).max:
        raise InputError(
            "Expected an incumbent of expert ids from -1 to 2^31 - 1, "
            f"got {int(phy2log.min())} to {int(phy2log.max())}."
        )
    return to_tensor(phy2log.astype(np.int32), field="incumbent")


def get_plan(deployment: str, version: int | None = None) -> Call[Plan]:
    """Describes GetPlan; see `Client.get_plan`."""
    request = plans_pb2.GetPlanRequest(
        deployment=check_deployment(deployment), omit_derived_maps=True
    )
    if version is None:
        request.alias = plans_pb2.PLAN_ALIAS_COMMITTED
    else:
        request.version = version
    return Call(
        method=f"{_PLANS}/GetPlan",
        request=request,
        response_class=plans_pb2.GetPlanResponse,
        parse=_plan,
        timeout_s=READ_TIMEOUT_S,
        is_read=True,
    )


def list_plans(deployment: str, *, limit: int | None = None) -> Flow[list[plan_pb2.PlanMetadata]]:
    """Describes ListPlans, over as many pages as it takes; see `Client.list_plans`."""
    name = check_deployment(deployment)

    def page(token: str) -> Call[Page[plan_pb2.PlanMetadata]]:
        return Call(
            method=f"{_PLANS}/ListPlans",
            request=plans_pb2.ListPlansRequest(
                deployment=name, page_size=min(limit or _PAGE_SIZE, _PAGE_SIZE), page_token=token
            ),
            response_class=plans_pb2.ListPlansResponse,
            parse=lambda answer: Page(tuple(answer.plans), answer.next_page_token),
            timeout_s=READ_TIMEOUT_S,
            is_read=True,
        )

    return _all_pages(page, limit)


def explain_decisions(
    deployment: str, *, after_sequence: int = 0, limit: int = 100
) -> Call[list[decision_pb2.Decision]]:
    """Describes ExplainDecisions; see `Client.explain_decisions`."""
    return Call(
        method=f"{_PLANS}/ExplainDecisions",
        request=plans_pb2.ExplainDecisionsRequest(
            deployment=check_deployment(deployment), after_sequence=after_sequence, limit=limit
        ),
        response_class=plans_pb2.ExplainDecisionsResponse,
        parse=lambda answer: list(answer.decisions),
        timeout_s=READ_TIMEOUT_S,
        is_read=True,
    )


def _all_pages(page: Callable[[str], Call[Page[T]]], limit: int | None) -> Flow[list[T]]:
    items: list[T] = []
    seen = {""}
    token = ""
    while True:
        answer: Page[T] = yield page(token)
        items += answer.items
        token = answer.next_token
        if not token or (limit is not None and len(items) >= limit):
            return items[:limit]
        # What ends the loop is the planner's word, so a planner that turns in circles is caught.
        if token in seen:
            raise ProtocolError(f"Expected a new next_page_token, got {token!r} again.")
        seen.add(token)


def _deployment(
    answer: deployments_pb2.CreateDeploymentResponse | deployments_pb2.GetDeploymentResponse,
) -> deployment_pb2.Deployment:
    return answer.deployment


def _plan(answer: plans_pb2.ComputePlanResponse | plans_pb2.GetPlanResponse) -> Plan:
    return Plan.from_message(answer.plan)


def _request_id(request_id: str | None) -> str:
    return str(uuid.uuid4()) if request_id is None else request_id


def _add_load(request: plans_pb2.ComputePlanRequest, load: NDArray[Any]) -> None:
    if load.ndim == 2:
        request.weight.CopyFrom(to_tensor(load, field="load"))
    elif load.ndim == 3:
        request.samples.CopyFrom(to_tensor(load, field="load"))
    else:
        raise InputError(
            "Expected load of shape [layers, experts] or [samples, layers, experts], "
            f"got {list(load.shape)}."
        )


def _topology(
    num_nodes: int,
    num_ranks: int,
    num_slots: int,
    masked_ranks: Sequence[int],
    rank_capacities: Sequence[float] | None,
) -> deployment_pb2.Topology:
    # The wire speaks of ranks per node and slots per rank, so what does not divide never leaves.
    counts = {"num_nodes": num_nodes, "num_ranks": num_ranks, "num_slots": num_slots}
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"Expected {name} to be positive, got {count}.")
    for (small, divisor), (large, count) in zip(
        list(counts.items())[:-1], list(counts.items())[1:], strict=True
    ):
        if count % divisor:
            raise InputError(
                f"Expected {large} to be a multiple of {small}, got {count} and {divisor}."
            )
    for rank in masked_ranks:
        if not 0 <= rank < num_ranks:
            raise InputError(f"Expected masked ranks in [0, {num_ranks - 1}], got {rank}.")
    # An empty list would mean that all ranks are equal.
    if rank_capacities is not None and len(rank_capacities) != num_ranks:
        raise InputError(
            f"Expected a capacity for each of {num_ranks} ranks, got {len(rank_capacities)}."
        )
    return deployment_pb2.Topology(
        num_nodes=num_nodes,
        ranks_per_node=num_ranks // num_nodes,
        slots_per_rank=num_slots // num_ranks,
        masked_ranks=masked_ranks,
        rank_capacities=() if rank_capacities is None else rank_capacities,
    )
