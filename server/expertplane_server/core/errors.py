"""What the service refuses, and why.

    ServiceError
    +-- InvalidArgumentError      the input breaks a rule of its own
    +-- NotFoundError             it names something that does not exist
    +-- AlreadyExistsError        the name, or the ranks, belong to another
    +-- ConflictError             it was written against a state that has moved on
    +-- FailedPreconditionError   the present state forbids it
    +-- ExhaustedError            a limit is reached; try again later
    +-- UnservedError             this release does not serve it
    +-- UnavailableError          the service cannot answer now (draining, solver or store lost)

`reason` is the contract for machines, the message is for people. One table maps the tree to gRPC
status codes (`rpc.status`), another to problems in band.
"""

from __future__ import annotations


class ServiceError(Exception):
    """A refusal that the caller is told about.

    Args:
        message: one sentence, the expectation first, then the offending value.
        field: path of the offending field in the request; empty when no single field is at fault.
        reason: UPPER_SNAKE_CASE constant; the class supplies one when it is left out.
    """

    default_reason = "SERVICE_ERROR"

    def __init__(self, message: str, *, field: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.reason = reason or self.default_reason


class InvalidArgumentError(ServiceError):
    """The input breaks a rule of its own, whatever the state of the service."""

    default_reason = "INVALID_ARGUMENT"


class NotFoundError(ServiceError):
    """The input names a deployment or a version that does not exist."""

    default_reason = "NOT_FOUND"


class AlreadyExistsError(ServiceError):
    """What the input claims belongs to another."""

    default_reason = "ALREADY_EXISTS"


class ConflictError(ServiceError):
    """The input was written against a state that is no longer current."""

    default_reason = "CONFLICT"


class FailedPreconditionError(ServiceError):
    """The present state forbids what the input asks for."""

    default_reason = "FAILED_PRECONDITION"


class ExhaustedError(ServiceError):
    """A limit is reached, for now or for good.

    Args:
        message: one sentence, the limit first.
        retry_after_s: when another try is worth while, in seconds; None when it never is.
        reason: UPPER_SNAKE_CASE constant.
    """

    default_reason = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, *, retry_after_s: float | None, reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class UnservedError(ServiceError):
    """This release does not serve the request."""

    default_reason = "UNIMPLEMENTED"


class UnavailableError(ServiceError):
    """The service cannot answer now; the same request may succeed later."""

    default_reason = "UNAVAILABLE"
