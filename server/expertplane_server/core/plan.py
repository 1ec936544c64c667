"""Plans and decisions: immutable records of what was placed where, and why."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.spec import Mode


class PlanState(enum.StrEnum):
    """The stage of its life that a plan is in."""

    COMMITTED = "committed"
    APPLIED = "applied"
    SUPERSEDED = "superseded"


class Reason(enum.StrEnum):
    """What the planner did at the end of a window, and why. Values are the bare wire names."""

    PUBLISHED = "PUBLISHED"
    SHADOW = "SHADOW"
    SKIPPED_FEW_SAMPLES = "SKIPPED_FEW_SAMPLES"
    SKIPPED_COOLDOWN = "SKIPPED_COOLDOWN"
    SKIPPED_ROLLOUT_IN_FLIGHT = "SKIPPED_ROLLOUT_IN_FLIGHT"
    SKIPPED_GAIN_TOO_SMALL = "SKIPPED_GAIN_TOO_SMALL"
    SKIPPED_MIGRATION_TOO_DEAR = "SKIPPED_MIGRATION_TOO_DEAR"
    SKIPPED_ZERO_LOAD = "SKIPPED_ZERO_LOAD"
    FAILED_SOLVE = "FAILED_SOLVE"
    FAILED_STORE = "FAILED_STORE"


class Evaluation(enum.StrEnum):
    """What the figures of a decision were measured on."""

    HELD_OUT = "held_out"
    """Samples of the window that the solve did not see."""
    IN_SAMPLE = "in_sample"
    """The samples that the solve saw."""
    PREDICTIVE = "predictive"
    """What the forecast expects: too few samples came to keep some back."""


class Necessity(enum.StrEnum):
    """Why the incumbent cannot stay, whatever a plan in its place gains."""

    LOST_EXPERTS = "lost_experts"
    """A rank was lost, and with it the only replicas of some experts."""
    ENGINE_RULES = "engine_rules"
    """The engine does not take it."""
    MODE = "mode"
    """It is not hierarchical as asked for, or has more foreign replicas than allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How evenly a placement spreads a load; layers without load count 1 and are left out of sums.

    `balancedness` = sum over layers of mean rank load / sum of maximum rank load; `per_layer` has
    one ratio a layer, `mean` and `minimum` are taken over it.
    """

    balancedness: float
    mean: float
    minimum: float
    per_layer: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfers:
    """The copies of weights that lead from the incumbent to a plan.

    Attributes:
        table: [num_transfers, 6] int32: layer, logical expert, source slot, target slot, round,
            link class (1 inside a rank, 2 inside a node, 3 between nodes, 4 from storage, where
            the source slot is 0 and means nothing).
        total_bytes: traffic over all links; 0 when the size of an expert is not known.
        estimated_s: expected duration, in seconds; 0 when the size of an expert is not known.
    """

    table: np.ndarray[Any, Any]
    total_bytes: int
    estimated_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What the solver process answers.

    Attributes:
        phy2log: [num_layers, num_slots] int32, the logical expert of every slot.
        digest: digest of `phy2log`.
        policy: name of the policy that ran.
        mode: the mode that was really used, never AUTO.
        spill: foreign replicas per layer that it was allowed.
        balance: on the evaluation samples.
        balance_before: the incumbent's on the same samples; None without an incumbent, or with one
            that has lost experts and so carries no load as a whole.
        gain: 1 - (summed maximum rank load) / (the incumbent's, or the repaired one's where it has
            lost experts); 0 without an incumbent.
        moved_slots: slots whose rank must fetch an expert, summed over layers.
        evaluation: what the figures were measured on.
        solve_s: time spent on it in the solver process, in seconds.
        parameters: the policy's parameters that were given, name and value, by name.
        gain_s: serving time that the plan saves over its horizon, in seconds.
        cost_s: serving time that the migration takes away, in seconds; 0 when it is not priced.
        most_moved_slots: moved slots of the layer that has most of them.
        transfers: the migration from the incumbent; None without one, or with too many of them.
        is_drifting: the window departed from its forecast far more than is usual.
        necessity: why the incumbent cannot stay; None if it can.
    """

    phy2log: np.ndarray[Any, Any]
    digest: str
    policy: str
    mode: Mode
    seed: int
    num_logical_experts: int
    balance: Balance
    balance_before: Balance | None
    gain: float
    moved_slots: int
    evaluation: Evaluation
    solve_s: float
    spill: int = 0
    parameters: tuple[tuple[str, str], ...] = ()
    gain_s: float = 0.0
    cost_s: float = 0.0
    most_moved_slots: int = 0
    transfers: Transfers | None = None
    is_drifting: bool = False
    necessity: Necessity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDraft:
    """A plan that is worth publishing and has no version yet."""

    deployment: str
    generation: int
    parent: int
    reason: Reason
    solution: Solution


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A stored plan; its content never changes, its state does.

    Attributes:
        version: rises strictly within the deployment, never reused.
        epoch: the planner's term in which the version was assigned.
        created_at_s: wall-clock time, in seconds since 1970.
    """

    draft: PlanDraft
    version: int
    epoch: int
    state: PlanState
    created_at_s: float

    def with_state(self, state: PlanState) -> Plan:
        """Returns the plan in another state."""
        return replace(self, state=state)

    @property
    def digest(self) -> str:
        """Digest of the content."""
        return self.draft.solution.digest

    @property
    def phy2log(self) -> np.ndarray[Any, Any]:
        """[num_layers, num_slots] int32, the logical expert of every slot."""
        return self.draft.solution.phy2log


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRef:
    """A plan that a participant claims to have."""

    version: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to one load window: numbers only, so that a long journal stays small.

    Fields as in the proto message of the same name; those from `evaluation` on are 0 or None when
    nothing was evaluated.
    """

    sequence: int
    epoch: int
    reason: Reason
    message: str
    decided_at_s: float
    num_samples: int
    incumbent: int
    plan_version: int = 0
    evaluation: Evaluation | None = None
    balancedness_before: float = 0.0
    balancedness_after: float = 0.0
    gain: float = 0.0
    gain_s: float = 0.0
    cost_s: float = 0.0
    moved_slots: int = 0
    solve_s: float = 0.0
