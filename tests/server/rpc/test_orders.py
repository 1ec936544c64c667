"""What operators order over the wire: each once, however often it is asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    deployment_service_pb2,
    placement_service_pb2 as placement_pb2,
    plan_pb2,
    plan_service_pb2 as pb,
)
from expertplane_server.runtime import order_book

from .. import builders
from . import messages
from .harness import PATIENCE_S
from .messages import map_of, tensor


if TYPE_CHECKING:
    from .harness import Server


PUBLISH = "PlanService/PublishPlan"
REBALANCE = "PlanService/Rebalance"
ROLL_BACK = "PlanService/RollBack"
PAUSE = "PlanService/Pause"
RESUME = "PlanService/Resume"
GET = "PlanService/GetPlan"
FIRST, SECOND = (0, 3, 1, 2), (1, 2, 0, 3)


def publication(*experts: int, **changes: Any) -> pb.PublishPlanRequest:
    """Return a placement of one layer that is to be published."""
    fields = {
        "deployment": builders.NAME,
        "phy2log": tensor([experts or FIRST], "int16"),
        **changes,
    }
    return pb.PublishPlanRequest(**fields)


def roll_back(to_version: int, **changes: Any) -> pb.RollBackRequest:
    """Return the wish to go back."""
    return pb.RollBackRequest(deployment=builders.NAME, to_version=to_version, **changes)


async def stored(server: Server, version: int) -> Any:
    """Return a stored plan."""
    request = pb.GetPlanRequest(deployment=builders.NAME, version=version)
    return (await server.call(GET, request)).plan


async def test_published(server: Server) -> None:
    """An operator's placement is versioned, stored, and committed to every participant."""
    await server.create()
    stream = await server.join()
    plan = (await server.call(PUBLISH, publication(comment="by hand"))).plan

    assert (plan.version, plan.comment) == (1, "by hand")
    assert plan.reason == decision_pb2.DECISION_REASON_PUBLISHED_BY_OPERATOR
    commit = await stream.hear("commit")
    assert (commit.version, commit.digest) == (1, plan.digest)
    assert map_of(commit.plan) == [list(FIRST)]
    assert (await stored(server, 1)).metadata == plan
    status = (await server.get()).status
    assert (status.head_version, status.committed_version) == (1, 1)
    assert status.hold_down_s == 600
    assert status.last_decision.plan_version == 1


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("deployment", {"deployment": "nowhere"}),
        ("phy2log.dtype", {"phy2log": None}),
        ("phy2log.dtype", {"phy2log": tensor([[0.0, 1.0, 2.0, 3.0]])}),
        ("phy2log.shape", {"phy2log": tensor([0, 1, 2, 3], "int16")}),
        ("phy2log", {"phy2log": tensor([[0, 1, 2, 3, 0]], "int16")}),
        ("phy2log", {"phy2log": tensor([[0, 1, 2, 2]], "int16")}),
        ("phy2log", {"phy2log": tensor([[0, 1, 2, 4]], "int16")}),
        ("phy2log", {"phy2log": tensor([[0, 1, 2, -1]], "int16")}),
        ("comment", {"comment": "x" * 1025}),
        ("request_id", {"request_id": "a b"}),
    ],
)
async def test_bad_publication(server: Server, field: str, changes: dict[str, Any]) -> None:
    """What is no placement of the deployment is INVALID_ARGUMENT, and changes nothing."""
    await server.create()
    before = server.state()
    refusal = await server.refusal(PUBLISH, publication(**changes))

    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    assert server.state() == before


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        (PUBLISH, publication(deployment="no/such")),
        (REBALANCE, pb.RebalanceRequest(deployment="no/such")),
        (ROLL_BACK, pb.RollBackRequest(deployment="no/such")),
        (PAUSE, pb.PauseRequest(deployment="no/such")),
        (RESUME, pb.ResumeRequest(deployment="no/such")),
    ],
)
async def test_unknown_deployment(server: Server, path: str, request_: Any) -> None:
    """Nothing can be ordered of a deployment that does not exist."""
    refusal = await server.refusal(path, request_)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_UNKNOWN")


async def test_repeated_publication(server: Server) -> None:
    """A repeated call returns the first answer; its id for another placement is ABORTED."""
    await server.create()
    first = await server.call(PUBLISH, publication(*FIRST, request_id="r-1"))
    before = server.state()

    assert await server.call(PUBLISH, publication(*FIRST, request_id="r-1")) == first
    refusal = await server.refusal(PUBLISH, publication(*SECOND, request_id="r-1"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "REQUEST_ID_REUSED")
    assert refusal.fields == ["request_id"]
    assert server.state() == before


async def test_id_of_a_creation(server: Server) -> None:
    """Ids are remembered over all kinds of calls."""
    request: Any = {"name": builders.NAME, "spec": messages.spec(), "request_id": "r-1"}
    creation = deployment_service_pb2.CreateDeploymentRequest(**request)
    await server.call("DeploymentService/CreateDeployment", creation)
    refusal = await server.refusal(
        PAUSE, pb.PauseRequest(deployment=builders.NAME, request_id="r-1")
    )

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "REQUEST_ID_REUSED")


@pytest.mark.parametrize("expected_head", [0, 2, 2**64 - 1])
async def test_stale_head(server: Server, expected_head: int) -> None:
    """An order with another head in mind is ABORTED with the current one, and does nothing."""
    await server.create()
    await server.lead_to(*FIRST, expected_head=0)
    before = server.state()
    for path, request in (
        (PUBLISH, publication(*SECOND, expected_head=expected_head)),
        (ROLL_BACK, roll_back(0, expected_head=expected_head)),
        (
            REBALANCE,
            pb.RebalanceRequest(deployment=builders.NAME, expected_head=expected_head),
        ),
    ):
        refusal = await server.refusal(path, request)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "STALE_HEAD")
        assert "1" in refusal.message
    assert server.state() == before


async def test_rebalanced(server: Server) -> None:
    """A Rebalance plans at once for the load so far, whatever the pause, and says what it did."""
    trigger = deployment_pb2.TriggerParameters(window_samples=9)
    await server.create(trigger=trigger)
    stream = await server.join()
    await stream.say(load_report=messages.load_report())
    await stream.hear("report_ack")
    await server.call(PAUSE, pb.PauseRequest(deployment=builders.NAME))
    server.solver.answer = builders.solution(FIRST)
    request = pb.RebalanceRequest(deployment=builders.NAME, request_id="r-1")
    decision = (await server.call(REBALANCE, request)).decision

    assert decision.reason == decision_pb2.DECISION_REASON_PUBLISHED
    assert (decision.plan_version, decision.num_samples) == (1, 1)
    assert (await stream.hear("commit")).version == 1
    # The first answer comes again, and no second plan.
    assert (await server.call(REBALANCE, request)).decision == decision
    assert (await server.get()).status.head_version == 1


async def test_rebalance_without_load(server: Server) -> None:
    """Without load there is a decision and no plan, and it comes again for the same request."""
    await server.create()
    request = pb.RebalanceRequest(deployment=builders.NAME, request_id="r-1")
    decision = (await server.call(REBALANCE, request)).decision
    other = pb.RebalanceRequest(deployment=builders.NAME)
    later = (await server.call(REBALANCE, other)).decision

    assert decision.reason == decision_pb2.DECISION_REASON_SKIPPED_FEW_SAMPLES
    assert (await server.call(REBALANCE, request)).decision == decision
    assert later.sequence == decision.sequence + 1


async def test_rebalance_does_not_teach_twice(server: Server) -> None:
    """Load that the forecast has learned is planned for again, and not learned again."""
    await server.create(trigger=deployment_pb2.TriggerParameters(window_samples=1, min_gain=0.99))
    stream = await server.join()
    await stream.say(load_report=messages.load_report())
    await stream.hear("report_ack")
    await server.settle()
    decision = (
        await server.call(REBALANCE, pb.RebalanceRequest(deployment=builders.NAME))
    ).decision

    assert decision.reason == decision_pb2.DECISION_REASON_SKIPPED_GAIN_TOO_SMALL
    assert decision.evaluation == decision_pb2.EVALUATION_PREDICTIVE
    assert server.count("forecast_windows", deployment=builders.NAME) == 1


async def test_repeated_while_the_first_is_under_way(server: Server) -> None:
    """Whoever repeats a call that is being carried out gets the same answer, from one solve."""
    await server.create(trigger=deployment_pb2.TriggerParameters(window_samples=9))
    stream = await server.join()
    await stream.say(load_report=messages.load_report())
    await stream.hear("report_ack")
    server.solver.answer = builders.solution(FIRST)
    server.solver.may_answer.clear()
    request = pb.RebalanceRequest(deployment=builders.NAME, request_id="r-1")
    calls = [asyncio.create_task(server.call(REBALANCE, request)) for _ in range(2)]
    await server.solver.asked.wait()
    server.solver.may_answer.set()
    first, second = await asyncio.gather(*calls)

    assert first == second
    assert first.decision.plan_version == 1
    assert (await server.get()).status.head_version == 1


async def test_too_many_orders(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap, an order is RESOURCE_EXHAUSTED and says when to try again."""
    monkeypatch.setattr(order_book, "MAX_ORDERS", 0)
    await server.create()
    refusal = await server.refusal(PAUSE, pb.PauseRequest(deployment=builders.NAME))

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_ORDERS",
    )
    assert refusal.retry_after_s == 1.0


async def test_deleted_while_an_order_waits(server: Server) -> None:
    """An order that waits when its deployment goes away is UNAVAILABLE, not left hanging."""
    await server.create(trigger=deployment_pb2.TriggerParameters(window_samples=9))
    stream = await server.join()
    await stream.say(load_report=messages.load_report())
    await stream.hear("report_ack")
    server.solver.may_answer.clear()
    request = pb.RebalanceRequest(deployment=builders.NAME)
    ordering = asyncio.create_task(server.refusal(REBALANCE, request))
    await server.solver.asked.wait()
    await server.delete()

    refusal = await ordering
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPED")


async def test_drained_while_an_order_waits(server: Server) -> None:
    """A call that was accepted before a drain is answered within the grace, a late one is not."""
    await server.create(trigger=deployment_pb2.TriggerParameters(window_samples=9))
    stream = await server.join()
    await stream.say(load_report=messages.load_report())
    await stream.hear("report_ack")
    server.solver.answer = builders.solution(FIRST)
    server.solver.may_answer.clear()
    request = pb.RebalanceRequest(deployment=builders.NAME)
    ordering = asyncio.create_task(server.call(REBALANCE, request))
    await server.solver.asked.wait()
    server.directory.drain(1.0)
    ending = asyncio.create_task(server._server.stop(PATIENCE_S))
    assert await stream.end() is None
    refusal = await server.refusal(REBALANCE, request)
    server.solver.may_answer.set()

    assert (await ordering).decision.plan_version == 1
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    await ending


async def test_rolled_back(server: Server) -> None:
    """Earlier content comes back under a new version; version 0 is the start placement."""
    await server.create()
    first = await server.lead_to(*FIRST)
    await server.lead_to(*SECOND)
    third = (await server.call(ROLL_BACK, roll_back(1))).plan
    fourth = (await server.call(ROLL_BACK, roll_back(0))).plan

    assert (third.version, third.digest) == (3, first.digest)
    assert third.reason == decision_pb2.DECISION_REASON_ROLLED_BACK
    assert "version 1" in third.comment
    assert map_of(await stored(server, 4)) == [[0, 1, 2, 3]]
    assert fourth.version == 4


async def test_version_that_is_not_there(server: Server) -> None:
    """What is not kept cannot be gone back to."""
    await server.create()
    for version, code in (
        (7, grpc.StatusCode.NOT_FOUND),
        (2**63, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        assert (await server.refusal(ROLL_BACK, roll_back(version))).code is code


async def test_repeated_roll_back(server: Server) -> None:
    """A repeated roll-back gets its answer also when what it went back to is kept no more."""
    server.store._keep_plans = 2
    await server.create()
    for experts in (FIRST, SECOND):
        await server.lead_to(*experts)
    answer = await server.call(ROLL_BACK, roll_back(1, request_id="r-1"))
    refusal = await server.refusal(GET, pb.GetPlanRequest(deployment=builders.NAME, version=1))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    again = await server.call(ROLL_BACK, roll_back(1, request_id="r-1"))
    assert (again.plan.version, again.plan.digest) == (3, answer.plan.digest)


async def test_paused_and_resumed(server: Server) -> None:
    """A pause is durable and tells its comment; while it lasts nothing is published."""
    await server.create()
    pause = pb.PauseRequest(deployment=builders.NAME, comment="night", request_id="r-1")
    answer = (await server.call(PAUSE, pause)).deployment
    assert (answer.status.is_paused, answer.status.pause_comment) == (True, "night")
    assert server.store.deployments()[0].is_paused
    stream = await server.join()
    await stream.say(load_report=messages.load_report())
    await stream.hear("report_ack")
    status = (await server.get()).status
    assert status.last_decision.reason == decision_pb2.DECISION_REASON_SKIPPED_PAUSED

    resume = pb.ResumeRequest(deployment=builders.NAME)
    assert not (await server.call(RESUME, resume)).deployment.status.is_paused
    # A repeat of the first call says how things are now, and changes nothing.
    assert not (await server.call(PAUSE, pause)).deployment.status.is_paused


async def test_long_comment(server: Server) -> None:
    """A comment on a pause is at most 1024 characters long."""
    await server.create()
    await server.call(PAUSE, pb.PauseRequest(deployment=builders.NAME, comment="x" * 1024))
    refusal = await server.refusal(
        PAUSE, pb.PauseRequest(deployment=builders.NAME, comment="x" * 1025)
    )

    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["comment"])


async def test_shadow(server: Server) -> None:
    """A deployment in shadow mode publishes nothing, an operator's placement neither."""
    shadow = deployment_pb2.RolloutParameters(mode=deployment_pb2.ROLLOUT_MODE_SHADOW)
    await server.create(rollout=shadow)
    refusal = await server.refusal(PUBLISH, publication())

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "SHADOW_MODE",
    )


@pytest.mark.parametrize("operation", ["publish", "answered"])
async def test_store_that_fails(server: Server, operation: str) -> None:
    """Without the store an order is UNAVAILABLE; the same call succeeds later, once."""
    await server.create()
    server.store.failing.add(operation)
    refusal = await server.refusal(PUBLISH, publication(request_id="r-1"))
    server.store.failing.clear()

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert (await server.call(PUBLISH, publication(request_id="r-1"))).plan.version == 1
    assert (await server.get()).status.head_version == 1


async def test_coordinated_publication(server: Server) -> None:
    """In a coordinated deployment the answer is a plan that is being staged."""
    coordinated = deployment_pb2.RolloutParameters(mode=deployment_pb2.ROLLOUT_MODE_COORDINATED)
    await server.create(rollout=coordinated)
    refusal = await server.refusal(PUBLISH, publication())
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "MEMBERS_MISSING",
    )
    stream = await server.join()
    plan = await server.lead_to(*FIRST)

    assert plan.state == plan_pb2.PLAN_STATE_STAGING
    assert (await stream.hear("stage")).plan.metadata.version == 1
    refusal = await server.refusal(PUBLISH, publication(*SECOND))
    assert refusal.reason == "ROLLOUT_IN_FLIGHT"
    await stream.say(
        ack=placement_pb2.Ack(version=1, digest=plan.digest, phase=placement_pb2.ACK_PHASE_STAGED)
    )
    assert not (await stream.hear("commit")).HasField("plan")
