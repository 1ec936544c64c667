"""What an operator asks of a planner, through both clients against a scripted planner."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    deployment_service_pb2 as deployments_pb2,
    plan_service_pb2 as plans_pb2,
)
from expertplane_client import (
    AbortedError,
    Backoff,
    BlockingClient,
    Client,
    InputError,
    ProtocolError,
    UnavailableError,
    calls,
)
from expertplane_client.tensors import from_tensor, to_tensor

from . import builders


if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Ask
    from .scripted_planner import ScriptedPlanner


NAME = builders.DEPLOYMENT
FRACTIONS: Any = np.zeros((2, 4))
AWAY = (grpc.StatusCode.UNAVAILABLE, "Socket closed", ())

ORDERS: dict[str, tuple[str, tuple[Any, ...], Callable[[Any], Any]]] = {
    "UpdateDeployment": (
        "update_deployment",
        (NAME, deployment_pb2.DeploymentSpec(model_name="new")),
        lambda _: deployments_pb2.UpdateDeploymentResponse(deployment=builders.deployment()),
    ),
    "DeleteDeployment": (
        "delete_deployment",
        (NAME,),
        lambda _: deployments_pb2.DeleteDeploymentResponse(),
    ),
    "PublishPlan": (
        "publish_plan",
        (NAME, builders.phy2log()),
        lambda _: plans_pb2.PublishPlanResponse(plan=builders.plan_message(8).metadata),
    ),
    "Rebalance": (
        "rebalance",
        (NAME,),
        lambda _: plans_pb2.RebalanceResponse(decision=decision_pb2.Decision(plan_version=8)),
    ),
    "RollBack": (
        "roll_back",
        (NAME, 3),
        lambda _: plans_pb2.RollBackResponse(plan=builders.plan_message(8).metadata),
    ),
    "Pause": (
        "pause",
        (NAME,),
        lambda _: plans_pb2.PauseResponse(deployment=builders.deployment(is_paused=True)),
    ),
    "Resume": (
        "resume",
        (NAME,),
        lambda _: plans_pb2.ResumeResponse(deployment=builders.deployment()),
    ),
}
KEYWORDS: dict[str, dict[str, Any]] = {"UpdateDeployment": {"etag": "e1"}}


@pytest.fixture
def obedient(planner: ScriptedPlanner) -> ScriptedPlanner:
    """Returns a planner that does as it is told."""
    planner.answers |= {name: answer for name, (_, _, answer) in ORDERS.items()}
    return planner


@pytest.mark.parametrize("name", ORDERS)
async def test_an_order_is_repeated_once_under_its_id(
    ask: Ask, obedient: ScriptedPlanner, name: str
) -> None:
    """Where the planner goes away, the same message comes again, and its answer counts."""
    obedient.failure, obedient.num_failures = AWAY, 1
    method, arguments, _ = ORDERS[name]
    await ask(method, *arguments, **KEYWORDS.get(name, {}))

    first, second = obedient.requests
    assert first == second
    assert uuid.UUID(first.request_id).version == 4


async def test_an_order_is_repeated_once_and_not_for_ever(
    ask: Ask, obedient: ScriptedPlanner
) -> None:
    """A planner that stays away is told to the caller."""
    obedient.failure = AWAY

    with pytest.raises(UnavailableError, match=r"got no answer \(connection closed\)\.$"):
        await ask("roll_back", NAME, 3)

    assert len(obedient.requests) == 2


async def test_an_order_that_the_planner_gave_up_is_repeated(
    ask: Ask, obedient: ScriptedPlanner
) -> None:
    """A planner that shuts down cancels its calls; the next one gives the answer."""
    obedient.failure, obedient.num_failures = (grpc.StatusCode.CANCELLED, "bye", ()), 1

    assert (await ask("roll_back", NAME, 3)).version == 8
    assert len(obedient.requests) == 2


async def test_a_refused_order_is_not_repeated(ask: Ask, obedient: ScriptedPlanner) -> None:
    """An answer is an answer."""
    obedient.failure = (grpc.StatusCode.ABORTED, "Expected head 4, got 5.", ())

    with pytest.raises(AbortedError, match="got 5"):
        await ask("roll_back", NAME, 3, expected_head=4)

    assert len(obedient.requests) == 1


async def test_without_a_request_id_nothing_is_repeated(
    ask: Ask, obedient: ScriptedPlanner
) -> None:
    """Whoever goes without an id would not know what a repetition did."""
    obedient.failure, obedient.num_failures = AWAY, 1

    with pytest.raises(UnavailableError):
        await ask("rebalance", NAME, request_id="")

    assert len(obedient.requests) == 1


async def test_a_read_is_repeated(ask: Ask, obedient: ScriptedPlanner) -> None:
    """What only reads may be asked twice: a planner that goes away need not be noticed."""
    obedient.failure, obedient.num_failures = AWAY, 1
    obedient.answers["GetDeployment"] = lambda _: deployments_pb2.GetDeploymentResponse(
        deployment=builders.deployment()
    )

    assert (await ask("get_deployment", NAME)).name == NAME
    assert len(obedient.requests) == 2


class Closing(random.Random):
    """Closes a client when it is asked for the jitter of a wait."""

    client: BlockingClient | Client

    def random(self) -> float:
        """Returns 0, the longest wait."""
        closing = self.client.close()
        if closing is not None:
            self.task = asyncio.ensure_future(closing)
        return 0.0


async def test_a_client_closed_while_it_waits_repeats_nothing(planner: ScriptedPlanner) -> None:
    """Closing the client ends a call for good, also one that could be repeated."""
    planner.failure = AWAY
    rng = Closing()
    rng.client = client = Client(planner.address, backoff=Backoff(initial_s=0.001), rng=rng)

    with pytest.raises(UnavailableError):
        await client.rebalance(NAME)

    assert len(planner.requests) == 1


async def test_a_closed_blocking_client_repeats_nothing(planner: ScriptedPlanner) -> None:
    """Closing it in another thread ends the wait as well as the call."""
    planner.failure = AWAY
    rng = Closing()
    backoff = Backoff(initial_s=600.0, max_s=600.0)
    rng.client = client = BlockingClient(planner.address, backoff=backoff, rng=rng)

    with pytest.raises(UnavailableError):
        await asyncio.to_thread(client.rebalance, NAME)

    assert len(planner.requests) == 1


async def test_a_plan_is_published(ask: Ask, obedient: ScriptedPlanner) -> None:
    """The map travels as int32, with comment, expected head and the caller's id."""
    metadata = await ask(
        "publish_plan",
        NAME,
        builders.phy2log().astype(np.int64),
        comment="by hand",
        request_id="r-1",
        expected_head=0,
    )

    (request,) = obedient.requests
    sent = from_tensor(request.phy2log, field="phy2log", max_shape=(9, 9))
    assert sent.dtype == np.int32
    np.testing.assert_array_equal(sent, builders.phy2log())
    assert (request.comment, request.request_id) == ("by hand", "r-1")
    assert (request.HasField("expected_head"), request.expected_head) == (True, 0)
    assert metadata.version == 8


async def test_without_an_expected_head_none_is_checked(
    ask: Ask, obedient: ScriptedPlanner
) -> None:
    """None is another thing than head 0."""
    await ask("rebalance", NAME)
    await ask("roll_back", NAME, 0)

    assert [request.HasField("expected_head") for request in obedient.requests] == [False, False]
    assert obedient.requests[1].to_version == 0


async def test_a_deployment_is_paused_and_resumed(ask: Ask, obedient: ScriptedPlanner) -> None:
    """The comment travels; the deployment comes back as it is now."""
    paused = await ask("pause", NAME, comment="rack 7")
    resumed = await ask("resume", NAME)

    assert obedient.requests[0].comment == "rack 7"
    assert (paused.status.is_paused, resumed.status.is_paused) == (True, False)


async def test_a_spec_is_replaced_under_its_etag(ask: Ask, obedient: ScriptedPlanner) -> None:
    """The whole spec and the etag that was read reach the planner."""
    await ask(
        "update_deployment", NAME, deployment_pb2.DeploymentSpec(model_name="new"), etag="e7"
    )

    (request,) = obedient.requests
    assert (request.name, request.spec.model_name, request.etag) == (NAME, "new", "e7")


async def test_the_latest_plan_is_fetched(ask: Ask, planner: ScriptedPlanner) -> None:
    """The highest version may be one that is not committed."""
    planner.answers["GetPlan"] = lambda _: plans_pb2.GetPlanResponse(plan=builders.plan_message(6))
    plan = await ask("get_plan", NAME, alias="latest")

    assert plan.version == 6
    assert planner.requests[0].alias == plans_pb2.PLAN_ALIAS_LATEST


async def test_plans_are_compared(ask: Ask, planner: ScriptedPlanner) -> None:
    """Changes come as a table by layer and slot, with the migration."""
    change = plans_pb2.SlotChange(layer=1, slot=3, from_expert=0, to_expert=2)
    planner.answers["DiffPlans"] = lambda _: plans_pb2.DiffPlansResponse(
        changes=[change],
        moved_slots_per_layer=[0, 1],
        transfers=builders.transfers_message(),
    )
    found = await ask("diff_plans", NAME, 0, 4)

    (request,) = planner.requests
    assert (request.from_version, request.to_version) == (0, 4)
    assert found.changes.tolist() == [[1, 3, 0, 2]]
    assert (found.moved_slots, found.moved_slots_per_layer) == (1, (0, 1))
    assert found.transfers.total_bytes == 88


async def test_equal_plans_have_no_changes(ask: Ask, planner: ScriptedPlanner) -> None:
    """An empty difference has the same shape as any."""
    planner.answers["DiffPlans"] = lambda _: plans_pb2.DiffPlansResponse()
    found = await ask("diff_plans", NAME, 4, 4)

    assert (found.changes.shape, found.moved_slots, found.transfers) == ((0, 4), 0, None)


def _load(**fields: Any) -> deployments_pb2.GetLoadResponse:
    return deployments_pb2.GetLoadResponse(
        **{
            name: to_tensor(np.asarray(rows, dtype=np.float32), field=name)
            for name, rows in fields.items()
        },
        num_windows=4,
    )


async def test_the_forecast_is_fetched(ask: Ask, planner: ScriptedPlanner) -> None:
    """Mean and deviation by expert, load by rank."""
    planner.answers["GetLoad"] = lambda _: _load(
        mean=[[4, 2], [1, 1]],
        standard_deviation=[[1, 0], [0, 1]],
        rank_load=[[3, 2, 1], [1, 1, 0]],
    )
    load = await ask("get_load", NAME)

    assert (load.num_windows, load.mean.tolist()) == (4, [[4.0, 2.0], [1.0, 1.0]])
    assert load.standard_deviation.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert load.rank_load.shape == (2, 3)


async def test_before_the_first_window_there_is_no_forecast(
    ask: Ask, planner: ScriptedPlanner
) -> None:
    """What is not there is None, and no error."""
    planner.answers["GetLoad"] = lambda _: deployments_pb2.GetLoadResponse()
    load = await ask("get_load", NAME)

    assert (load.mean, load.standard_deviation, load.rank_load) == (None, None, None)


@pytest.mark.parametrize(
    "other", [{"standard_deviation": [[1, 2, 3], [1, 2, 3]]}, {"rank_load": [[1, 1]]}]
)
async def test_a_forecast_of_two_shapes_is_refused(
    ask: Ask, planner: ScriptedPlanner, other: dict[str, Any]
) -> None:
    """Tensors that are not about the same layers and experts break the contract."""
    planner.answers["GetLoad"] = lambda _: _load(mean=[[4, 2], [1, 1]], **other)

    with pytest.raises(ProtocolError, match="like mean"):
        await ask("get_load", NAME)


@pytest.mark.parametrize(
    ("describe", "message"),
    [
        (lambda: calls.get_plan(NAME, 3, alias="latest"), "a version or an alias, got both"),
        (lambda: calls.get_plan(NAME, alias="newest"), "one of committed, latest, got 'newest'"),
        (lambda: calls.get_plan(NAME, -1), r"version in \[0, 2\^64\), got -1"),
        (lambda: calls.roll_back(NAME, 2**64), r"to_version in \[0, 2\^64\)"),
        (lambda: calls.rebalance(NAME, expected_head=-1), r"expected_head in \[0, 2\^64\)"),
        (lambda: calls.diff_plans(NAME, 0, -1), r"to_version in \[0, 2\^64\)"),
        (lambda: calls.publish_plan(NAME, FRACTIONS), "phy2log of integers"),
        (lambda: calls.pause("tiny"), "namespace/name"),
    ],
)
def test_an_order_that_cannot_be_sent_is_refused(
    describe: Callable[[], Any], message: str
) -> None:
    """What the wire cannot say is the caller's mistake, told without asking a planner."""
    with pytest.raises(InputError, match=message):
        describe()


async def test_every_method_of_the_contract_is_described() -> None:
    """There is a call for every unary method, and no call of a method that does not exist."""
    contract = {
        f"/{service.full_name}/{method.name}"
        for file in (plans_pb2, deployments_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    weight = np.array([[4, 3, 2], [1, 1, 8]])
    spec = deployment_pb2.DeploymentSpec()
    described: list[calls.Call[Any]] = [
        calls.get_plan(NAME),
        calls.compute_plan(weight, num_nodes=1, num_ranks=2, num_slots=4),
        calls.explain_decisions(NAME),
        calls.diff_plans(NAME, 0, 1),
        calls.publish_plan(NAME, builders.phy2log()),
        calls.rebalance(NAME),
        calls.roll_back(NAME, 1),
        calls.pause(NAME),
        calls.resume(NAME),
        calls.create_deployment(NAME, spec),
        calls.get_deployment(NAME),
        calls.update_deployment(NAME, spec, etag="e1"),
        calls.delete_deployment(NAME),
        calls.get_load(NAME),
        next(calls.list_plans(NAME)),
        next(calls.list_deployments()),
    ]

    watched = "/expertplane.v1.PlanService/WatchPlans"
    assert {call.method for call in described} == contract - {watched}


def test_both_clients_offer_the_same() -> None:
    """What one client can do, the other can."""
    assert {name for name in dir(Client) if not name.startswith("_")} == {
        name for name in dir(BlockingClient) if not name.startswith("_")
    }
