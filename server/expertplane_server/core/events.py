"""What can happen to a deployment. Events are validated before they are made: `rpc.convert`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expertplane_server.core.plan import Plan, PlanRef, Request, Solution


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.errors import ServiceError
    from expertplane_server.core.orders import Action
    from expertplane_server.core.recovered import Recovered
    from expertplane_server.core.spec import Deployment


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment, on both clocks: intervals are measured on the first, records carry the second."""

    monotonic_s: float
    wall_s: float


class LoadKind(enum.StrEnum):
    """What counts are counted by."""

    LOGICAL = "logical"
    PHYSICAL = "physical"


class LoadScope(enum.StrEnum):
    """Whose tokens are counted."""

    PARTICIPANT = "participant"
    DEPLOYMENT = "deployment"


class AckPhase(enum.StrEnum):
    """How far a participant has come with a plan."""

    STAGED = "staged"
    APPLIED = "applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A participant opened a stream. `stream` is unique within the process.

    Attributes:
        staged: the plan that its ranks have prepared and not switched to; None without one.
        max_staged_bytes: size of the spare weight buffers of each rank; 0 for no limit.
    """

    stream: int
    participant: str
    ranks: tuple[int, ...]
    incarnation: str
    engine_run_id: str
    generation: int = 0
    applied: PlanRef = PlanRef()
    staged: PlanRef | None = None
    highest_version: int = 0
    highest_epoch: int = 0
    max_staged_bytes: int = 0
    initial_phy2log: np.ndarray[Any, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """`counts` is [K, L, E], or [K, L, slots] when physical: tokens, finite, not negative."""

    stream: int
    sequence: int
    plan_version: int
    first_step: int
    steps_per_sample: int
    kind: LoadKind
    scope: LoadScope
    counts: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """A participant staged or applied a plan, at this engine step."""

    stream: int
    ref: PlanRef
    phase: AckPhase
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """A participant refuses a plan, for good unless `is_transient`."""

    stream: int
    version: int
    message: str
    is_transient: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A participant's loop is alive."""

    stream: int
    applied: PlanRef


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded:
    """A stream is over: with a Goodbye (`is_goodbye`), or lost."""

    stream: int
    is_goodbye: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed.

    Attributes:
        queue_fill: how full the queue of events is, from 0 to 1.
    """

    queue_fill: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """The solver answered the solve of this number."""

    solve: int
    solution: Solution


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveFailed:
    """The solver failed, or was lost."""

    solve: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The plan is durable; from now on it may be shown."""

    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCommitted:
    """The commit of a staged plan is durable."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAborted:
    """The end of a staged plan is durable."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStored:
    """A pause, or a new spec, is durable."""

    deployment: Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed:
    """What was last asked of the store failed: it was not done, or nobody knows.

    Answers `StorePlan`, `CommitPlan`, `AbortPlan`, `StorePause` and `StoreSpec`.

    Attributes:
        error: why.
        is_refusal: the store answered, and turned it down: nothing has changed.
    """

    error: ServiceError
    is_refusal: bool = False

    @property
    def message(self) -> str:
        """Why, for people."""
        return self.error.message


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What the store really holds; answers `fx.ReadBack`. None: it cannot be read now."""

    recovered: Recovered | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An operator asks for something; it is answered by exactly one `fx.Answer`.

    Attributes:
        order: unique within the process.
        request: makes a repeat return the first answer; the adapter has found it to be new.
        expected_head: the head that the operator has seen; None skips the check.
    """

    order: int
    action: Action
    request: Request | None = None
    expected_head: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountersRaised:
    """The store now stands above what a participant had seen."""

    head: int
    epoch: int


@dataclass(frozen=True, slots=True)
class RaiseFailed:
    """The counters were not raised, or nobody knows; answers `RaiseCounters`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """The adapter found a message bad before it became an event; the stream is told in order."""

    stream: int
    sequence: int
    error: ServiceError


Event = (
    Hello
    | LoadReport
    | Ack
    | Nack
    | Heartbeat
    | StreamEnded
    | Tick
    | Solved
    | SolveFailed
    | Stored
    | PlanCommitted
    | PlanAborted
    | DeploymentStored
    | StoreFailed
    | ReadBack
    | Order
    | CountersRaised
    | RaiseFailed
    | Refuse
)
