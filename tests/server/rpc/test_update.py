"""UpdateDeployment over the wire: another spec, and where the ranks change, another generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import (
    deployment_pb2,
    deployment_service_pb2 as pb,
    placement_service_pb2 as placement_pb2,
    plan_service_pb2,
)
from expertplane_planner import Forecast
from expertplane_server.core import orders
from expertplane_server.runtime.jobs import SolveJob
from expertplane_server.store import StoreError

from .. import builders
from ..fakes import FailingStore
from . import messages
from .harness import Server


if TYPE_CHECKING:
    from expertplane_server.core.spec import Deployment, DeploymentSpec


UPDATE = "DeploymentService/UpdateDeployment"
GET_PLAN = plan_service_pb2.GetPlanRequest(deployment=builders.NAME)


def update(etag: str, *, request_id: str = "", **changes: Any) -> pb.UpdateDeploymentRequest:
    """Return another spec."""
    return pb.UpdateDeploymentRequest(
        name=builders.NAME, spec=messages.spec(**changes), etag=etag, request_id=request_id
    )


async def test_updated(server: Server) -> None:
    """A spec is replaced under a new etag; plans and generation stay where the ranks do."""
    created = await server.create()
    await server.lead_to(0, 3, 1, 2)
    updated = (await server.call(UPDATE, update(created.etag, model_name="m"))).deployment

    assert (updated.spec.model_name, updated.generation) == ("m", 1)
    assert updated.etag != created.etag
    assert updated.status.committed_version == 1
    assert server.store.deployments()[0].spec.model_name == "m"
    assert (await server.call("PlanService/GetPlan", GET_PLAN)).plan.metadata.version == 1


async def test_next_window_is_planned_under_the_new_spec(server: Server) -> None:
    """What is asked for now is what the solver is asked for."""
    created = await server.create()
    policy = deployment_pb2.PolicySpec(name="deepseek", seed=5, max_moved_slots_per_layer=1)
    await server.call(UPDATE, update(created.etag, policy=policy))
    stream = await server.join()
    await stream.say(load_report=messages.load_report())
    await stream.hear("report_ack")
    await server.solver.asked.wait()
    (job,) = [each for each in server.solver.jobs if isinstance(each, SolveJob)]

    assert (job.policy.name, job.policy.seed, job.policy.max_moved_slots) == ("deepseek", 5, 1)


async def test_new_generation(server: Server) -> None:
    """Other ranks begin a generation without a plan; whoever answers for the old ones is told."""
    created = await server.create()
    await server.lead_to(0, 3, 1, 2)
    stream = await server.join()
    topology = messages.topology(slots_per_rank=3)
    updated = (await server.call(UPDATE, update(created.etag, topology=topology))).deployment

    assert updated.generation == 2
    assert (await stream.hear("welcome")).generation == 2
    refusal = await server.refusal("PlanService/GetPlan", GET_PLAN)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NO_PLAN_YET")
    latest = plan_service_pb2.GetPlanRequest(
        deployment=builders.NAME, alias=plan_service_pb2.PLAN_ALIAS_LATEST
    )
    assert (await server.call("PlanService/GetPlan", latest)).plan.metadata.version == 1
    watch = server.watch()
    assert (await watch.next()).state == plan_service_pb2.WATCH_STATE_WAITING
    assert (await server.lead_to(0, 1, 2, 3, 0, 1)).version == 2
    assert (await watch.next()).plan.metadata.generation == 2
    watch.cancel()
    assert server.count("committed_version", deployment=builders.NAME) == 2


async def test_staged_plan_is_given_up(server: Server) -> None:
    """What is being staged for other ranks is aborted before the generation begins."""
    rollout = deployment_pb2.RolloutParameters(mode=deployment_pb2.ROLLOUT_MODE_COORDINATED)
    created = await server.create(rollout=rollout)
    stream = await server.join()
    await server.lead_to(0, 3, 1, 2)
    await stream.hear("stage")
    topology = messages.topology(slots_per_rank=3)
    await server.call(UPDATE, update(created.etag, topology=topology, rollout=rollout))

    assert (await stream.hear("abort")).version == 1
    assert (await server.get()).status.staging_version == 0


@pytest.mark.parametrize("is_learned_on", [True, False])
async def test_forecast_is_taken_along(server: Server, is_learned_on: bool) -> None:
    """What was learned up to the change goes on in the next generation, also unsaved windows."""
    trigger = deployment_pb2.TriggerParameters(window_samples=1, min_gain=0.99)
    created = await server.create(trigger=trigger)
    stream = await server.join()
    for step in range(3):  # the third is not followed by a checkpoint of its own
        await stream.say(load_report=messages.load_report(first_step=step))
        await stream.hear("report_ack")
    driver = server.directory.get(builders.NAME)
    await driver.order(orders.Resume())  # all that the reports have set off is under way
    forecast = deployment_pb2.ForecastParameters(recent_windows=1 if is_learned_on else 2)
    topology = messages.topology(slots_per_rank=3)
    request = update(created.etag, trigger=trigger, topology=topology, forecast=forecast)
    await server.call(UPDATE, request)
    content = server.store.forecast(builders.NAME, 2)
    assert content is not None
    assert Forecast.from_bytes(content).num_windows == 3

    await stream.hear("welcome")
    await stream.say(load_report=messages.load_report(first_step=9))
    await stream.hear("report_ack")
    await server.settle()
    # Under other parameters a forecast begins anew: it would be another one.
    expected = 4 if is_learned_on else 1
    assert server.count("forecast_windows", deployment=builders.NAME) == expected


async def test_stale_etag(server: Server) -> None:
    """A spec that was written against an older one is ABORTED with the current etag."""
    created = await server.create()
    await server.call(UPDATE, update(created.etag, model_name="first"))
    before = server.state()
    refusal = await server.refusal(UPDATE, update(created.etag, model_name="second"))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert refusal.fields == ["etag"]
    assert (await server.get()).etag in refusal.message
    assert server.state() == before


async def test_repeated_update(server: Server) -> None:
    """A repeated call changes nothing more and tells how things are now."""
    created = await server.create()
    request = update(created.etag, request_id="r-1", model_name="m")
    first = await server.call(UPDATE, request)

    assert await server.call(UPDATE, request) == first


@pytest.mark.parametrize(
    ("field", "code", "changes"),
    [
        ("etag", grpc.StatusCode.INVALID_ARGUMENT, {"etag": ""}),
        ("etag", grpc.StatusCode.INVALID_ARGUMENT, {"etag": "\U000e0001" * 5000}),
        ("name", grpc.StatusCode.INVALID_ARGUMENT, {"name": "nowhere"}),
        ("request_id", grpc.StatusCode.INVALID_ARGUMENT, {"request_id": "a b"}),
        ("spec.topology", grpc.StatusCode.INVALID_ARGUMENT, {"num_logical_experts": 5}),
        (
            "spec.policy.parameters.risk",
            grpc.StatusCode.INVALID_ARGUMENT,
            {"policy": deployment_pb2.PolicySpec(parameters={"risk": "x"})},
        ),
    ],
)
async def test_bad_update(
    server: Server, field: str, code: grpc.StatusCode, changes: dict[str, Any]
) -> None:
    """A spec that breaks a rule is refused by field and changes nothing."""
    created = await server.create()
    before = server.state()
    request = {"etag": created.etag, **changes}
    name = request.pop("name", builders.NAME)
    message = update(**request)
    message.name = name
    refusal = await server.refusal(UPDATE, message)

    assert (refusal.code, refusal.fields) == (code, [field])
    assert server.state() == before


async def test_unknown_deployment(server: Server) -> None:
    """What does not exist cannot be changed."""
    refusal = await server.refusal(UPDATE, update("etag"))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_UNKNOWN")


async def test_store_that_fails(server: Server) -> None:
    """What could not be stored is UNAVAILABLE and not in force; the same call succeeds later."""
    created = await server.create()
    server.store.failing.add("update_deployment")
    request = update(created.etag, request_id="r-1", model_name="m")
    refusal = await server.refusal(UPDATE, request)
    server.store.failing.clear()

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert (await server.get()).spec == created.spec
    assert (await server.call(UPDATE, request)).deployment.spec.model_name == "m"


class SilentStore(FailingStore):
    """A store that carries updates out, and fails all the same."""

    def update_deployment(self, name: str, spec: DeploymentSpec, **told: Any) -> Deployment:
        """Update, and fail."""
        super().update_deployment(name, spec, **told)
        raise StoreError("Expected an answer, got none.")


async def test_outcome_that_is_not_known() -> None:
    """Where the store does not say what it did, it is read back, and the answer is the truth."""
    server = Server()
    server.store = SilentStore()
    async with server:
        created = await server.create()
        request = update(created.etag, model_name="m")

        assert (await server.call(UPDATE, request)).deployment.spec.model_name == "m"
        assert (await server.get()).spec.model_name == "m"


async def test_members_follow(server: Server) -> None:
    """Participants that still fit stay, and go on under the new generation."""
    created = await server.create()
    stream = await server.join()
    topology = messages.topology(slots_per_rank=3)
    await server.call(UPDATE, update(created.etag, topology=topology))
    await stream.hear("welcome")
    report = messages.load_report()
    await stream.say(load_report=report)

    assert (await stream.hear("report_ack")).sequence == report.sequence
    assert (await server.get()).status.num_participants == 1
    await stream.say(goodbye=placement_pb2.Goodbye())
