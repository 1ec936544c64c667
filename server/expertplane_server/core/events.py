"""What can happen to a deployment. Events are validated before they are made: `rpc.convert`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expertplane_server.core.plan import Plan, PlanRef, Solution


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.errors import ServiceError


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
    """A participant opened a stream. `stream` is unique within the process."""

    stream: int
    participant: str
    ranks: tuple[int, ...]
    incarnation: str
    engine_run_id: str
    generation: int = 0
    applied: PlanRef = PlanRef()
    highest_version: int = 0
    highest_epoch: int = 0
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
    """A participant staged or applied a plan."""

    stream: int
    ref: PlanRef
    phase: AckPhase


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """A participant refuses a plan, for good unless `is_transient`."""

    stream: int
    version: int
    message: str
    is_transient: bool


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
    """Time has passed."""


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
    """The plan of this solve is durable; from now on it may be shown."""

    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed:
    """The plan of this solve could not be made durable."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CountersRaised:
    """The store now stands above what a participant had seen."""

    head: int
    epoch: int


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
    | StoreFailed
    | CountersRaised
    | Refuse
)
