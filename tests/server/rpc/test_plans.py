"""PlanService over the wire: computed, looked up, listed, explained."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    plan_pb2,
    plan_service_pb2 as pb,
    tensor_pb2,
)
from expertplane.wire import decode_tensor
from expertplane_server.core.errors import ExhaustedError, UnavailableError
from expertplane_server.rpc import plans

from .. import builders
from . import messages
from .harness import SERVICES
from .messages import shaped, tensor


if TYPE_CHECKING:
    from .harness import Server


COMPUTE = "PlanService/ComputePlan"
GET = "PlanService/GetPlan"
LIST = "PlanService/ListPlans"
EXPLAIN = "PlanService/ExplainDecisions"


def map_of(plan: plan_pb2.Plan) -> Any:
    """Return the placement as nested lists."""
    return decode_tensor(plan.phy2log, max_shape=(256, 65536)).tolist()


async def store_plans(server: Server, num_plans: int) -> None:
    """Create a deployment and take it through some plans."""
    await server.create()
    stream = await server.join()
    for number in range(1, num_plans + 1):
        await server.publish(stream, *((0, 2, 1, 3) if number % 2 else (3, 2, 1, 0)), step=number)
    await stream.half_close()
    await stream.end()


async def test_computed(server: Server) -> None:
    """The two heaviest of four experts get a second of six slots; nothing is stored."""
    before = server.state()
    plan = (await server.call(COMPUTE, messages.compute_plan())).plan

    (slots,) = map_of(plan)
    assert sorted(slots) == [0, 0, 1, 1, 2, 3]
    assert plan.metadata.version == 0
    assert decode_tensor(plan.logcnt, max_shape=(9, 9)).tolist() == [[2, 2, 1, 1]]
    assert server.state() == before


async def test_computed_without_maps(server: Server) -> None:
    """The derived maps stay away on demand."""
    request = messages.compute_plan(omit_derived_maps=True)
    plan = (await server.call(COMPUTE, request)).plan

    assert not plan.HasField("log2phy")


async def test_computed_for_samples(server: Server) -> None:
    """Several samples are planned for as their sum."""
    request = messages.compute_plan(samples=tensor([[[4, 0, 2, 0]], [[0, 3, 0, 1]]], "int64"))

    assert map_of((await server.call(COMPUTE, request)).plan) == map_of(
        (await server.call(COMPUTE, messages.compute_plan())).plan
    )


BAD_JOBS: dict[str, tuple[str, Any]] = {
    "no load": ("load", pb.ComputePlanRequest(topology=messages.topology())),
    "dtype": ("weight.dtype", messages.compute_plan(weight=tensor_pb2.Tensor(shape=[1, 4]))),
    "unknown dtype": ("weight.dtype", messages.compute_plan(weight=shaped([1, 4], 99))),
    "shape": ("weight.shape", messages.compute_plan(weight=tensor([1.0]))),
    "empty": ("weight.shape", messages.compute_plan(weight=shaped([1, 0]))),
    "too many dimensions": ("weight.shape", messages.compute_plan(weight=shaped([1] * 10**6))),
    "length": ("weight.data", messages.compute_plan(weight=shaped([1, 4], data=b"1"))),
    "overflow": ("weight.shape", messages.compute_plan(weight=shaped([2**32 - 1] * 2))),
    "negative": ("weight.data", messages.compute_plan(weight=tensor([[-1.0]]))),
    "NaN": ("weight.data", messages.compute_plan(weight=tensor([[float("nan")]], "float32"))),
    "infinite": ("weight.data", messages.compute_plan(weight=tensor([[float("inf")]]))),
    "over 2^53": ("weight.data", messages.compute_plan(weight=tensor([[2**53 + 1]], "int64"))),
    "no topology": ("topology.num_nodes", messages.compute_plan(topology=None)),
    "enum": (
        "policy.mode",
        messages.compute_plan(policy=deployment_pb2.PolicySpec(mode=99)),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("case", BAD_JOBS)
async def test_bad_job(server: Server, case: str) -> None:
    """A load or topology that breaks a rule is INVALID_ARGUMENT and names the field."""
    field, request = BAD_JOBS[case]
    refusal = await server.refusal(COMPUTE, request)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == [field]
    assert refusal.message.startswith(f"{field}: Expected ")


@pytest.mark.parametrize(
    "changes",
    [
        {"topology": messages.topology(ranks_per_node=1)},
        {"num_expert_groups": 3},
        {
            "topology": messages.topology(num_nodes=2),
            "policy": deployment_pb2.PolicySpec(mode=deployment_pb2.MODE_HIERARCHICAL),
        },
    ],
    ids=["P < E", "groups", "hierarchical"],
)
async def test_job_that_the_planner_refuses(server: Server, changes: dict[str, Any]) -> None:
    """What only the planner knows to be impossible is INVALID_ARGUMENT as well."""
    refusal = await server.refusal(COMPUTE, messages.compute_plan(**changes))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(refusal.fields) == 1


async def test_solver_busy(server: Server) -> None:
    """Too many solves in flight are RESOURCE_EXHAUSTED with the time to wait."""
    server.solver.answer = ExhaustedError(
        "Expected less.", retry_after_s=1.0, reason="SOLVER_BUSY"
    )
    refusal = await server.refusal(COMPUTE, messages.compute_plan())

    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (refusal.reason, refusal.retry_after_s) == ("SOLVER_BUSY", 1.0)


async def test_solver_lost(server: Server) -> None:
    """A lost solver is UNAVAILABLE."""
    server.solver.answer = UnavailableError("lost", reason="SOLVER_FAILED")
    refusal = await server.refusal(COMPUTE, messages.compute_plan())

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SOLVER_FAILED")


async def test_call_that_is_given_up(server: Server) -> None:
    """A caller that gives up disturbs nobody."""
    server.solver.may_answer.clear()
    call = asyncio.create_task(server.call(COMPUTE, messages.compute_plan()))
    await server.solver.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    server.solver.may_answer.set()

    assert (await server.call(COMPUTE, messages.compute_plan())).plan.HasField("phy2log")


async def test_committed_plan(server: Server) -> None:
    """Without a selector, and under either alias, the committed plan comes."""
    await store_plans(server, 2)

    for selector in ({}, {"alias": pb.PLAN_ALIAS_COMMITTED}, {"alias": pb.PLAN_ALIAS_LATEST}):
        request = pb.GetPlanRequest(deployment=builders.NAME, **selector)  # type: ignore[arg-type]
        plan = (await server.call(GET, request)).plan
        assert (plan.metadata.version, map_of(plan)) == (2, [[3, 2, 1, 0]])
        assert plan.HasField("log2phy")


async def test_plan_by_version(server: Server) -> None:
    """Any stored version comes back, with its state."""
    await store_plans(server, 2)
    request = pb.GetPlanRequest(deployment=builders.NAME, version=1, omit_derived_maps=True)
    plan = (await server.call(GET, request)).plan

    assert (plan.metadata.version, map_of(plan)) == (1, [[0, 2, 1, 3]])
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


UNSERVED = [
    "PlanService/DiffPlans",
    "PlanService/PublishPlan",
    "PlanService/Rebalance",
    "PlanService/RollBack",
    "PlanService/Pause",
    "PlanService/Resume",
    "DeploymentService/UpdateDeployment",
    "DeploymentService/GetLoad",
]


@pytest.mark.parametrize("path", UNSERVED)
async def test_unserved_method(server: Server, path: str) -> None:
    """A method of the contract that this release does not serve says so by name."""
    refusal = await server.refusal(path, b"")

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
    assert path.split("/")[1] in refusal.message


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


async def test_too_many_computations(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap, a computation is RESOURCE_EXHAUSTED; one that ends makes room."""
    monkeypatch.setattr(plans, "MAX_COMPUTES", 1)
    server.solver.may_answer.clear()
    first = asyncio.create_task(server.call(COMPUTE, messages.compute_plan()))
    await server.solver.asked.wait()

    refusal = await server.refusal(COMPUTE, messages.compute_plan())
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (refusal.reason, refusal.retry_after_s) == ("SOLVER_BUSY", 1.0)
    server.solver.may_answer.set()
    await first
    await server.call(COMPUTE, messages.compute_plan())
