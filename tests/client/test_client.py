"""Both clients against a scripted planner."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    deployment_service_pb2 as deployments_pb2,
    plan_service_pb2 as plans_pb2,
)
from expertplane_client import (
    Backoff,
    BlockingClient,
    Client,
    DeadlineExceededError,
    InputError,
    InvalidArgumentError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
)
from expertplane_client.rich_status import STATUS_KEY

from . import builders
from .scripted_planner import PATIENCE_S, ScriptedPlanner, Watch


if TYPE_CHECKING:
    from .conftest import Ask


QUICK = Backoff(initial_s=0.001, max_s=0.01)


async def test_a_plan_is_fetched_and_checked(ask: Ask, planner: ScriptedPlanner) -> None:
    """The committed plan is asked for by default, without the maps that follow from it."""
    planner.answers["GetPlan"] = lambda _: plans_pb2.GetPlanResponse(plan=builders.plan_message(6))
    plan = await ask("get_plan", builders.DEPLOYMENT)

    assert plan.version == 6
    (request,) = planner.requests
    assert (
        request.deployment,
        request.alias,
        request.omit_derived_maps,
    ) == (builders.DEPLOYMENT, plans_pb2.PLAN_ALIAS_COMMITTED, True)


async def test_a_plan_is_fetched_by_version(ask: Ask, planner: ScriptedPlanner) -> None:
    """A version asks for that version and no alias."""
    planner.answers["GetPlan"] = lambda request: plans_pb2.GetPlanResponse(
        plan=builders.plan_message(request.version)
    )

    assert (await ask("get_plan", builders.DEPLOYMENT, 2)).version == 2
    assert planner.requests[0].WhichOneof("selector") == "version"


async def test_an_answer_with_a_wrong_digest_is_refused(
    ask: Ask, planner: ScriptedPlanner
) -> None:
    """A plan that changed on its way never reaches the caller."""
    broken = builders.plan_message(6)
    broken.metadata.digest = "0" * 64
    planner.answers["GetPlan"] = lambda _: plans_pb2.GetPlanResponse(plan=broken)

    with pytest.raises(ProtocolError, match="digest"):
        await ask("get_plan", builders.DEPLOYMENT)


async def test_deployments_are_created_read_and_deleted(
    ask: Ask, planner: ScriptedPlanner
) -> None:
    """Changing calls carry a fresh request id, so that a repeat by the transport is harmless."""
    planner.answers["CreateDeployment"] = lambda request: deployments_pb2.CreateDeploymentResponse(
        deployment=builders.deployment(request.name)
    )
    planner.answers["GetDeployment"] = lambda request: deployments_pb2.GetDeploymentResponse(
        deployment=builders.deployment(request.name, head_version=4)
    )
    spec = deployment_pb2.DeploymentSpec(model_name="tiny")
    created = await ask("create_deployment", builders.DEPLOYMENT, spec)
    read = await ask("get_deployment", builders.DEPLOYMENT)
    await ask("delete_deployment", builders.DEPLOYMENT, etag=read.etag)

    assert (created.name, read.status.head_version) == (builders.DEPLOYMENT, 4)
    creation, _, deletion = planner.requests
    assert (
        creation.spec.model_name,
        len(creation.request_id),
        len(deletion.request_id),
    ) == ("tiny", 36, 36)
    assert deletion.etag == "e1"


async def test_lists_follow_their_pages(ask: Ask, planner: ScriptedPlanner) -> None:
    """A list is whole, however many pages it takes."""
    pages = {"": (["a/a", "a/b"], "t1"), "t1": (["a/c"], "t2"), "t2": ([], "")}

    def page(request: Any) -> Any:
        names, token = pages[request.page_token]
        return deployments_pb2.ListDeploymentsResponse(
            deployments=map(builders.deployment, names), next_page_token=token
        )

    planner.answers["ListDeployments"] = page

    assert [found.name for found in await ask("list_deployments")] == ["a/a", "a/b", "a/c"]


async def test_a_planner_that_turns_in_circles_is_caught(
    ask: Ask, planner: ScriptedPlanner
) -> None:
    """A page token that comes again ends the loop with an error."""
    planner.answers["ListDeployments"] = lambda _: deployments_pb2.ListDeploymentsResponse(
        next_page_token="again"
    )

    with pytest.raises(ProtocolError, match="again"):
        await ask("list_deployments")


async def test_a_list_of_plans_stops_at_its_limit(ask: Ask, planner: ScriptedPlanner) -> None:
    """No more plans are asked for than are wanted."""
    planner.answers["ListPlans"] = lambda _: plans_pb2.ListPlansResponse(
        plans=[builders.plan_message(version).metadata for version in (5, 4)], next_page_token="t"
    )
    found = await ask("list_plans", builders.DEPLOYMENT, limit=2)

    assert [plan.version for plan in found] == [5, 4]
    assert [request.page_size for request in planner.requests] == [2]


async def test_decisions_are_explained(ask: Ask, planner: ScriptedPlanner) -> None:
    """The journal comes back in the planner's order."""
    planner.answers["ExplainDecisions"] = lambda request: plans_pb2.ExplainDecisionsResponse(
        decisions=[decision_pb2.Decision(sequence=request.after_sequence + 1)]
    )
    (decision,) = await ask("explain_decisions", builders.DEPLOYMENT, after_sequence=8)

    assert decision.sequence == 9


async def test_a_refusal_keeps_code_reason_field_and_message(
    ask: Ask, planner: ScriptedPlanner
) -> None:
    """What the planner says about a refusal reaches the caller in full."""
    status = status_pb2.Status(code=3)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="BAD_SLOTS"))
    violation = error_details_pb2.BadRequest.FieldViolation(field="topology")
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    metadata = ((STATUS_KEY, status.SerializeToString()),)
    planner.failure = (grpc.StatusCode.INVALID_ARGUMENT, "Expected x, got y.", metadata)

    with pytest.raises(InvalidArgumentError) as caught:
        await ask("get_plan", builders.DEPLOYMENT)

    assert (
        caught.value.code,
        caught.value.reason,
        caught.value.field,
        str(caught.value),
    ) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_SLOTS", "topology", "Expected x, got y.")
    assert caught.value.method == "/expertplane.v1.PlanService/GetPlan"


async def test_a_planner_that_is_away_is_named() -> None:
    """Whoever does not wait hears at once which address does not answer."""
    async with Client("127.0.0.1:1", wait_for_ready=False) as client:
        with pytest.raises(UnavailableError) as caught:
            await client.get_plan(builders.DEPLOYMENT)

    assert str(caught.value) == (
        "Expected a planner at 127.0.0.1:1, got no answer (connection refused)."
    )


async def test_a_read_waits_no_longer_than_its_deadline() -> None:
    """A read waits for the planner to come up, but not for ever."""
    async with Client("127.0.0.1:1", timeout_s=0.05) as client:
        with pytest.raises(DeadlineExceededError, match=r"127\.0\.0\.1:1"):
            await client.get_plan(builders.DEPLOYMENT)


@pytest.mark.parametrize(
    "address", ["", "planner", "planner:", "planner:0", "planner:70000", "a b:1", "http://a:1"]
)
def test_an_address_out_of_order_is_refused(address: str) -> None:
    """A slip in an address is told when the client is made."""
    for kind in (Client, BlockingClient):
        with pytest.raises(InputError, match="address"):
            kind(address)


@pytest.mark.parametrize("address", ["planner:1", "[::1]:50051", "dns:///planner:1", "10.0.0.1:2"])
def test_an_address_in_order_is_taken(address: str) -> None:
    """Names, both kinds of IP and gRPC targets are addresses."""
    Client(address)


def _news(version: int, *, epoch: int = 1) -> plans_pb2.WatchPlansResponse:
    return plans_pb2.WatchPlansResponse(
        epoch=epoch, plan=builders.plan_message(version, epoch=epoch)
    )


async def _watch(planner: ScriptedPlanner) -> Watch:
    async with asyncio.timeout(PATIENCE_S):
        return await planner.watches.get()


async def test_a_watch_resumes_by_version(planner: ScriptedPlanner) -> None:
    """After an outage the watch asks for what comes after the last plan, and repeats nothing."""
    async with Client(planner.address, backoff=QUICK, rng=random.Random(0)) as client:
        plans = client.watch_plans(builders.DEPLOYMENT)
        first = asyncio.ensure_future(anext(plans))
        watch = await _watch(planner)
        state = plans_pb2.WATCH_STATE_DEPLOYMENT_UNKNOWN
        watch.said.put_nowait(plans_pb2.WatchPlansResponse(epoch=1, state=state))
        watch.said.put_nowait(_news(3))
        assert (await first).version == 3

        second = asyncio.ensure_future(anext(plans))
        await planner.kill()
        await planner.start()
        watch = await _watch(planner)
        watch.said.put_nowait(_news(3, epoch=2))
        watch.said.put_nowait(_news(9, epoch=1))
        watch.said.put_nowait(_news(5, epoch=2))

        assert watch.request.from_version == 4
        assert (await second).version == 5
        await plans.aclose()  # type: ignore[attr-defined]


async def test_a_watch_ends_with_a_refusal(planner: ScriptedPlanner) -> None:
    """An error that no waiting mends is raised."""
    planner.failure = (grpc.StatusCode.NOT_FOUND, "no", ())
    async with Client(planner.address, backoff=QUICK) as client:
        with pytest.raises(NotFoundError, match="no"):
            await anext(client.watch_plans(builders.DEPLOYMENT))


async def test_a_watch_ends_with_its_client(planner: ScriptedPlanner) -> None:
    """Closing the client ends its watches; cancelling a watch still cancels it."""
    client = Client(planner.address, backoff=QUICK)

    async def watch_all() -> int:
        return len([plan async for plan in client.watch_plans(builders.DEPLOYMENT)])

    ending, cancelled = (asyncio.create_task(watch_all()) for _ in range(2))
    await _watch(planner)
    await _watch(planner)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await client.close()

    assert await ending == 0


async def test_a_blocking_watch_resumes_and_ends_with_its_client(planner: ScriptedPlanner) -> None:
    """A thread sees every stream as one watch, which ends when the client is closed."""
    client = BlockingClient(planner.address, backoff=QUICK, rng=random.Random(0))
    seen: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def watch_all() -> None:
        for plan in client.watch_plans(builders.DEPLOYMENT):
            loop.call_soon_threadsafe(seen.put_nowait, plan.version)

    watching = asyncio.ensure_future(asyncio.to_thread(watch_all))
    async with asyncio.timeout(PATIENCE_S):
        first = await planner.watches.get()
        first.said.put_nowait(_news(1))
        assert await seen.get() == 1
        first.said.put_nowait(None)
        second = await planner.watches.get()
        assert second.request.from_version == 2
        second.said.put_nowait(_news(2))
        assert await seen.get() == 2
        await asyncio.to_thread(client.close)
        await watching
