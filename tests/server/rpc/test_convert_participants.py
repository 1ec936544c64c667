"""The participants' messages: what becomes an event, what is refused, what is answered."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, strategies as st

from expertplane.v1 import placement_service_pb2 as pb, problem_pb2, tensor_pb2
from expertplane_server.core import events as ev
from expertplane_server.core.errors import (
    InvalidArgumentError,
    ServiceError,
)
from expertplane_server.core.plan import PlanRef
from expertplane_server.rpc.convert import participants as convert

from .. import builders
from . import messages
from .messages import shaped, tensor


DIGEST = "ab" * 32


def test_hello() -> None:
    """A Hello is read field by field; the incarnation is put into its canonical form."""
    message = messages.hello(
        incarnation=builders.incarnation(7).upper(),
        generation=2,
        applied=pb.PlanRef(version=3, digest=DIGEST),
        highest_version=5,
        highest_epoch=6,
        initial_phy2log=tensor([[3, 2, 1, 0]], "int16"),
    )
    read = convert.hello_from(message, 9)

    assert (read.stream, read.participant, read.ranks) == (9, "a", (0, 1))
    assert read.incarnation == builders.incarnation(7)
    assert (read.engine_run_id, read.generation) == (builders.RUN, 2)
    assert read.applied == PlanRef(version=3, digest=DIGEST)
    assert (read.highest_version, read.highest_epoch) == (5, 6)
    assert read.initial_phy2log is not None
    assert read.initial_phy2log.dtype == np.int32
    assert read.initial_phy2log.tolist() == [[3, 2, 1, 0]]


def test_hello_without_start_placement() -> None:
    """A Hello need not tell the start placement, nor a plan."""
    read = convert.hello_from(messages.hello(), 9)

    assert (read.initial_phy2log, read.applied) == (None, PlanRef())


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("hello.participant_id", {"participant_id": ""}),
        ("hello.participant_id", {"participant_id": "a b"}),
        ("hello.participant_id", {"participant_id": "x" * 129}),
        ("hello.participant_id", {"participant_id": "a\n"}),
        ("hello.engine_run_id", {"engine_run_id": ""}),
        ("hello.engine_run_id", {"engine_run_id": "\u00fc"}),
        ("hello.incarnation", {"incarnation": ""}),
        ("hello.incarnation", {"incarnation": "1234"}),
        ("hello.ranks", {"ranks": []}),
        ("hello.ranks", {"ranks": [1, 0]}),
        ("hello.ranks", {"ranks": [1, 1]}),
        ("hello.ranks", {"ranks": list(range(4097))}),
        ("hello.highest_version", {"highest_version": 2**63}),
        ("hello.highest_epoch", {"highest_epoch": 2**64 - 1}),
        ("hello.applied.version", {"applied": pb.PlanRef(version=2**63, digest=DIGEST)}),
        ("hello.applied.digest", {"applied": pb.PlanRef(version=1)}),
        ("hello.applied.digest", {"applied": pb.PlanRef(version=1, digest=DIGEST.upper())}),
        ("hello.staged.digest", {"staged": pb.PlanRef(version=1, digest="x")}),
        ("hello.staged.version", {"staged": pb.PlanRef(version=2**63, digest=DIGEST)}),
        ("hello.max_staged_bytes", {"max_staged_bytes": 2**63}),
        ("hello.initial_phy2log.dtype", {"initial_phy2log": tensor([[0.0]])}),
        ("hello.initial_phy2log.dtype", {"initial_phy2log": tensor_pb2.Tensor()}),
        ("hello.initial_phy2log.shape", {"initial_phy2log": tensor([0, 1], "int32")}),
        (
            "hello.initial_phy2log.shape",
            {"initial_phy2log": shaped([0, 4], tensor_pb2.D_TYPE_INT16)},
        ),
        (
            "hello.initial_phy2log.shape",
            {"initial_phy2log": shaped([257, 4], tensor_pb2.D_TYPE_INT16)},
        ),
        (
            "hello.initial_phy2log.data",
            {"initial_phy2log": shaped([1, 4], tensor_pb2.D_TYPE_INT16, b"1234567")},
        ),
        ("hello.initial_phy2log.data", {"initial_phy2log": tensor([[4096]], "int16")}),
        ("hello.initial_phy2log.data", {"initial_phy2log": tensor([[2**40]], "int64")}),
        ("hello.initial_phy2log.data", {"initial_phy2log": tensor([[-2]], "int16")}),
    ],
)
def test_bad_hello(field: str, changes: dict[str, Any]) -> None:
    """A field of a Hello that breaks its rule is refused by name."""
    with pytest.raises(InvalidArgumentError) as refusal:
        convert.hello_from(messages.hello(**changes), 1)

    assert refusal.value.field == field


def test_bad_deployment_name() -> None:
    """A Hello must name its deployment."""
    with pytest.raises(InvalidArgumentError) as refusal:
        convert.deployment_from(messages.hello(deployment="nowhere"))

    assert refusal.value.field == "hello.deployment"


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "float32", "float64"])
def test_report(dtype: str) -> None:
    """A report is read field by field, its counts in any of the five types."""
    message = messages.load_report(
        sequence=2**64 - 1,
        plan_version=4,
        first_step=2**62,
        steps_per_sample=16,
        kind=pb.LOAD_KIND_PHYSICAL,
        scope=pb.LOAD_SCOPE_DEPLOYMENT,
        counts=tensor([[[4, 3, 2, 1]]], dtype),
    )
    read = convert.report_from(message, 9)

    assert (read.stream, read.sequence, read.plan_version) == (9, 2**64 - 1, 4)
    assert (read.first_step, read.steps_per_sample) == (2**62, 16)
    assert (read.kind, read.scope) == (ev.LoadKind.PHYSICAL, ev.LoadScope.DEPLOYMENT)
    assert read.counts.tolist() == [[[4, 3, 2, 1]]]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("kind", {"kind": pb.LOAD_KIND_UNSPECIFIED}),
        ("kind", {"kind": 3}),
        ("scope", {"scope": pb.LOAD_SCOPE_UNSPECIFIED}),
        ("scope", {"scope": -1}),
        ("steps_per_sample", {"steps_per_sample": 0}),
        ("plan_version", {"plan_version": 2**63}),
        ("first_step", {"first_step": 2**63}),
        ("counts.dtype", {"counts": None}),
        ("counts.dtype", {"counts": shaped([1, 1, 1], 6, b"12345678")}),
        ("counts.dtype", {"counts": shaped([1, 1, 1], -1, b"12345678")}),
        ("counts.shape", {"counts": tensor([[1.0]])}),
        ("counts.shape", {"counts": shaped([])}),
        ("counts.shape", {"counts": shaped([0, 1, 4])}),
        ("counts.shape", {"counts": shaped([65, 1, 4])}),
        ("counts.shape", {"counts": shaped([1, 257, 4])}),
        ("counts.shape", {"counts": shaped([1, 1, 4097])}),
        ("counts.shape", {"counts": shaped([2**32 - 1] * 3)}),
        ("counts.data", {"counts": shaped([64, 256, 4096])}),
        ("counts.data", {"counts": shaped([1, 1, 1], data=b"1234567")}),
        ("counts.data", {"counts": shaped([1, 1, 1], data=b"123456789")}),
        ("counts.data", {"counts": tensor([[[1.0, -1.0]]])}),
        ("counts.data", {"counts": tensor([[[1, -1]]], "int16")}),
        ("counts.data", {"counts": tensor([[[1.0, float("nan")]]])}),
        ("counts.data", {"counts": tensor([[[1.0, float("inf")]]], "float32")}),
        ("counts.data", {"counts": tensor([[[float("-inf"), 1.0]]])}),
        ("counts.data", {"counts": tensor([[[2**53 + 1]]], "int64")}),
        ("counts.data", {"counts": tensor([[[2.0**54]]], "float32")}),
        ("counts.data", {"counts": tensor([[[-(2**63)]]], "int64")}),
        # A signalling NaN.
        ("counts.data", {"counts": shaped([1, 1, 1], data=struct.pack("<Q", 0x7FF0000000000001))}),
    ],
)
def test_bad_report(field: str, changes: dict[str, Any]) -> None:
    """A field of a report that breaks its rule is refused by name."""
    with pytest.raises(InvalidArgumentError) as refusal:
        convert.report_from(messages.load_report(**changes), 1)

    assert refusal.value.field == f"load_report.{field}"


@pytest.mark.parametrize("dtype", ["int64", "float32", "float64"])
def test_largest_count(dtype: str) -> None:
    """2^53 tokens are a count."""
    counts = convert.report_from(messages.load_report(counts=tensor([[[2**53]]], dtype)), 1).counts

    assert counts.tolist() == [[[2**53]]]


def test_offending_count_is_named() -> None:
    """The refusal names the first offending index and its value, and not the others."""
    with pytest.raises(InvalidArgumentError) as refusal:
        convert.report_from(messages.load_report([[1.0, 2.0], [-3.0, -4.0]]), 1)

    expected = "Expected finite counts from 0 to 2^53, got -3.0 at [0, 1, 0]."
    assert refusal.value.message == expected


def test_refusal_of_a_long_shape_is_short() -> None:
    """A refusal of a shape with a million dimensions does not repeat them."""
    with pytest.raises(InvalidArgumentError) as refusal:
        convert.report_from(messages.load_report(counts=shaped([1] * 10**6)), 1)

    assert refusal.value.message == "Expected 3 dimensions, got 1000000."


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (pb.ACK_PHASE_STAGED, ev.AckPhase.STAGED),
        (pb.ACK_PHASE_APPLIED, ev.AckPhase.APPLIED),
    ],
)
def test_ack(phase: Any, expected: ev.AckPhase) -> None:
    """An Ack is read field by field."""
    message = pb.Ack(version=4, digest=DIGEST, phase=phase, step=70)

    assert convert.ack_from(message, 9) == ev.Ack(
        stream=9, ref=PlanRef(version=4, digest=DIGEST), phase=expected, step=70
    )


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("ack.phase", {"phase": 0}),
        ("ack.phase", {"phase": 3}),
        ("ack.version", {"version": 2**63}),
        ("ack.step", {"step": 2**63}),
        ("ack.digest", {"digest": "ab"}),
        ("ack.digest", {"digest": "zz" * 32}),
        ("ack.digest", {"digest": DIGEST + "\n"}),
    ],
)
def test_bad_ack(field: str, changes: dict[str, Any]) -> None:
    """A field of an Ack that breaks its rule is refused by name."""
    fields = {"version": 4, "digest": DIGEST, "phase": pb.ACK_PHASE_APPLIED, **changes}
    with pytest.raises(InvalidArgumentError) as refusal:
        convert.ack_from(pb.Ack(**fields), 1)

    assert refusal.value.field == field


def test_nack() -> None:
    """A Nack is read field by field; its words are cut to a bounded length."""
    problem = problem_pb2.Problem(message="x" * 5000, reason="y" * 5000)
    message = pb.Nack(version=4, problem=problem, is_transient=True)

    assert convert.nack_from(message, 9) == ev.Nack(
        stream=9, version=4, message="x" * 1024, is_transient=True, reason="y" * 64
    )


def test_hello_with_a_staged_plan() -> None:
    """What is staged, and the room for it, come with a Hello; version 0 is nothing to stage."""
    staged = pb.PlanRef(version=4, digest=DIGEST)
    hello = convert.hello_from(messages.hello(staged=staged, max_staged_bytes=2**40), 1)
    nothing = convert.hello_from(messages.hello(staged=pb.PlanRef()), 1)

    assert hello.staged == PlanRef(version=4, digest=DIGEST)
    assert hello.max_staged_bytes == 2**40
    assert (nothing.staged, nothing.max_staged_bytes) == (None, 0)


def test_bad_nack() -> None:
    """A version that no store can hold is refused."""
    with pytest.raises(InvalidArgumentError) as refusal:
        convert.nack_from(pb.Nack(version=2**63), 1)

    assert refusal.value.field == "nack.version"


def test_start_placement_needs_no_digest() -> None:
    """Version 0 is the start placement, whatever digest comes with it."""
    assert convert.ref_from(pb.PlanRef(version=0, digest="x"), "at") == PlanRef()


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (convert.hello_from, pb.Hello),
        (convert.report_from, pb.LoadReport),
        (convert.ack_from, pb.Ack),
        (convert.nack_from, pb.Nack),
    ],
)
@given(raw=st.binary(max_size=300))
def test_any_bytes(read: Any, kind: Any, raw: bytes) -> None:
    """Whatever parses is read, or refused as a service error; nothing else is raised."""
    message = kind()
    with suppress(DecodeError, ServiceError):
        message.MergeFromString(raw)
        read(message, 1)


def test_unparsable() -> None:
    """Bytes that do not parse are refused, and counted."""
    with pytest.raises(InvalidArgumentError, match="got 3 bytes that do not parse") as refusal:
        convert.parse_request(b"\xff\xff\xff")

    assert refusal.value.reason == "UNPARSABLE"
