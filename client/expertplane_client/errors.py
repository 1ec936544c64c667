"""Everything that the client raises.

ExpertplaneError
|-- InputError                    an argument breaks a rule (also a ValueError)
|-- FormatError                   a file is not what it should be (also a ValueError)
|-- CacheError                    the plan on disk cannot be read or written
|-- ProtocolError                 the planner's answer breaks the contract
|-- PlanUnacceptableError         the ranks can never serve with a plan
`-- CallError                     the planner refused a call, or could not be asked
    |-- InvalidArgumentError
    |-- NotFoundError
    |-- AlreadyExistsError
    |-- AbortedError
    |-- FailedPreconditionError
    |-- ResourceExhaustedError
    |-- UnavailableError
    |-- DeadlineExceededError
    |-- CallCancelledError
    |-- PermissionDeniedError
    |-- UnauthenticatedError
    |-- UnimplementedError
    `-- PlannerDefectError        UNKNOWN, INTERNAL and whatever else no planner should answer

Every message states the expectation first and then the offending value. `reason` is the contract
for machines, the message is for people.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from grpc import StatusCode


if TYPE_CHECKING:
    from collections.abc import Mapping


class ExpertplaneError(Exception):
    """Base of every error that the client raises on purpose."""


class InputError(ExpertplaneError, ValueError):
    """An argument breaks a rule that can be checked without asking the planner."""


class FormatError(ExpertplaneError, ValueError):
    """A file cannot be read as what it should be, or cannot be written."""


class CacheError(ExpertplaneError):
    """The last known good plan on disk is damaged, or could not be written."""


class ProtocolError(ExpertplaneError):
    """An answer of the planner breaks the contract; a defect of the planner or of the wire."""


class PlanUnacceptableError(ExpertplaneError):
    """The ranks can never serve with a plan: raised by an engine that stages or applies one.

    The planner is told so, and sends that plan to this start of the participant no more. Anything
    else that an engine raises asks for another try.
    """


def told(error: BaseException) -> str:
    """Returns an error as another sentence quotes it: ours speak for themselves."""
    text = str(error) if isinstance(error, ExpertplaneError) else repr(error)
    return text.rstrip(".")


class CallError(ExpertplaneError):
    """A call ended with another status than OK.

    Attributes:
        code: The gRPC status.
        message: The sentence for people.
        reason: UPPER_SNAKE_CASE constant of the planner; empty when none came along.
        field: Path of the offending field of the request; empty when no single one is at fault.
        method: The method that was called, such as `/expertplane.v1.PlanService/GetPlan`.
    """

    def __init__(
        self, message: str, *, code: StatusCode, reason: str = "", field: str = "", method: str
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.field = field
        self.method = method


class InvalidArgumentError(CallError):
    """The request breaks a rule of its own; change it."""


class NotFoundError(CallError):
    """The request names a deployment or a version that does not exist."""


class AlreadyExistsError(CallError):
    """The name, or the ranks, belong to another."""


class AbortedError(CallError):
    """The request was written against a state that has moved on; read again, then retry."""


class FailedPreconditionError(CallError):
    """The planner's present state forbids the request."""


class ResourceExhaustedError(CallError):
    """A limit is reached; retry later or send less."""


class UnavailableError(CallError):
    """The planner cannot be reached or is going away; retry with back-off."""


class DeadlineExceededError(CallError):
    """No answer came in time; whether the planner acted is not known."""


class CallCancelledError(CallError):
    """The planner gave the call up, as when it shuts down; retry."""


class PermissionDeniedError(CallError):
    """The caller is known and may not do this."""


class UnauthenticatedError(CallError):
    """The caller is not known."""


class UnimplementedError(CallError):
    """This release of the planner does not serve the method."""


class PlannerDefectError(CallError):
    """A status that no planner answers on purpose; please report it."""


ERROR_BY_STATUS: Mapping[StatusCode, type[CallError]] = MappingProxyType(
    {
        StatusCode.CANCELLED: CallCancelledError,
        StatusCode.UNKNOWN: PlannerDefectError,
        StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
        StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
        StatusCode.NOT_FOUND: NotFoundError,
        StatusCode.ALREADY_EXISTS: AlreadyExistsError,
        StatusCode.PERMISSION_DENIED: PermissionDeniedError,
        StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
        StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
        StatusCode.ABORTED: AbortedError,
        StatusCode.OUT_OF_RANGE: PlannerDefectError,
        StatusCode.UNIMPLEMENTED: UnimplementedError,
        StatusCode.INTERNAL: PlannerDefectError,
        StatusCode.UNAVAILABLE: UnavailableError,
        StatusCode.DATA_LOSS: PlannerDefectError,
        StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    }
)
"""The error of every status but OK."""
