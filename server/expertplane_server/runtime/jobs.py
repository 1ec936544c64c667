"""What travels between the service and its solver process. Plain data: no torch, no grpc."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from expertplane_server.core.parameters import (
    ForecastParameters,
    MigrationParameters,
    PlacementRules,
    TriggerParameters,
)


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.plan import Solution, Transfers
    from expertplane_server.core.spec import PolicyChoice, TopologySpec


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a forecast anew, whatever the solver process remembers of it.

    Attributes:
        checkpoint: what to go on from; None begins with nothing.
    """

    checkpoint: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastRef:
    """The forecast that a job is about.

    Attributes:
        start: where to begin; None goes on with what the process remembers, which it may not.
    """

    deployment: str
    generation: int
    parameters: ForecastParameters
    start: Start | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveJob:
    """A load to plan for.

    Attributes:
        samples: [K, num_layers, num_logical_experts], tokens, any numeric type.
        incumbent: [num_layers, num_slots] integers, the placement in force; None starts from none.
        trigger: what time is worth to whom the plan is for.
        migration: what moving weights costs.
        forecast: of the deployment whose window it is: it learns the samples, and the plan is for
            what it expects then; every 4th of 8 or more samples is kept from it until the plan has
            been judged by them. None plans for the samples alone.
        teaches: whether the forecast learns the samples; else it has been shown them already.
    """

    samples: np.ndarray[Any, Any]
    topology: TopologySpec
    num_expert_groups: int
    policy: PolicyChoice
    rules: PlacementRules = field(default_factory=PlacementRules)
    incumbent: np.ndarray[Any, Any] | None = None
    trigger: TriggerParameters = field(default_factory=TriggerParameters)
    migration: MigrationParameters = field(default_factory=MigrationParameters)
    forecast: ForecastRef | None = None
    teaches: bool = True


@dataclass(frozen=True, slots=True)
class LearnJob:
    """A window that the forecast is shown and nobody plans for; samples as for a solve."""

    samples: np.ndarray[Any, Any]
    forecast: ForecastRef


@dataclass(frozen=True, slots=True)
class CheckpointJob:
    """Write a forecast down."""

    forecast: ForecastRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectJob:
    """Say what a forecast expects of the next samples."""

    forecast: ForecastRef
    num_layers: int
    num_logical_experts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleJob:
    """Schedule the copies of weights that lead from one placement to another.

    Attributes:
        before: [num_layers, num_slots] integers, -1 in slots of masked ranks.
        after: of the same shape.
        migration: what moving weights costs.
    """

    before: np.ndarray[Any, Any]
    after: np.ndarray[Any, Any]
    topology: TopologySpec
    num_logical_experts: int
    migration: MigrationParameters


@dataclass(frozen=True, slots=True)
class PolicyJob:
    """Say whether a policy takes its parameters, and ranks of unequal capacity if it has to."""

    policy: PolicyChoice
    has_slow_ranks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmJob:
    """Compile what plans of this shape need, where that depends on the shape: on no CPU."""

    topology: TopologySpec
    num_logical_experts: int
    num_expert_groups: int
    policy: PolicyChoice
    rules: PlacementRules


Job = SolveJob | LearnJob | CheckpointJob | ExpectJob | ScheduleJob | PolicyJob | WarmJob


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """Where the process plans.

    Attributes:
        device: as torch writes it.
        name: what its maker calls it; empty for the CPU.
        used_bytes: memory of the device that the process has taken; 0 on the CPU.
        total_bytes: memory of the device; 0 on the CPU.
    """

    device: str
    name: str = ""
    used_bytes: int = 0
    total_bytes: int = 0


class TroubleReason(enum.StrEnum):
    """Why a device is not planned on any more."""

    OUT_OF_MEMORY = "out_of_memory"
    """It had no room for a job."""
    LOST = "lost"
    """It cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """The device has failed; from now on the process plans on the CPU.

    Attributes:
        device: the one that failed.
        error: one line.
    """

    device: str
    reason: TroubleReason
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The process has its device and has solved something small.

    Attributes:
        trouble: why it is on the CPU instead of the device that it was to have.
    """

    status: DeviceStatus
    torch_version: str
    policies: tuple[str, ...]
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastStatus:
    """A forecast after a job.

    Attributes:
        num_windows: windows that it has seen, checkpoints included.
        is_drifting: the latest of them departed from what was expected far more than is usual.
        refusal: why the checkpoint could not be used and the forecast began with nothing; empty
            when there was no such trouble.
    """

    num_windows: int
    is_drifting: bool
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The load is planned for."""

    solution: Solution
    forecast: ForecastStatus | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """The window is part of the forecast."""

    forecast: ForecastStatus


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The forecast, written down."""

    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a forecast expects.

    Attributes:
        mean: [num_layers, num_logical_experts] float32, tokens a sample.
        standard_deviation: of the same shape and unit.
    """

    mean: np.ndarray[Any, Any]
    standard_deviation: np.ndarray[Any, Any]
    forecast: ForecastStatus


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The copies are scheduled; None where they are too many to be handed around."""

    transfers: Transfers | None


@dataclass(frozen=True, slots=True)
class Lacking:
    """The process does not remember the forecast, or it knows no window; nothing has been done."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The policy takes its parameters and the ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """The job's input breaks a rule.

    Attributes:
        field: the name in a request of the part at fault.
        forecast: where the forecast has learned the window all the same.
    """

    field: str
    message: str
    forecast: ForecastStatus | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The solver itself failed."""

    message: str


Result = Answer | Learned | Checkpoint | Expected | Scheduled | Lacking | Taken
Reply = Result | Rejection | Failure


class Phase(enum.StrEnum):
    """What the time of a solve goes to."""

    FORECAST = "forecast"
    """The forecast learns the window and says what to expect."""
    PLAN = "plan"
    """The plan is made; of those that are made together each waits for all."""
    MEASURE = "measure"
    """The plan is judged and written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The reply to a job, and what is told beside it.

    Attributes:
        phases: seconds of each phase; empty unless a plan was made.
    """

    reply: Reply
    status: DeviceStatus
    phases: tuple[tuple[Phase, float], ...] = ()


Message = Ready | Failure | Told | Trouble
"""What comes from the solver process: first `Ready` or `Failure`, and for every tuple of jobs that
it is sent, a `Told` for each in their order. A `Trouble` comes between them."""
