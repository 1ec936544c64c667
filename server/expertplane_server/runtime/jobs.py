"""What travels between the service and its solver process. Plain data: no torch, no grpc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.plan import Solution
    from expertplane_server.core.spec import PolicyChoice, TopologySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveJob:
    """A load to plan for.

    Attributes:
        samples: [K, num_layers, num_logical_experts], tokens, any numeric type.
        incumbent: [num_layers, num_slots] int32, to compare with; None compares with nothing.
        keeps_back: keep every 4th of 8 or more samples from the solve, to judge it by them.
    """

    samples: np.ndarray[Any, Any]
    topology: TopologySpec
    num_expert_groups: int
    policy: PolicyChoice
    incumbent: np.ndarray[Any, Any] | None = None
    keeps_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The process has its device and has solved something small."""

    device: str
    torch_version: str
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The job is done."""

    solution: Solution


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """The job's input breaks a rule; `field` is the planner's name for the part at fault."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The solver itself failed."""

    message: str


Reply = Ready | Answer | Rejection | Failure
