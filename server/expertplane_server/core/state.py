"""The facts about a deployment that several parts of the core share. No behaviour of its own."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from expertplane_server.core.spec import RolloutMode


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.events import Instant
    from expertplane_server.core.intake import LoadIntake
    from expertplane_server.core.journal import Journal
    from expertplane_server.core.members import Membership
    from expertplane_server.core.plan import Decision, Plan, PlanRef, Reason, Solution
    from expertplane_server.core.spec import Deployment, DeploymentSpec


_DIGESTS_KEPT = 64


@dataclass(slots=True, kw_only=True)
class State:
    """Where a deployment stands.

    Attributes:
        deployment: as the store has it; changed by what the store answers, and by nothing else.
        epoch: the planner's term; raised with the store's.
        heartbeat_interval_s: how often planner and members speak; also the first wait of retries.
        members: who takes part; changed by the membership's own events.
        intake: load under way, the start placement, the maps that physical counts refer to.
        journal: the latest decisions.
        committed: the committed plan of the present generation; None before the first.
            Invariant: durable.
        in_force: [L, P] int32, what the ranks are to serve with: the committed plan, what an
            earlier generation left them with where it has the same shape, or the start placement.
        recent: the latest window that has closed, K times [L, E] tokens; empty before the first.
        digests: of the latest versions, by version; what a participant refuses may be over by now.
        held_until_s: monotonic time up to which automatic publication rests.
        held_before_s: the same, as it was before the latest plan that holds down.
    """

    deployment: Deployment
    epoch: int
    heartbeat_interval_s: float
    members: Membership
    intake: LoadIntake
    journal: Journal
    in_force: np.ndarray[Any, Any]
    committed: Plan | None = None
    recent: tuple[np.ndarray[Any, Any], ...] = ()
    digests: OrderedDict[int, str] = field(default_factory=OrderedDict)
    held_until_s: float = float("-inf")
    held_before_s: float = float("-inf")

    def hold_down(self, now_s: float) -> None:
        """Has automatic publication rest from now on."""
        self.held_before_s = self.held_until_s
        self.held_until_s = now_s + self.spec.rollout.hold_down_s

    def release(self) -> None:
        """Takes the latest rest back; one that is owed to a plan before stays."""
        self.held_until_s = self.held_before_s

    def note(self, plan: Plan) -> None:
        """Keeps a version's digest, in bounded memory."""
        self.digests[plan.version] = plan.digest
        while len(self.digests) > _DIGESTS_KEPT:
            self.digests.popitem(last=False)

    @property
    def spec(self) -> DeploymentSpec:
        """What the operator asked for."""
        return self.deployment.spec

    @property
    def is_coordinated(self) -> bool:
        """Whether members stage a plan before any switches."""
        return self.spec.rollout_mode is RolloutMode.COORDINATED

    @property
    def is_settled(self) -> bool:
        """Whether every member serves with the committed plan, or has refused it for good."""
        plan = self.committed
        return plan is None or all(member.is_settled(plan) for member in self.members)

    def is_ahead(self, applied: PlanRef) -> bool:
        """Tells whether ranks serve with what only a later state of the store can have been.

        It takes a later term to make them go back to what is committed.
        """
        plan = self.committed
        return plan is not None and applied.version >= plan.version and applied != plan.ref

    def draft(
        self,
        reason: Reason,
        message: str,
        now: Instant,
        *,
        num_samples: int = 0,
        plan_version: int = 0,
        solution: Solution | None = None,
    ) -> Decision:
        """Returns a decision about this deployment, numbered and not yet in the journal."""
        return self.journal.draft(
            reason,
            message,
            now,
            epoch=self.epoch,
            incumbent=self.deployment.committed,
            num_samples=num_samples,
            plan_version=plan_version,
            solution=solution,
        )
