"""Refusals to gRPC status codes and to problems in band: the one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from expertplane.v1 import problem_pb2
from expertplane_server.core import errors


if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "expertplane"
DETAILS_KEY = "grpc-status-details-bin"

STATUS_CODES: dict[type[errors.ServiceError], grpc.StatusCode] = {
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.ConflictError: grpc.StatusCode.ABORTED,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnservedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
}
_PROBLEM_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: problem_pb2.PROBLEM_CODE_INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND: problem_pb2.PROBLEM_CODE_NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: problem_pb2.PROBLEM_CODE_ALREADY_EXISTS,
    grpc.StatusCode.ABORTED: problem_pb2.PROBLEM_CODE_FAILED_PRECONDITION,
    grpc.StatusCode.FAILED_PRECONDITION: problem_pb2.PROBLEM_CODE_FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED: problem_pb2.PROBLEM_CODE_RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED: problem_pb2.PROBLEM_CODE_UNIMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: problem_pb2.PROBLEM_CODE_RESOURCE_EXHAUSTED,
}


def status_code(error: errors.ServiceError) -> grpc.StatusCode:
    """Returns the gRPC status code of a refusal, by its nearest class in the table."""
    return next(STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES)


def problem_code(error: errors.ServiceError) -> problem_pb2.ProblemCode:
    """Returns the in-band code of a refusal."""
    return _PROBLEM_CODES[status_code(error)]


def status_message(error: errors.ServiceError) -> str:
    """Returns the sentence for people, with the field in front."""
    return f"{error.field}: {error.message}" if error.field else error.message


def status_details(error: errors.ServiceError) -> bytes:
    """Returns the serialised google.rpc.Status with reason, field and retry delay."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.ExhaustedError) and error.retry_after_s is not None:
        nanos = int(error.retry_after_s * 1e9)
        delay = Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(
        code=status_code(error).value[0],
        message=status_message(error),
        details=map(_pack, details),
    )
    serialized: bytes = status.SerializeToString()
    return serialized


def _pack(message: Message) -> Any:
    """Wraps a detail."""
    packed = Any()
    packed.Pack(message)
    return packed
