"""DiffPlans over the wire: which slots change, which ranks must fetch, and by which way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    plan_pb2,
    plan_service_pb2 as pb,
)
from expertplane_server.rpc import plans
from expertplane_server.rpc.convert import diffs

from .. import builders
from . import messages


if TYPE_CHECKING:
    from .harness import Server


DIFF = "PlanService/DiffPlans"


def diff(from_version: int, to_version: int, name: str = builders.NAME) -> pb.DiffPlansRequest:
    """Return the wish to compare."""
    return pb.DiffPlansRequest(deployment=name, from_version=from_version, to_version=to_version)


async def test_diff(server: Server) -> None:
    """An expert that comes from the other rank is moved; one that changes its slot is not."""
    migration = deployment_pb2.MigrationParameters(bytes_per_expert=10)
    await server.create(migration=migration)
    await server.lead_to(1, 2, 3, 0)
    told = await server.call(DIFF, diff(0, 1))

    changes = [(each.slot, each.from_expert, each.to_expert) for each in told.changes]
    assert changes == [(0, 0, 1), (1, 1, 2), (2, 2, 3), (3, 3, 0)]
    assert list(told.moved_slots_per_layer) == [2]
    schedule = told.transfers
    assert schedule.parent_version == 0
    assert schedule.total_bytes == 20
    links = {(each.source_slot, each.target_slot): each.link_class for each in schedule.transfers}
    assert links == {
        (1, 0): plan_pb2.LINK_CLASS_SAME_RANK,
        (2, 1): plan_pb2.LINK_CLASS_SAME_NODE,
        (3, 2): plan_pb2.LINK_CLASS_SAME_RANK,
        (0, 3): plan_pb2.LINK_CLASS_SAME_NODE,
    }


async def test_way_back(server: Server) -> None:
    """Versions may be given in any order; what came comes back."""
    await server.create()
    await server.lead_to(0, 3, 1, 2)
    await server.lead_to(1, 2, 0, 3)
    there = await server.call(DIFF, diff(1, 2))
    back = await server.call(DIFF, diff(2, 1))

    assert [(c.slot, c.to_expert, c.from_expert) for c in there.changes] == [
        (c.slot, c.from_expert, c.to_expert) for c in back.changes
    ]
    assert back.transfers.parent_version == 2


async def test_no_difference(server: Server) -> None:
    """A plan does not differ from itself."""
    await server.create()
    await server.lead_to(0, 3, 1, 2)
    told = await server.call(DIFF, diff(1, 1))

    assert (len(told.changes), list(told.moved_slots_per_layer)) == (0, [0])
    assert len(told.transfers.transfers) == 0


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (diff(0, 7), grpc.StatusCode.NOT_FOUND, "PLAN_VERSION_UNKNOWN"),
        (diff(7, 0), grpc.StatusCode.NOT_FOUND, "PLAN_VERSION_UNKNOWN"),
        (diff(0, 0, "no/such"), grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_UNKNOWN"),
        (diff(0, 0, "nowhere"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_NAME"),
        (diff(2**63, 0), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        (diff(0, 2**63), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    ],
)
async def test_refused(server: Server, request_: Any, code: grpc.StatusCode, reason: str) -> None:
    """What does not exist cannot be compared."""
    await server.create()
    refusal = await server.refusal(DIFF, request_)

    assert (refusal.code, refusal.reason) == (code, reason)


async def test_other_shape(server: Server) -> None:
    """Plans for other ranks cannot be compared with those of today."""
    created = await server.create()
    await server.lead_to(0, 3, 1, 2)
    update = deployment_service_pb2.UpdateDeploymentRequest(
        name=builders.NAME,
        spec=messages.spec(topology=messages.topology(slots_per_rank=3)),
        etag=created.etag,
    )
    await server.call("DeploymentService/UpdateDeployment", update)
    refusal = await server.refusal(DIFF, diff(1, 0))

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "PLANS_NOT_COMPARABLE",
    )
    assert "version 1" in refusal.message


async def test_rank_that_is_lost(server: Server) -> None:
    """A plan from before a rank was lost can be compared with one from after it."""
    topology = messages.topology(ranks_per_node=3)
    created = await server.create(topology=topology)
    await server.lead_to(0, 1, 2, 3, 0, 1)
    update = deployment_service_pb2.UpdateDeploymentRequest(
        name=builders.NAME,
        spec=messages.spec(topology=messages.topology(ranks_per_node=3, masked_ranks=[1])),
        etag=created.etag,
    )
    await server.call("DeploymentService/UpdateDeployment", update)
    await server.lead_to(0, 1, -1, -1, 2, 3)
    told = await server.call(DIFF, diff(1, 2))

    assert list(told.moved_slots_per_layer) == [2]
    assert {each.target_slot for each in told.transfers.transfers} == {4, 5}


async def test_too_many_changes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that would be too long is refused, and says what to do instead."""
    monkeypatch.setattr(diffs, "_MAX_CHANGES", 3)
    await server.create()
    await server.lead_to(1, 2, 3, 0)
    refusal = await server.refusal(DIFF, diff(0, 1))

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "PLAN_TOO_LARGE",
    )
    assert "GetPlan" in refusal.message


async def test_too_many_calls(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap, a comparison is RESOURCE_EXHAUSTED and says when to try again."""
    monkeypatch.setattr(plans, "MAX_COMPUTES", 0)
    await server.create()
    refusal = await server.refusal(DIFF, diff(0, 0))

    assert (refusal.reason, refusal.retry_after_s) == ("SOLVER_BUSY", 1.0)
