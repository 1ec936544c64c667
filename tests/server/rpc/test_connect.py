"""PlacementService.Connect by raw messages: sessions, bad input in band, drains and removals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import placement_service_pb2 as pb, plan_service_pb2, problem_pb2
from expertplane.wire import decode_tensor
from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.rpc import placement
from expertplane_server.rpc.convert import participants
from expertplane_server.runtime.outbox import Outbox

from .. import builders
from . import messages
from .harness import PATIENCE_S
from .messages import tensor


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .harness import Server


async def test_session(server: Server) -> None:
    """Hello, Welcome; report, ack; commit, applied: the whole way of a plan."""
    await server.create()
    stream = server.connect()
    await stream.say(hello=messages.hello())

    welcome = await stream.hear("welcome")
    assert welcome.verdict == pb.PLAN_VERDICT_NO_PLAN_YET
    assert welcome.is_elected_reporter
    commit = await server.publish(stream, 0, 2, 1, 3, step=9)
    phy2log = decode_tensor(commit.plan.phy2log, max_shape=(1, 4))
    assert (commit.version, phy2log.tolist()) == (1, [[0, 2, 1, 3]])
    await stream.say(goodbye=pb.Goodbye(reason="done"))
    assert await stream.end() is None
    assert (await server.get()).status.num_participants == 0


async def test_plan_was_stored_before_it_was_sent(server: Server) -> None:
    """A participant never sees a version that the store does not hold."""
    await server.create()
    stream = await server.join()
    server.solver.answer = builders.solution()
    server.store.failing.add("publish")
    await stream.say(load_report=messages.load_report())
    await stream.hear("report_ack")
    await asyncio.to_thread(server.store.has_failed.wait, PATIENCE_S)
    server.store.failing.clear()
    await stream.say(load_report=messages.load_report(first_step=1, sequence=2))
    await stream.hear("report_ack")

    commit = await stream.hear("commit")
    assert commit.version == 1
    assert server.store.plan(builders.NAME, 1).digest == commit.digest
    request = plan_service_pb2.ExplainDecisionsRequest(deployment=builders.NAME)
    decisions = (await server.call("PlanService/ExplainDecisions", request)).decisions
    assert [each.plan_version for each in decisions] == [0, 1]


async def test_nonces_and_epoch(server: Server) -> None:
    """Every message carries the term and the next nonce of its stream."""
    await server.create()
    call = server.connect()._call
    await call.write(pb.ConnectRequest(hello=messages.hello()).SerializeToString())
    answers = [pb.ConnectResponse.FromString(await call.read()) for _ in range(2)]
    call.cancel()

    assert [(answer.epoch, answer.nonce) for answer in answers] == [(1, 1), (1, 2)]


async def test_half_close_is_the_end(server: Server) -> None:
    """A participant that closes its side without a Goodbye is gone; the stream ends in order."""
    await server.create()
    stream = await server.join()
    await stream.half_close()

    assert await stream.end() is None
    assert (await server.get()).status.num_participants == 0


@pytest.mark.parametrize(
    "first",
    [
        {"load_report": messages.load_report()},
        {"heartbeat": pb.ParticipantHeartbeat()},
        {"goodbye": pb.Goodbye()},
        {},
    ],
    ids=["report", "heartbeat", "goodbye", "nothing"],
)
async def test_first_message_is_no_hello(server: Server, first: dict[str, Any]) -> None:
    """A stream that does not open with a Hello ends as INVALID_ARGUMENT."""
    await server.create()
    stream = server.connect()
    await stream.say(**first)

    ending = await stream.end()
    assert ending is not None
    assert ending.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (ending.reason, ending.fields) == ("HELLO_EXPECTED", ["message"])


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("hello.deployment", {"deployment": "nowhere"}),
        ("hello.participant_id", {"participant_id": "\n"}),
        ("hello.incarnation", {"incarnation": "x"}),
        ("hello.ranks", {"ranks": []}),
        ("hello.ranks", {"ranks": [0, 7]}),
        ("hello.highest_version", {"highest_version": 2**64 - 1}),
        ("hello.highest_version", {"highest_version": 2**63 - 1}),
        ("hello.initial_phy2log", {"initial_phy2log": tensor([[0, 0, 0, 0]], "int16")}),
        ("hello.initial_phy2log.shape", {"initial_phy2log": tensor([0], "int16")}),
    ],
)
async def test_bad_hello(server: Server, field: str, changes: dict[str, Any]) -> None:
    """A bad Hello ends its stream with the field's name and changes nothing."""
    await server.create()
    before = server.state()
    stream = server.connect()
    await stream.say(hello=messages.hello(**changes))

    ending = await stream.end()
    assert ending is not None
    assert (ending.code, ending.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    assert server.state() == before
    assert (await server.get()).status.num_participants == 0


async def test_good_hello_behind_a_bad_one(server: Server) -> None:
    """A stream that has failed takes no second Hello: it would push the good stream out."""
    await server.create()
    good = await server.join()
    taken = []

    async def requests() -> AsyncIterator[bytes]:
        again = messages.hello(incarnation=builders.incarnation(2))
        for number, hello in enumerate([messages.hello(ranks=[]), again]):
            taken.append(number)
            yield pb.ConnectRequest(hello=hello).SerializeToString()

    outbox = Outbox()
    await placement._Session(99, outbox, server.directory, 5.0).read(requests())

    assert taken == [0]
    with pytest.raises(InvalidArgumentError):
        await outbox.take()
    await good.say(load_report=messages.load_report())
    await good.hear("report_ack")


async def test_no_hello(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that says nothing at all ends when its time for a Hello is up."""
    monkeypatch.setattr(placement, "_HELLO_TIMEOUT_S", 0.0)

    ending = await server.connect().end()
    assert ending is not None
    assert (ending.code, ending.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "HELLO_EXPECTED")


async def test_too_many_streams(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap, a stream is RESOURCE_EXHAUSTED; one that ends makes room."""
    monkeypatch.setattr(limits, "MAX_STREAMS", 1)
    await server.create()
    first = await server.join()

    ending = await server.connect().end()
    assert ending is not None
    assert (ending.code, ending.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_STREAMS",
    )
    await first.half_close()
    await first.end()
    await server.join()


async def test_reader_with_a_defect(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect in reading ends its stream as UNAVAILABLE, counted and logged, not in silence."""
    await server.create()
    stream = await server.join()

    def fail(raw: bytes) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(participants, "parse_request", fail)
    await stream.say(heartbeat=pb.ParticipantHeartbeat())

    ending = await stream.end()
    assert ending is not None
    assert (ending.code, ending.reason) == (grpc.StatusCode.UNAVAILABLE, "DEFECT")
    assert server.metrics.registry.get_sample_value("expertplane_core_errors_total") == 1
    assert "ZeroDivisionError: oops" in caplog.text


async def test_stale_generation(server: Server) -> None:
    """An engine of another topology is told so as FAILED_PRECONDITION."""
    await server.create()
    stream = server.connect()
    await stream.say(hello=messages.hello(generation=7))

    ending = await stream.end()
    assert ending is not None
    assert ending.code is grpc.StatusCode.FAILED_PRECONDITION
    assert ending.reason == "STALE_GENERATION"


async def test_ranks_of_another(server: Server) -> None:
    """Ranks that another live participant owns are ALREADY_EXISTS."""
    await server.create()
    await server.join()
    stream = server.connect()
    await stream.say(hello=messages.hello(participant_id="b", incarnation=builders.incarnation(2)))

    ending = await stream.end()
    assert ending is not None
    assert (ending.code, ending.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RANKS_TAKEN")


async def test_superseded(server: Server) -> None:
    """The latest Hello wins; the stream before it ends, and its process stays out for good."""
    await server.create()
    old = await server.join()
    await server.join(incarnation=builders.incarnation(2))

    ending = await old.end()
    assert ending is not None
    assert (ending.code, ending.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SUPERSEDED")
    again = server.connect()
    await again.say(hello=messages.hello())
    ending = await again.end()
    assert ending is not None
    assert (ending.code, ending.fields) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        ["hello.incarnation"],
    )


async def test_unknown_deployment_that_appears(server: Server) -> None:
    """A participant of an unknown deployment is told so, and welcomed when it appears."""
    stream = server.connect()
    await stream.say(hello=messages.hello())

    assert (await stream.hear("welcome")).verdict == pb.PLAN_VERDICT_DEPLOYMENT_UNKNOWN
    await stream.say(load_report=messages.load_report(sequence=4))
    refused = await stream.hear("refused")
    assert (refused.sequence, refused.problem.code) == (4, problem_pb2.PROBLEM_CODE_NOT_FOUND)
    await server.create()
    assert (await stream.hear("welcome")).verdict == pb.PLAN_VERDICT_NO_PLAN_YET
    await stream.say(load_report=messages.load_report(sequence=5))
    assert (await stream.hear("report_ack")).sequence == 5


async def test_deleted_while_connected(server: Server) -> None:
    """When its deployment is deleted, a participant is told, and welcomed by the successor."""
    await server.create()
    stream = await server.join()
    await server.delete()

    assert (await stream.hear("welcome")).verdict == pb.PLAN_VERDICT_DEPLOYMENT_UNKNOWN
    await stream.say(heartbeat=pb.ParticipantHeartbeat())
    await stream.say(load_report=messages.load_report(sequence=4))
    assert (await stream.hear("refused")).problem.reason == "DEPLOYMENT_UNKNOWN"
    await server.create()
    assert (await stream.hear("welcome")).verdict == pb.PLAN_VERDICT_NO_PLAN_YET
    assert (await server.get()).status.num_participants == 1


async def test_ends_while_the_deployment_is_unknown(server: Server) -> None:
    """A participant that gives up waiting leaves nothing behind."""
    stream = server.connect()
    await stream.say(hello=messages.hello())
    await stream.hear("welcome")
    await stream.half_close()

    assert await stream.end() is None
    await server.create()
    assert (await server.get()).status.num_participants == 0


async def test_restored_backup(server: Server) -> None:
    """A participant that has seen more raises both counters, and hears the new term."""
    await server.create()
    call = server.connect()._call
    hello = messages.hello(highest_version=40, highest_epoch=7)
    await call.write(pb.ConnectRequest(hello=hello).SerializeToString())
    answer = pb.ConnectResponse.FromString(await call.read())
    call.cancel()

    assert (answer.epoch, answer.WhichOneof("message")) == (8, "welcome")
    assert (server.store.epoch, server.store.deployments()[0].head) == (8, 40)
    status = (await server.get()).status
    assert (status.epoch, status.head_version) == (8, 40)


async def test_counters_that_cannot_be_raised(server: Server) -> None:
    """Without durable counters there is no Welcome: the stream ends as UNAVAILABLE."""
    await server.create()
    server.store.failing.add("raise_counters")
    stream = server.connect()
    await stream.say(hello=messages.hello(highest_version=40))

    ending = await stream.end()
    assert ending is not None
    assert ending.code is grpc.StatusCode.UNAVAILABLE
    server.store.failing.clear()
    await server.join(highest_version=40)
    assert server.store.deployments()[0].head == 40


async def test_drain(server: Server) -> None:
    """A drain ends every stream, told or waiting, and lets nobody new in."""
    await server.create()
    member = await server.join()
    waiting = await server.join(deployment="no/such")
    server.directory.drain(2.5)

    assert (await member.hear("drain")).reconnect_window_s == 2.5
    assert await member.end() is None
    for stream in (waiting, server.connect()):
        ending = await stream.end()
        assert ending is not None
        assert (ending.code, ending.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_hellos_are_counted(server: Server) -> None:
    """Every Hello is counted by what became of it, also without a deployment."""
    unknown = await server.join(deployment="no/such")
    await server.create()
    await server.join()
    for bad in (
        messages.hello(ranks=[]),
        messages.hello(generation=7, participant_id="b"),
    ):
        stream = server.connect()
        await stream.say(hello=bad)
        await stream.end()
    unknown.cancel()

    counts = {
        outcome: server.count("hellos_total", outcome=outcome)
        for outcome in ("deployment_unknown", "no_plan_yet", "refused")
    }
    assert counts == {"deployment_unknown": 1, "no_plan_yet": 1, "refused": 2}
