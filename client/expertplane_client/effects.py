"""What a participant's session wants done about a message of the planner, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from expertplane.v1 import problem_pb2

from .names import bare_name


if TYPE_CHECKING:
    from expertplane.v1 import placement_service_pb2 as placement_pb2

    from .errors import CallError
    from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why the planner refused something."""

    code: str
    """Kind of fault, such as "INVALID_ARGUMENT"."""

    reason: str
    """UPPER_SNAKE_CASE constant: the contract for machines."""

    field: str
    """Path of the offending field; empty when no single one is at fault."""

    message: str
    """For people: the expectation first, then the offending value."""

    @classmethod
    def from_message(cls, message: problem_pb2.Problem) -> Problem:
        """Returns the problem that a message carries."""
        return cls(
            code=bare_name(problem_pb2.ProblemCode, message.code),
            reason=message.reason,
            field=message.field,
            message=message.message,
        )

    @classmethod
    def from_error(cls, error: CallError) -> Problem:
        """Returns the problem that a planner ended a stream with."""
        return cls(
            code=error.code.name, reason=error.reason, field=error.field, message=error.message
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcomed:
    """The stream is open: reports may flow, at this cadence."""

    is_deployment_known: bool
    """Whether reports have anywhere to go yet; another Welcome follows when they have."""

    is_elected_reporter: bool
    """Whether reports of deployment scope are accepted from this participant."""

    heartbeat_interval_s: float
    """How often both sides send a heartbeat, in seconds."""

    report_interval_s: float
    """Shortest time between two load reports, in seconds."""

    max_samples_per_report: int
    """Largest number of samples in a report."""

    max_message_bytes: int
    """Largest message that the planner reads."""


@dataclass(frozen=True, slots=True)
class AdoptPlan:
    """The ranks may switch to this plan; tell the session when they have."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Fetch the plan's weights into spare buffers; tell the session when they are there."""

    plan: Plan

    deadline_s: float
    """The time left for it, in seconds."""


@dataclass(frozen=True, slots=True)
class Unstage:
    """Stop preparing a plan, and drop what is prepared of it."""

    version: int


@dataclass(frozen=True, slots=True)
class Send:
    """Hand the message to the stream."""

    request: placement_pb2.ConnectRequest


@dataclass(frozen=True, slots=True)
class Remember:
    """A higher version or epoch was seen: make the session's counters durable."""


@dataclass(frozen=True, slots=True)
class Acked:
    """The planner took a load report."""

    sequence: int


@dataclass(frozen=True, slots=True)
class RefusedReport:
    """The planner turned a load report down, or another message when the sequence is 0."""

    sequence: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class SetReportInterval:
    """Keep this much time between two load reports from now on."""

    interval_s: float


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The planner is going away: leave, and come back at a random time within the window."""

    window_s: float


Effect: TypeAlias = (
    Welcomed
    | AdoptPlan
    | StagePlan
    | Unstage
    | Send
    | Remember
    | Acked
    | RefusedReport
    | SetReportInterval
    | DrainRequested
)
