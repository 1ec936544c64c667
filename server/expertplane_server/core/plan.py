"""Plans and decisions: immutable records of what was placed where, and why."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.spec import Mode


class PlanState(enum.StrEnum):
    """The stage of its life that a stored plan is in."""

    STAGING = "staging"
    """The members are fetching its weights; nobody may switch to it."""
    COMMITTED = "committed"
    """Durable permission to switch to it; no way back but forward."""
    APPLIED = "applied"
    """Every member serves with it."""
    ABORTED = "aborted"
    """Given up before its commit; its version is burned."""
    SUPERSEDED = "superseded"
    """A later version was committed."""

    @property
    def is_in_force(self) -> bool:
        """Whether ranks are to serve with a plan in this state."""
        return self in (PlanState.COMMITTED, PlanState.APPLIED)


class Reason(enum.StrEnum):
    """What the planner did at the end of a window or at an operator's word, and why.

    Values are the bare wire names.
    """

    PUBLISHED = "PUBLISHED"
    PUBLISHED_BY_OPERATOR = "PUBLISHED_BY_OPERATOR"
    ROLLED_BACK = "ROLLED_BACK"
    ROLLED_BACK_REGRESSION = "ROLLED_BACK_REGRESSION"
    SHADOW = "SHADOW"
    SKIPPED_FEW_SAMPLES = "SKIPPED_FEW_SAMPLES"
    SKIPPED_COOLDOWN = "SKIPPED_COOLDOWN"
    SKIPPED_HOLD_DOWN = "SKIPPED_HOLD_DOWN"
    SKIPPED_PAUSED = "SKIPPED_PAUSED"
    SKIPPED_MEMBERS_MISSING = "SKIPPED_MEMBERS_MISSING"
    SKIPPED_PLAN_REFUSED = "SKIPPED_PLAN_REFUSED"
    SKIPPED_BUFFERS_TOO_SMALL = "SKIPPED_BUFFERS_TOO_SMALL"
    SKIPPED_ROLLOUT_IN_FLIGHT = "SKIPPED_ROLLOUT_IN_FLIGHT"
    SKIPPED_GAIN_TOO_SMALL = "SKIPPED_GAIN_TOO_SMALL"
    SKIPPED_MIGRATION_TOO_DEAR = "SKIPPED_MIGRATION_TOO_DEAR"
    SKIPPED_ZERO_LOAD = "SKIPPED_ZERO_LOAD"
    FAILED_SOLVE = "FAILED_SOLVE"
    FAILED_STORE = "FAILED_STORE"
    FAILED_ROLLOUT = "FAILED_ROLLOUT"

    @property
    def holds_down(self) -> bool:
        """Whether automatic publication rests after it."""
        return self in (
            Reason.PUBLISHED_BY_OPERATOR,
            Reason.ROLLED_BACK,
            Reason.ROLLED_BACK_REGRESSION,
        )


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
    """A placement and what is known of it: what the solver process answers.

    An operator's placement has the policy "operator", and None as `evaluation` where no load was
    there to measure it on; its balance is then all zeros.

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
        evaluation: what the figures were measured on; None when they were not.
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
    evaluation: Evaluation | None
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
    """A plan that is worth publishing and has no version yet.

    Attributes:
        parent: the version in force; 0 is the start placement.
        comment: what the operator said, or which part of a chain it is; for people.
    """

    deployment: str
    generation: int
    parent: int
    reason: Reason
    solution: Solution
    comment: str = ""


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
    def ref(self) -> PlanRef:
        """What a participant calls it by."""
        return PlanRef(version=self.version, digest=self.digest)

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


@dataclass(frozen=True, slots=True)
class Request:
    """What makes a repeated call return the first answer.

    Attributes:
        id: the caller's.
        call: what was asked for, so that an id cannot be used for two things; for people.
        is_for_decision: the answer is the decision; else it is the plan, where one is published.
    """

    id: str
    call: str
    is_for_decision: bool = False

    def answer(self, version: int, decision: Decision) -> int:
        """Returns what is remembered of a publication: its version, or its decision's number."""
        return decision.sequence if self.is_for_decision else version


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedPlan:
    """A placement that a participant has refused for good.

    It is never sent again to this incarnation of the participant.
    """

    participant: str
    incarnation: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to one load window or one operator's call.

    Numbers only, so that a long journal stays small. Fields as in the proto message of the same
    name; those from `evaluation` on are 0 or None when nothing was evaluated.
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
