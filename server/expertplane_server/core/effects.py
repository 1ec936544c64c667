"""What the core wants done, in order. The driver carries out one before it starts the next."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.errors import ServiceError
    from expertplane_server.core.plan import Decision, Plan, PlanDraft


class Verdict(enum.StrEnum):
    """The planner's opinion of the plan that a participant has."""

    UP_TO_DATE = "up_to_date"
    TAKE_THIS_PLAN = "take_this_plan"
    NO_PLAN_YET = "no_plan_yet"
    DEPLOYMENT_UNKNOWN = "deployment_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """Answers a Hello."""

    verdict: Verdict
    generation: int = 0
    plan: Plan | None = None
    is_elected_reporter: bool = False


@dataclass(frozen=True, slots=True)
class ReportAck:
    """Accepts a load report."""

    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Turns a message down."""

    sequence: int
    error: ServiceError


@dataclass(frozen=True, slots=True)
class Commit:
    """Permission to switch to the plan."""

    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerHeartbeat:
    """The planner's loop is alive."""

    head: int
    committed: int


@dataclass(frozen=True, slots=True)
class Drain:
    """This planner is going away."""

    reconnect_window_s: float


Message = Welcome | ReportAck | Refused | Commit | PlannerHeartbeat | Drain


@dataclass(frozen=True, slots=True)
class Send:
    """Hand the message to the stream's outbox; never blocks."""

    stream: int
    message: Message


@dataclass(frozen=True, slots=True)
class EndStream:
    """End the stream with this error."""

    stream: int
    error: ServiceError


@dataclass(frozen=True, slots=True)
class RaiseCounters:
    """Make versions and epochs jump past what a participant has seen, durably.

    Without it the stream gets no welcome: it ends, and the participant tries again.
    """

    stream: int
    version: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Solve:
    """Ask the solver; the answer comes back as an event with the same number.

    Attributes:
        samples: K times [num_layers, num_logical_experts] float64, tokens.
        incumbent: [num_layers, num_slots] int32, the placement in force.
    """

    solve: int
    samples: tuple[np.ndarray[Any, Any], ...]
    incumbent: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Learn:
    """Show the forecast a window that is not planned for; there is no answer.

    Attributes:
        samples: K times [num_layers, num_logical_experts] float64, tokens.
    """

    samples: tuple[np.ndarray[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class StorePlan:
    """Give the draft a version and make it durable, before anybody sees it."""

    draft: PlanDraft


@dataclass(frozen=True, slots=True)
class StoreApplied:
    """Every member serves with this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Show the committed plan to the watchers."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Record:
    """A decision was taken: log it and count it."""

    decision: Decision


class SampleFate(enum.StrEnum):
    """What became of a load sample."""

    ACCEPTED = "accepted"
    DROPPED_LATE = "dropped_late"
    DROPPED_PARTIAL = "dropped_partial"
    DROPPED_STRADDLING = "dropped_straddling"
    DROPPED_OVERFLOW = "dropped_overflow"
    DROPPED_IDLE = "dropped_idle"


@dataclass(frozen=True, slots=True)
class CountSample:
    """Count a sample by its fate."""

    fate: SampleFate


Effect = (
    Send
    | EndStream
    | RaiseCounters
    | Solve
    | Learn
    | StorePlan
    | StoreApplied
    | Announce
    | Record
    | CountSample
)
