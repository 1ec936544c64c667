"""DeploymentService over the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import deployment_pb2, deployment_service_pb2 as pb
from expertplane_server.core import limits

from .. import builders
from . import messages


if TYPE_CHECKING:
    from .harness import Server


CREATE = "DeploymentService/CreateDeployment"
DELETE = "DeploymentService/DeleteDeployment"
GET = "DeploymentService/GetDeployment"
LIST = "DeploymentService/ListDeployments"


def creation(name: str = builders.NAME, *, request_id: str = "", **changes: Any) -> Any:
    """Return a request for a deployment."""
    return pb.CreateDeploymentRequest(
        name=name, spec=messages.spec(**changes), request_id=request_id
    )


async def test_created(server: Server) -> None:
    """A new deployment comes back with its defaults spelt out, and is found under its name."""
    created = (await server.call(CREATE, creation())).deployment

    assert (created.name, created.generation) == (builders.NAME, 1)
    assert created.etag
    assert created.spec.policy.name == "robust"
    assert created.status.epoch == 1
    assert await server.get() == created


async def test_created_again(server: Server) -> None:
    """A name is given once."""
    await server.create()
    refusal = await server.refusal(CREATE, creation())

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert (refusal.reason, refusal.fields) == ("NAME_TAKEN", ["name"])


async def test_repeated_creation(server: Server) -> None:
    """A repeated call returns the first answer; its id for another name is refused."""
    first = await server.call(CREATE, creation(request_id="r-1"))

    assert await server.call(CREATE, creation(request_id="r-1")) == first
    refusal = await server.refusal(CREATE, creation("other/name", request_id="r-1"))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.ABORTED, ["request_id"])


BAD_CREATIONS: dict[str, tuple[str, Any]] = {
    "name": ("name", creation("Prod")),
    "empty name": ("name", creation("")),
    "request id": ("request_id", creation(request_id="a b")),
    "long request id": ("request_id", creation(request_id="a" * 65)),
    "no spec": ("spec.topology.num_nodes", pb.CreateDeploymentRequest(name=builders.NAME)),
    "P < E": ("spec.topology", creation(num_logical_experts=5)),
    "groups": ("spec.num_expert_groups", creation(num_expert_groups=3)),
    "hierarchical": (
        "spec.policy.mode",
        creation(
            topology=messages.topology(num_nodes=2),
            policy=deployment_pb2.PolicySpec(mode=deployment_pb2.MODE_HIERARCHICAL),
        ),
    ),
    "soft-hierarchical": (
        "spec.policy.mode",
        creation(
            topology=messages.topology(num_nodes=2),
            policy=deployment_pb2.PolicySpec(mode=deployment_pb2.MODE_SOFT_HIERARCHICAL),
        ),
    ),
    "unknown enum": (
        "spec.policy.mode",
        creation(policy=deployment_pb2.PolicySpec(mode=99)),  # type: ignore[arg-type]
    ),
    "NaN": (
        "spec.trigger.min_gain",
        creation(trigger=deployment_pb2.TriggerParameters(min_gain=float("nan"))),
    ),
    "policy": ("spec.policy.name", creation(policy=deployment_pb2.PolicySpec(name="magic"))),
    "too many ranks": (
        "spec.topology",
        creation(topology=messages.topology(num_nodes=2**32 - 1, ranks_per_node=2**32 - 1)),
    ),
}


@pytest.mark.parametrize("case", BAD_CREATIONS)
async def test_bad_creation(server: Server, case: str) -> None:
    """A spec that breaks a rule is INVALID_ARGUMENT, names the field, and creates nothing."""
    field, request = BAD_CREATIONS[case]
    refusal = await server.refusal(CREATE, request)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == [field]
    assert refusal.reason
    assert refusal.message.startswith(f"{field}: Expected ")
    assert server.state() == (1, [], [], [])


async def test_slow_ranks_are_the_solvers_to_judge(server: Server) -> None:
    """Whether a policy weighs ranks is asked before a deployment with unequal ones is created."""
    topology = messages.topology(rank_capacities=[1.0, 0.5])
    deepseek = deployment_pb2.PolicySpec(name="deepseek")
    refusal = await server.refusal(CREATE, creation(topology=topology, policy=deepseek))

    assert refusal.fields == ["spec.topology.rank_capacities"]
    assert server.state() == (1, [], [], [])


@pytest.mark.parametrize(
    "request_",
    [
        creation("\U000e0001" * 70_000),
        creation("\U0001f600" * 200),
        creation(request_id="\U000e0001" * 5000),
        creation(layer_ids=list(range(2**32 - 1, 2**32 - 257, -1))),
        creation(policy=deployment_pb2.PolicySpec(name="\U000e0001" * 5000)),
        creation(layer_ids=list(range(256)), topology=messages.topology(slots_per_rank=2**31)),
    ],
    ids=["name", "printable name", "request id", "layers", "policy", "slots"],
)
async def test_refusal_fits_into_a_header(server: Server, request_: Any) -> None:
    """However long the offending value, its refusal arrives as it is."""
    refusal = await server.refusal(CREATE, request_)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(refusal.fields) == 1


async def test_unknown_deployment(server: Server) -> None:
    """What does not exist is NOT_FOUND."""
    for path, request in (
        (GET, pb.GetDeploymentRequest(name="no/such")),
        (DELETE, pb.DeleteDeploymentRequest(name="no/such")),
    ):
        refusal = await server.refusal(path, request)
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        assert refusal.reason == "DEPLOYMENT_UNKNOWN"


async def test_deleted(server: Server) -> None:
    """A deleted deployment is gone; its successor of the same name is another one."""
    first = await server.create()
    await server.delete()
    refusal = await server.refusal(GET, pb.GetDeploymentRequest(name=builders.NAME))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert (await server.create()).etag != first.etag


async def test_stale_etag(server: Server) -> None:
    """A removal that was decided on an older spec is ABORTED and tells the current etag."""
    created = await server.create()
    request = pb.DeleteDeploymentRequest(name=builders.NAME, etag="stale")
    refusal = await server.refusal(DELETE, request)

    assert (refusal.code, refusal.fields) == (grpc.StatusCode.ABORTED, ["etag"])
    assert created.etag in refusal.message
    assert (await server.get()).etag == created.etag
    await server.call(DELETE, pb.DeleteDeploymentRequest(name=builders.NAME, etag=created.etag))


async def test_repeated_removal(server: Server) -> None:
    """A repeated removal returns the first answer and leaves what has come since alone."""
    request = pb.DeleteDeploymentRequest(name=builders.NAME, request_id="r-1")
    await server.create()
    await server.call(DELETE, request)

    await server.call(DELETE, request)
    await server.create()
    await server.call(DELETE, request)
    assert (await server.get()).name == builders.NAME


async def test_bad_removal(server: Server) -> None:
    """A removal is checked like any other request."""
    for field, request in (
        ("name", pb.DeleteDeploymentRequest(name="x")),
        ("request_id", pb.DeleteDeploymentRequest(name="a/b", request_id="a b")),
        ("etag", pb.DeleteDeploymentRequest(name="a/b", etag="x" * 100_000)),
    ):
        refusal = await server.refusal(DELETE, request)
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_pages(server: Server) -> None:
    """Pages cover all deployments by name, once each, and the last one has no token."""
    names = [f"a/{letter}" for letter in "edcba"]
    for name in names:
        await server.create(name)
    pages, token = [], ""
    while True:
        page = await server.call(LIST, pb.ListDeploymentsRequest(page_size=2, page_token=token))
        pages.append([each.name for each in page.deployments])
        token = page.next_page_token
        if not token:
            break

    assert pages == [["a/a", "a/b"], ["a/c", "a/d"], ["a/e"]]


async def test_page_that_fits_exactly(server: Server) -> None:
    """A page that holds the last deployment has no token, however full it is."""
    for name in ("a/a", "a/b"):
        await server.create(name)

    page = await server.call(LIST, pb.ListDeploymentsRequest(page_size=2))
    assert (len(page.deployments), page.next_page_token) == (2, "")


async def test_page_too_large(server: Server) -> None:
    """A page has at most a thousand entries."""
    refusal = await server.refusal(LIST, pb.ListDeploymentsRequest(page_size=1001))

    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_size"])


async def test_too_many_deployments(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap, a creation is RESOURCE_EXHAUSTED and says when to try again."""
    monkeypatch.setattr(limits, "MAX_DEPLOYMENTS", 1)
    await server.create("a/a")
    refusal = await server.refusal(CREATE, creation("a/b"))

    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (refusal.reason, refusal.retry_after_s) == ("TOO_MANY_DEPLOYMENTS", 60.0)


async def test_store_that_fails(server: Server) -> None:
    """A store that cannot write makes a creation UNAVAILABLE; the same call succeeds later."""
    server.store.failing.add("create_deployment")
    refusal = await server.refusal(CREATE, creation(request_id="r-1"))
    server.store.failing.clear()

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    created = await server.call(CREATE, creation(request_id="r-1"))
    assert created.deployment.name == builders.NAME


async def test_creation_that_broke_off(server: Server) -> None:
    """A deployment that was stored and could not be started is started by a repeated call."""
    server.store.failing.add("recover")
    refusal = await server.refusal(CREATE, creation(request_id="r-1"))
    server.store.failing.clear()

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    await server.call(CREATE, creation(request_id="r-1"))
    assert (await server.get()).name == builders.NAME
