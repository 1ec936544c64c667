"""The coordinated roll-out over the wire: staged by all, then switched to by all, or by none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from expertplane.v1 import (
    decision_pb2,
    deployment_pb2,
    placement_service_pb2 as pb,
    plan_pb2,
    plan_service_pb2,
    problem_pb2,
)

from .. import builders
from . import messages
from .harness import Server


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .harness import Stream


GET = "PlanService/GetPlan"
FIRST, SECOND = (0, 3, 1, 2), (1, 2, 0, 3)


@pytest.fixture
async def coordinated() -> AsyncIterator[Server]:
    """A server with a coordinated deployment."""
    async with Server() as server:
        rollout = deployment_pb2.RolloutParameters(mode=deployment_pb2.ROLLOUT_MODE_COORDINATED)
        await server.create(rollout=rollout)
        yield server


async def join(server: Server) -> tuple[Stream, Stream]:
    """Open the streams of two participants, one for each rank."""
    first = await server.join(participant_id="a", ranks=[0])
    second = await server.join(participant_id="b", ranks=[1], incarnation=builders.incarnation(2))
    return first, second


async def answer(stream: Stream, of: Any, phase: Any) -> None:
    """Say that a plan is staged or applied."""
    await stream.say(ack=pb.Ack(version=of.version, digest=of.digest, phase=phase))


async def plan_of(server: Server, alias: Any) -> Any:
    """Return the metadata of the plan in a role."""
    request = plan_service_pb2.GetPlanRequest(deployment=builders.NAME, alias=alias)
    return (await server.call(GET, request)).plan.metadata


async def latest_decision(server: Server) -> Any:
    """Return the latest decision."""
    return (await server.get()).status.last_decision


async def test_whole_way(coordinated: Server) -> None:
    """All stage before any is told to switch; the commit is durable by then."""
    server = coordinated
    streams = await join(server)
    plan = await server.lead_to(*FIRST)
    for stream in streams:
        stage = await stream.hear("stage")
        assert (stage.plan.metadata.version, stage.deadline_s) == (1, 600)
    status = (await server.get()).status
    assert (status.staging_version, status.committed_version, status.head_version) == (1, 0, 1)
    await answer(streams[0], plan, pb.ACK_PHASE_STAGED)
    # The next answer on the stream shows that the Ack before it committed nothing.
    await streams[0].say(load_report=messages.load_report(counts=messages.tensor([[[1.0]]])))
    assert (await streams[0].hear()).problem.field.startswith("load_report")
    await answer(streams[1], plan, pb.ACK_PHASE_STAGED)
    for stream in streams:
        commit = await stream.hear("commit")
        assert (commit.version, commit.digest) == (1, plan.digest)
        assert not commit.HasField("plan")
        await answer(stream, plan, pb.ACK_PHASE_APPLIED)
        await stream.say(goodbye=pb.Goodbye())
        await stream.end()

    assert (await plan_of(server, plan_service_pb2.PLAN_ALIAS_COMMITTED)).state == (
        plan_pb2.PLAN_STATE_APPLIED
    )
    for phase in ("staged", "applied"):
        assert server.count("acks_total", deployment=builders.NAME, phase=phase) == 2
    for outcome in ("published", "committed", "applied"):
        assert server.count("plans_total", deployment=builders.NAME, outcome=outcome) == 1
    milestones = ("staged", "committed", "applied")
    counts = [server.count("rollout_duration_seconds_count", milestone=m) for m in milestones]
    assert counts == [1, 1, 1]


async def test_refused_for_good(coordinated: Server) -> None:
    """What one refuses, all drop; the version is burned and nobody is sent that plan again."""
    server = coordinated
    streams = await join(server)
    await server.lead_to(*FIRST)
    for stream in streams:
        await stream.hear("stage")
    problem = problem_pb2.Problem(message="no room", reason="NO_ROOM")
    await streams[1].say(nack=pb.Nack(version=1, problem=problem))
    for stream in streams:
        abort = await stream.hear("abort")
        assert abort.version == 1
        assert "no room" in abort.reason

    assert (await latest_decision(server)).reason == decision_pb2.DECISION_REASON_FAILED_ROLLOUT
    latest = await plan_of(server, plan_service_pb2.PLAN_ALIAS_LATEST)
    assert (latest.version, latest.state) == (1, plan_pb2.PLAN_STATE_ABORTED)
    status = (await server.get()).status
    assert (status.staging_version, status.committed_version, status.head_version) == (0, 0, 1)
    assert server.count("nacks_total", deployment=builders.NAME, kind="permanent") == 1
    assert server.count("plans_total", deployment=builders.NAME, outcome="aborted") == 1
    request = plan_service_pb2.PublishPlanRequest(
        deployment=builders.NAME, phy2log=messages.tensor([FIRST], "int32")
    )
    assert (await server.refusal("PlanService/PublishPlan", request)).reason == "PLAN_REFUSED"
    assert (await server.lead_to(*SECOND)).version == 2


async def test_member_that_is_lost(coordinated: Server) -> None:
    """Without one of its members a roll-out is over."""
    server = coordinated
    first, second = await join(server)
    await server.lead_to(*FIRST)
    await first.hear("stage")
    second.cancel()

    assert (await first.hear("abort")).version == 1


async def test_roles_while_a_plan_is_staged(coordinated: Server) -> None:
    """The committed plan is what may be served with; the latest one is whatever was made last."""
    server = coordinated
    streams = await join(server)
    plan = await server.lead_to(*FIRST)
    for stream in streams:
        await stream.hear("stage")
        await answer(stream, plan, pb.ACK_PHASE_STAGED)
    for stream in streams:
        await stream.hear("commit")
        await answer(stream, plan, pb.ACK_PHASE_APPLIED)
        # Behind the answer to this, the Ack has been handled.
        await stream.say(load_report=messages.load_report(counts=messages.tensor([[[1.0]]])))
        await stream.hear("refused")
    await server.lead_to(*SECOND)

    committed = await plan_of(server, plan_service_pb2.PLAN_ALIAS_COMMITTED)
    latest = await plan_of(server, plan_service_pb2.PLAN_ALIAS_LATEST)
    assert (committed.version, committed.state) == (1, plan_pb2.PLAN_STATE_APPLIED)
    assert (latest.version, latest.state) == (2, plan_pb2.PLAN_STATE_STAGING)
    watch = server.watch()
    assert (await watch.next()).plan.metadata.version == 1
    watch.cancel()


async def test_planner_that_was_gone(coordinated: Server) -> None:
    """A roll-out that a crash has cut short is given up before anything else happens."""
    server = coordinated
    streams = await join(server)
    await server.lead_to(*FIRST)
    await streams[0].hear("stage")
    await server.directory.stop()
    await server.directory.load()
    again = await server.join(participant_id="a", ranks=[0])

    assert (await server.get()).status.staging_version == 0
    latest = await plan_of(server, plan_service_pb2.PLAN_ALIAS_LATEST)
    assert latest.state == plan_pb2.PLAN_STATE_ABORTED
    again.cancel()


async def test_hello_of_a_member_that_has_staged(coordinated: Server) -> None:
    """Who comes back with what is not being staged any more is told to drop it."""
    server = coordinated
    streams = await join(server)
    plan = await server.lead_to(*FIRST)
    await streams[0].hear("stage")
    streams[1].cancel()
    await streams[0].hear("abort")
    staged = pb.PlanRef(version=1, digest=plan.digest)
    back = server.connect()
    hello = messages.hello(
        participant_id="b", ranks=[1], incarnation=builders.incarnation(2), staged=staged
    )
    await back.say(hello=hello)

    kinds = {type(await back.hear()).__name__ for _ in range(2)}
    assert kinds == {"Welcome", "Abort"}
