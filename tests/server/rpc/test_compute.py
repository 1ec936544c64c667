"""ComputePlan over the wire: planned for, refused, bounded; nothing is stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    plan_pb2,
    plan_service_pb2 as pb,
    tensor_pb2,
)
from expertplane.wire import decode_tensor
from expertplane_server.core.errors import ExhaustedError, UnavailableError
from expertplane_server.rpc import plans

from .. import builders
from . import messages
from .messages import map_of, shaped, tensor


if TYPE_CHECKING:
    from .harness import Server


COMPUTE = "PlanService/ComputePlan"


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
    """Several samples are planned for as their sum, by a policy that looks at the mean alone."""
    policy = deployment_pb2.PolicySpec(name="deepseek")
    samples = tensor([[[4, 0, 2, 0]], [[0, 3, 0, 1]]], "int64")
    request = messages.compute_plan(samples=samples, policy=policy)

    assert map_of((await server.call(COMPUTE, request)).plan) == map_of(
        (await server.call(COMPUTE, messages.compute_plan(policy=policy))).plan
    )


@pytest.mark.parametrize("budget", [None, 0, 1, 2])
async def test_computed_from_an_incumbent(server: Server, budget: int | None) -> None:
    """The plan moves no more than its budget, and says what moves and how."""
    incumbent = [[0, 1, 2, 3]]
    request = messages.compute_plan(
        topology=messages.topology(),
        incumbent_phy2log=tensor(incumbent, "int32"),
        policy=deployment_pb2.PolicySpec(
            max_moved_slots_per_layer=budget, parameters={"risk": "1.5"}
        ),
    )
    plan = (await server.call(COMPUTE, request)).plan

    moved = 0 if budget in (0, 1) else 2
    assert plan.metadata.moved_slots == len(plan.transfers.transfers) == moved
    assert (map_of(plan) == incumbent) == (moved == 0)
    assert plan.metadata.predicted.balancedness == pytest.approx(1.0 if moved else 5 / 7)
    for each in plan.transfers.transfers:
        assert map_of(plan)[0][each.target_slot] == each.logical_expert
        assert incumbent[0][each.source_slot] == each.logical_expert
        assert each.link_class == plan_pb2.LINK_CLASS_SAME_NODE


async def test_bad_incumbent(server: Server) -> None:
    """A map that leaves an expert without a slot is no placement in force."""
    request = messages.compute_plan(
        topology=messages.topology(), incumbent_phy2log=tensor([[0, 1, 2, 2]], "int32")
    )
    refusal = await server.refusal(COMPUTE, request)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["incumbent_phy2log"]


@pytest.mark.parametrize("parameters", [{"zeal": "1"}, {"risk": "high"}, {"risk": "-1"}])
async def test_bad_policy_parameter(server: Server, parameters: dict[str, str]) -> None:
    """What a policy does not take is refused when it is asked for, also by a deployment."""
    policy = deployment_pb2.PolicySpec(parameters=parameters)
    computed = await server.refusal(COMPUTE, messages.compute_plan(policy=policy))
    created = await server.refusal(
        "DeploymentService/CreateDeployment",
        deployment_service_pb2.CreateDeploymentRequest(
            name=builders.NAME, spec=messages.spec(policy=policy)
        ),
    )

    (name,) = parameters
    for refusal, prefix in ((computed, ""), (created, "spec.")):
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.fields == [f"{prefix}policy.parameters.{name}"]
    assert server.state() == (1, [], [], [])


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
