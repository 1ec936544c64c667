"""Refusals become status codes: one table, total."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from expertplane_server.core.errors import (
    ExhaustedError,
    InvalidArgumentError,
    ServiceError,
    UnavailableError,
)
from expertplane_server.rpc import status
from expertplane_server.store.base import StoreDamagedError


ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNIMPLEMENTED,
}


def _tree(kind: type[ServiceError]) -> list[type[ServiceError]]:
    """Return all classes below one."""
    below = [each for child in kind.__subclasses__() for each in (child, *_tree(child))]
    return sorted(set(below), key=lambda each: each.__name__)


def _make(kind: type[ServiceError]) -> ServiceError:
    if issubclass(kind, ExhaustedError):
        return kind("Expected less.", retry_after_s=1.5)
    return kind("Expected this.", field="a.b")


@pytest.mark.parametrize("kind", _tree(ServiceError), ids=lambda kind: kind.__name__)
def test_every_refusal_has_a_code(kind: type[ServiceError]) -> None:
    """Every class of the tree has a code that may reach a client, in both tables, and a reason."""
    error = _make(kind)

    assert status.status_code(error) in ALLOWED
    assert status.problem_code(error) != 0
    assert error.reason == kind.default_reason != ServiceError.default_reason


def test_tree_is_walked() -> None:
    """The walk finds leaves as well as branches."""
    assert {InvalidArgumentError, UnavailableError, StoreDamagedError} <= set(_tree(ServiceError))


def test_nearest_class_decides() -> None:
    """A store that cannot be read is an UNAVAILABLE service."""
    assert status.status_code(StoreDamagedError("m")) is grpc.StatusCode.UNAVAILABLE


def test_message_has_the_field_in_front() -> None:
    """People read the field first."""
    assert (
        status.status_message(InvalidArgumentError("Expected x.", field="f")) == "f: Expected x."
    )
    assert status.status_message(InvalidArgumentError("Expected x.")) == "Expected x."


def test_details() -> None:
    """The details carry code, reason, field and sentence for machines."""
    error = InvalidArgumentError("Expected x.", field="spec.topology", reason="BAD_SHAPE")
    told = status_pb2.Status.FromString(status.status_details(error))
    reason, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()

    assert (told.code, told.message) == (3, "spec.topology: Expected x.")
    assert len(told.details) == 2
    assert told.details[0].Unpack(reason)
    assert (reason.reason, reason.domain) == ("BAD_SHAPE", "expertplane")
    assert told.details[1].Unpack(violations)
    (violation,) = violations.field_violations
    assert (violation.field, violation.description) == ("spec.topology", "Expected x.")


def test_retry_delay() -> None:
    """A limit that is reached comes with the time to wait."""
    told = status_pb2.Status.FromString(
        status.status_details(ExhaustedError("Expected less.", retry_after_s=1.5))
    )
    retry = error_details_pb2.RetryInfo()

    assert told.details[1].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)
