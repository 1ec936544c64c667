"""What travels between the service and its solver process. Plain data: no torch, no grpc."""

from __future__ import annotations

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


Job = SolveJob | LearnJob | CheckpointJob | ExpectJob | ScheduleJob | PolicyJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The process has its device and has solved something small."""

    device: str
    torch_version: str
    policies: tuple[str, ...]


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
Reply = Ready | Result | Rejection | Failure
