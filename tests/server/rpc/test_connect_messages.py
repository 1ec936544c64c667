"""What a participant may say on Connect, good and bad, by raw messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from expertplane.v1 import placement_service_pb2 as pb, problem_pb2, tensor_pb2

from . import messages
from .messages import shaped, tensor


if TYPE_CHECKING:
    from .harness import Server


DIGEST = "ab" * 32
BAD_MESSAGES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "kind": ("load_report.kind", 7, {"load_report": messages.load_report(sequence=7, kind=0)}),
    "unknown kind": (
        "load_report.kind",
        7,
        {"load_report": messages.load_report(sequence=7, kind=9)},
    ),
    "scope": ("load_report.scope", 7, {"load_report": messages.load_report(sequence=7, scope=9)}),
    "no steps": (
        "load_report.steps_per_sample",
        7,
        {"load_report": messages.load_report(sequence=7, steps_per_sample=0)},
    ),
    "dtype": (
        "load_report.counts.dtype",
        7,
        {"load_report": messages.load_report(sequence=7, counts=tensor_pb2.Tensor())},
    ),
    "dimensions": (
        "load_report.counts.shape",
        7,
        {"load_report": messages.load_report([1.0, 2.0], sequence=7)},
    ),
    "very many dimensions": (
        "load_report.counts.shape",
        7,
        {"load_report": messages.load_report(sequence=7, counts=shaped([1] * 1_500_000))},
    ),
    "experts": (
        "load_report.counts.shape",
        7,
        {"load_report": messages.load_report([[1.0, 2.0]], sequence=7)},
    ),
    "length": (
        "load_report.counts.data",
        7,
        {"load_report": messages.load_report(sequence=7, counts=shaped([1, 1, 4], data=b"1"))},
    ),
    "allocation": (
        "load_report.counts.data",
        7,
        {"load_report": messages.load_report(sequence=7, counts=shaped([64, 256, 4096]))},
    ),
    "negative": (
        "load_report.counts.data",
        7,
        {"load_report": messages.load_report([[1, 2, 3, -4]], sequence=7)},
    ),
    "NaN": (
        "load_report.counts.data",
        7,
        {"load_report": messages.load_report([[1, 2, 3, float("nan")]], sequence=7)},
    ),
    "infinite": (
        "load_report.counts.data",
        7,
        {"load_report": messages.load_report([[1, 2, 3, float("inf")]], sequence=7)},
    ),
    "over 2^53": (
        "load_report.counts.data",
        7,
        {
            "load_report": messages.load_report(
                sequence=7, counts=tensor([[[0, 0, 0, 2**53 + 1]]], "int64")
            )
        },
    ),
    "unknown plan": (
        "load_report.plan_version",
        7,
        {
            "load_report": messages.load_report(
                sequence=7, kind=pb.LOAD_KIND_PHYSICAL, plan_version=3
            )
        },
    ),
    "second hello": ("message", 0, {"hello": messages.hello()}),
    "ack phase": ("ack.phase", 0, {"ack": pb.Ack(version=1, digest=DIGEST)}),
    "ack digest": (
        "ack.digest",
        0,
        {"ack": pb.Ack(version=1, digest="x", phase=pb.ACK_PHASE_APPLIED)},
    ),
    "ack version": (
        "ack.version",
        0,
        {"ack": pb.Ack(version=9, digest=DIGEST, phase=pb.ACK_PHASE_APPLIED)},
    ),
    "heartbeat": (
        "heartbeat.applied.digest",
        0,
        {"heartbeat": pb.ParticipantHeartbeat(applied=pb.PlanRef(version=1))},
    ),
    "nack": ("nack.version", 0, {"nack": pb.Nack(version=2**63)}),
}


@pytest.mark.parametrize("case", BAD_MESSAGES)
async def test_bad_message(server: Server, case: str) -> None:
    """A bad message is refused by name; the stream lives and the state is as before."""
    field, sequence, message = BAD_MESSAGES[case]
    await server.create()
    stream = await server.join()
    before = server.state(), await server.get()
    await stream.say(**message)

    refused = await stream.hear("refused")
    assert (refused.sequence, refused.problem.field) == (sequence, field)
    assert refused.problem.code == problem_pb2.PROBLEM_CODE_INVALID_ARGUMENT
    assert refused.problem.message.startswith("Expected ")
    assert (server.state(), await server.get()) == before
    await stream.say(load_report=messages.load_report(sequence=8))
    assert (await stream.hear("report_ack")).sequence == 8


async def test_unparsable_message(server: Server) -> None:
    """Bytes that do not parse are refused in band, before the Hello as well as after it."""
    await server.create()
    stream = server.connect()
    await stream.say_raw(b"\xff\xff\xff")

    assert (await stream.hear("refused")).problem.reason == "UNPARSABLE"
    await stream.say(hello=messages.hello())
    await stream.hear("welcome")
    await stream.say_raw(b"\x0a\xff")
    assert (await stream.hear("refused")).problem.reason == "UNPARSABLE"
    await stream.say(load_report=messages.load_report())
    await stream.hear("report_ack")


async def test_ack_of_a_version_that_was_never_made(server: Server) -> None:
    """Nobody can have staged, or applied, what was never made: refused in band, by name."""
    await server.create()
    stream = await server.join()
    for phase in (pb.ACK_PHASE_STAGED, pb.ACK_PHASE_APPLIED):
        await stream.say(ack=pb.Ack(version=1, digest=DIGEST, phase=phase))
        problem = (await stream.hear("refused")).problem
        assert (problem.field, problem.reason) == ("ack.version", "UNKNOWN_PLAN_VERSION")


async def test_kind_of_a_later_release(server: Server) -> None:
    """A message of a kind that this release does not know is passed over."""
    await server.create()
    stream = await server.join()
    # Field 15, a length-delimited value: no member of the oneof of this release.
    await stream.say_raw(b"\x7a\x01x")
    await stream.say(load_report=messages.load_report(sequence=3))

    assert (await stream.hear("report_ack")).sequence == 3


async def test_over_size_message(server: Server) -> None:
    """A message of more than 2 MiB ends the stream as RESOURCE_EXHAUSTED."""
    await server.create()
    stream = await server.join()
    await stream.say_raw(bytes(2 * 1024 * 1024 + 1))

    ending = await stream.end()
    assert ending is not None
    assert ending.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ending.reason == "MESSAGE_TOO_LARGE"


async def test_largest_message(server: Server) -> None:
    """A message of exactly 2 MiB is read."""
    await server.create()
    stream = await server.join()
    padding = pb.ConnectRequest(goodbye=pb.Goodbye()).SerializeToString()
    message = padding + b"\x7a" + _varint(2 * 1024 * 1024 - len(padding) - 5)
    await stream.say_raw(message + bytes(2 * 1024 * 1024 - len(message)))

    assert await stream.end() is None


async def test_refusals_are_counted(server: Server) -> None:
    """Refusals in band are counted by reason."""
    await server.create()
    stream = await server.join()
    await stream.say(load_report=messages.load_report([[1.0]]))
    await stream.hear("refused")
    count = server.metrics.registry.get_sample_value

    labels = {"reason": "INVALID_ARGUMENT"}
    assert count("expertplane_refused_messages_total", labels) == 1


def _varint(number: int) -> bytes:
    """Write a length in exactly four bytes."""
    parts = [number >> shift & 0x7F for shift in (0, 7, 14, 21)]
    return bytes([*(part | 0x80 for part in parts[:3]), parts[3]])
