"""PlanService over the wire: computed, looked up, listed, explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import (
    decision_pb2,
    plan_pb2,
    plan_service_pb2 as pb,
)

from .. import builders
from .harness import SERVICES
from .messages import map_of


if TYPE_CHECKING:
    from .harness import Server


GET = "PlanService/GetPlan"
LIST = "PlanService/ListPlans"
EXPLAIN = "PlanService/ExplainDecisions"


ODD, EVEN = (0, 3, 1, 2), (1, 2, 0, 3)
"""Placements that spread the load of a report equally well, so that neither is taken back."""


async def store_plans(server: Server, num_plans: int) -> None:
    """Create a deployment and take it through some plans."""
    await server.create()
    stream = await server.join()
    for number in range(1, num_plans + 1):
        await server.publish(stream, *(ODD if number % 2 else EVEN), step=number)
    await stream.half_close()
    await stream.end()


async def test_committed_plan(server: Server) -> None:
    """Without a selector, and under either alias, the committed plan comes."""
    await store_plans(server, 2)

    for selector in ({}, {"alias": pb.PLAN_ALIAS_COMMITTED}, {"alias": pb.PLAN_ALIAS_LATEST}):
        request = pb.GetPlanRequest(deployment=builders.NAME, **selector)  # type: ignore[arg-type]
        plan = (await server.call(GET, request)).plan
        assert (plan.metadata.version, map_of(plan)) == (2, [list(EVEN)])
        assert plan.HasField("log2phy")


async def test_plan_by_version(server: Server) -> None:
    """Any stored version comes back, with its state."""
    await store_plans(server, 2)
    request = pb.GetPlanRequest(deployment=builders.NAME, version=1, omit_derived_maps=True)
    plan = (await server.call(GET, request)).plan

    assert (plan.metadata.version, map_of(plan)) == (1, [list(ODD)])
    assert plan.metadata.state == plan_pb2.PLAN_STATE_SUPERSEDED
    assert not plan.HasField("log2phy")


async def test_applied_plan(server: Server) -> None:
    """A plan that all members serve with says so, by alias and by version."""
    await store_plans(server, 1)

    for selector in ({}, {"version": 1}):
        request = pb.GetPlanRequest(deployment=builders.NAME, **selector)  # type: ignore[arg-type]
        plan = (await server.call(GET, request)).plan
        assert plan.metadata.state == plan_pb2.PLAN_STATE_APPLIED


@pytest.mark.parametrize(
    ("code", "reason", "changes"),
    [
        (grpc.StatusCode.NOT_FOUND, "NO_PLAN_YET", {}),
        (grpc.StatusCode.NOT_FOUND, "NO_PLAN_YET", {"alias": pb.PLAN_ALIAS_LATEST}),
        (grpc.StatusCode.NOT_FOUND, "PLAN_VERSION_UNKNOWN", {"version": 0}),
        (grpc.StatusCode.NOT_FOUND, "PLAN_VERSION_UNKNOWN", {"version": 2**63 - 1}),
        (grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_UNKNOWN", {"deployment": "no/such"}),
        (
            grpc.StatusCode.NOT_FOUND,
            "DEPLOYMENT_UNKNOWN",
            {"deployment": "no/such", "version": 1},
        ),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", {"version": 2**63}),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", {"alias": 7}),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_NAME", {"deployment": "nowhere"}),
    ],
)
async def test_no_such_plan(
    server: Server, code: grpc.StatusCode, reason: str, changes: dict[str, Any]
) -> None:
    """A plan that does not exist is NOT_FOUND, one that cannot exist is INVALID_ARGUMENT."""
    await server.create()
    request = pb.GetPlanRequest(**{"deployment": builders.NAME, **changes})
    refusal = await server.refusal(GET, request)

    assert (refusal.code, refusal.reason) == (code, reason)


async def test_pages(server: Server) -> None:
    """Pages cover all plans, newest first, once each, without maps; the last has no token."""
    await store_plans(server, 5)
    pages, token = [], ""
    while True:
        request = pb.ListPlansRequest(deployment=builders.NAME, page_size=2, page_token=token)
        page = await server.call(LIST, request)
        pages.append([metadata.version for metadata in page.plans])
        token = page.next_page_token
        if not token:
            break

    assert pages == [[5, 4], [3, 2], [1]]


async def test_no_plans(server: Server) -> None:
    """A deployment without plans has an empty page."""
    await server.create()
    page = await server.call(LIST, pb.ListPlansRequest(deployment=builders.NAME))

    assert (len(page.plans), page.next_page_token) == (0, "")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("page_size", {"page_size": 1001}),
        ("page_token", {"page_token": "x"}),
        ("page_token", {"page_token": "0"}),
        ("page_token", {"page_token": "-1"}),
        ("page_token", {"page_token": "\u0663"}),
        ("page_token", {"page_token": "\u00b2"}),
        ("page_token", {"page_token": "9" * 5000}),
        ("page_token", {"page_token": str(2**63)}),
        ("deployment", {"deployment": "x"}),
    ],
)
async def test_bad_page(server: Server, field: str, changes: dict[str, Any]) -> None:
    """A page that was never offered is INVALID_ARGUMENT."""
    await server.create()
    request = pb.ListPlansRequest(**{"deployment": builders.NAME, **changes})
    refusal = await server.refusal(LIST, request)

    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_unknown_deployment(server: Server) -> None:
    """Lists and explanations of what does not exist are NOT_FOUND."""
    for path, request in (
        (LIST, pb.ListPlansRequest(deployment="no/such")),
        (EXPLAIN, pb.ExplainDecisionsRequest(deployment="no/such")),
    ):
        refusal = await server.refusal(path, request)
        assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_explained(server: Server) -> None:
    """Decisions come oldest first, after a sequence, the latest ones up to a limit."""
    await store_plans(server, 3)

    async def explain(**changes: int) -> list[int]:
        request = pb.ExplainDecisionsRequest(deployment=builders.NAME, **changes)
        answer = await server.call(EXPLAIN, request)
        assert {each.reason for each in answer.decisions} == {
            decision_pb2.DECISION_REASON_PUBLISHED
        }
        return [each.sequence for each in answer.decisions]

    assert await explain() == [1, 2, 3]
    assert await explain(after_sequence=1) == [2, 3]
    assert await explain(limit=1) == [3]


async def test_too_many_explanations(server: Server) -> None:
    """At most a thousand decisions are asked for at once."""
    await server.create()
    request = pb.ExplainDecisionsRequest(deployment=builders.NAME, limit=1001)
    refusal = await server.refusal(EXPLAIN, request)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_every_method_is_there(server: Server) -> None:
    """Unparsable bytes reach every unary method of the contract, and are refused alike."""
    for service in SERVICES.values():
        for method in service.methods:
            if method.client_streaming or method.server_streaming:
                continue
            refusal = await server.refusal(f"{service.name}/{method.name}", b"\xff")
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "UNPARSABLE",
            )


async def test_unparsable_watch(server: Server) -> None:
    """Unparsable bytes end a watch as they end a call."""
    method: Any = server.channel.unary_stream("/expertplane.v1.PlanService/WatchPlans")
    call = method(b"\xff")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()

    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_calls_are_counted(server: Server) -> None:
    """Calls are counted by method and code."""
    await server.create()
    await server.refusal(GET, pb.GetPlanRequest(deployment=builders.NAME))
    count = server.metrics.registry.get_sample_value

    created = {"method": "CreateDeployment", "code": "OK"}
    assert count("expertplane_requests_total", created) == 1
    missed = {"method": "GetPlan", "code": "NOT_FOUND"}
    assert count("expertplane_requests_total", missed) == 1
