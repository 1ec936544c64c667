"""What the core wants done, in order. The driver carries out one before it starts the next."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.errors import ServiceError
    from expertplane_server.core.plan import (
        Decision,
        ParkedPlan,
        Plan,
        PlanDraft,
        PlanState,
        Request,
    )
    from expertplane_server.core.spec import Deployment, DeploymentSpec


class Verdict(enum.StrEnum):
    """The planner's opinion of the plan that a participant has."""

    UP_TO_DATE = "up_to_date"
    TAKE_THIS_PLAN = "take_this_plan"
    NO_PLAN_YET = "no_plan_yet"
    DEPLOYMENT_UNKNOWN = "deployment_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """Answers a Hello.

    Attributes:
        report_interval_s: shortest time between two reports; None for the planner's usual one.
    """

    verdict: Verdict
    generation: int = 0
    plan: Plan | None = None
    is_elected_reporter: bool = False
    report_interval_s: float | None = None


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
class Stage:
    """Check the plan and fetch its weights, without switching to it.

    Attributes:
        deadline_s: time left to answer, in seconds.
    """

    plan: Plan
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Commit:
    """Permission to switch to the plan.

    Attributes:
        is_staged: the participant has it already, so that version and digest will do.
    """

    plan: Plan
    is_staged: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """Drop what was staged of a version."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Flow:
    """Report at this cadence from now on."""

    report_interval_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerHeartbeat:
    """The planner's loop is alive."""

    head: int
    committed: int


@dataclass(frozen=True, slots=True)
class Drain:
    """This planner is going away."""

    reconnect_window_s: float


Message = Welcome | ReportAck | Refused | Stage | Commit | Abort | Flow | PlannerHeartbeat | Drain


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

    Answered by `CountersRaised` or `RaiseFailed`, before anything else is handled. Without it the
    stream gets no welcome: it ends, and the participant tries again.

    Attributes:
        stream: of the participant; None where the core only asks what the store has come to.
    """

    stream: int | None
    version: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Solve:
    """Ask the solver; the answer comes back as an event with the same number.

    Attributes:
        samples: K times [num_layers, num_logical_experts] float64, tokens.
        incumbent: [num_layers, num_slots] int32, the placement in force.
        max_moved_slots: slots per layer that the buffers of the members have room for, beside the
            budget of the policy; None for no such limit.
        is_new: the forecast has not been shown these samples.
    """

    solve: int
    samples: tuple[np.ndarray[Any, Any], ...]
    incumbent: np.ndarray[Any, Any]
    max_moved_slots: int | None = None
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Learn:
    """Show the forecast a window that is not planned for; there is no answer.

    Attributes:
        samples: K times [num_layers, num_logical_experts] float64, tokens.
    """

    samples: tuple[np.ndarray[Any, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlan:
    """Give the draft a version and make it durable, before anybody sees it.

    Answered by `Stored` or `StoreFailed`, before anything else is handled.

    Attributes:
        state: STAGING or COMMITTED.
        decision: goes into the journal with it, its `plan_version` filled in by the store.
        expected_head: the head that the core knows; with another one it has missed something.
        request: remembered with it; the answer is the version, or the decision's sequence.
    """

    draft: PlanDraft
    state: PlanState
    decision: Decision
    expected_head: int
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class CommitPlan:
    """Make the commit of a staged plan durable; repeated when its outcome is not known.

    Answered by `PlanCommitted` or `StoreFailed`, before anything else is handled.
    """

    version: int


@dataclass(frozen=True, slots=True)
class AbortPlan:
    """Make the end of a staged plan durable, with the decision that says why.

    Answered by `PlanAborted` or `StoreFailed`, before anything else is handled.
    """

    version: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class StoreApplied:
    """Every member serves with this version. Best effort: the members tell again."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePause:
    """Make a pause, or its end, durable.

    Answered by `DeploymentStored` or `StoreFailed`, before anything else is handled.
    """

    is_paused: bool
    comment: str
    request: Request | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """Make a new spec durable.

    Answered by `DeploymentStored` or `StoreFailed`, before anything else is handled.
    """

    spec: DeploymentSpec
    etag: str
    is_new_generation: bool
    request: Request | None


@dataclass(frozen=True, slots=True)
class StoreParked:
    """Remember that a participant refuses a placement for good. Best effort."""

    parked: ParkedPlan


@dataclass(frozen=True, slots=True)
class StoreSuperseded:
    """Remember that an incarnation is refused for good. Best effort."""

    incarnation: str


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Read what the store really holds; answered by `ev.ReadBack`, before anything else."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Show the committed plan to the watchers; None: there is none for this generation yet."""

    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Record:
    """A decision was taken: write it to the journal, log it and count it. Best effort.

    Attributes:
        is_stored: it is in the journal already, by the transaction that it is about.
        request: remembered with it, the decision's sequence being the answer.
    """

    decision: Decision
    is_stored: bool = False
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer an operator's order."""

    order: int
    answer: Plan | Decision | Deployment | ServiceError


class Milestone(enum.StrEnum):
    """What a roll-out has come to."""

    STAGED = "staged"
    """All members have staged it; measured from its `Stage`."""
    COMMITTED = "committed"
    """It is durable; measured from the decision to publish."""
    APPLIED = "applied"
    """All members serve with it; measured from its `Commit`."""
    ABORTED = "aborted"
    """It was given up; measured from its `Stage`."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A roll-out has reached a milestone, so many seconds after the step before."""

    milestone: Milestone
    duration_s: float


@dataclass(frozen=True, slots=True)
class Observed:
    """Balancedness of the placement in force on the window that has just closed."""

    balancedness: float


@dataclass(frozen=True, slots=True)
class Regressed:
    """A plan did worse than its predecessor on the load that followed: somebody should know.

    Attributes:
        loss: summed maximum rank load over that of the predecessor, less 1.
    """

    version: int
    loss: float


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
    | CommitPlan
    | AbortPlan
    | StoreApplied
    | StorePause
    | StoreSpec
    | StoreParked
    | StoreSuperseded
    | ReadBack
    | Announce
    | Record
    | Answer
    | Reached
    | Observed
    | Regressed
    | CountSample
)
