"""A store without a disk, for tests: it keeps every promise but durability."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from expertplane_server.core import limits
from expertplane_server.core.plan import Plan, PlanState
from expertplane_server.core.recovered import Recovered
from expertplane_server.core.spec import Deployment
from expertplane_server.store import bounds, refusals
from expertplane_server.store.base import KEEP_PLANS, Answered


if TYPE_CHECKING:
    from expertplane_server.core.plan import Decision, ParkedPlan, PlanDraft, Request
    from expertplane_server.core.spec import DeploymentSpec


@dataclass(slots=True)
class _Kept:
    """What is kept of one deployment; what comes late stands last."""

    deployment: Deployment
    plans: dict[int, Plan] = field(default_factory=dict)
    decisions: dict[int, Decision] = field(default_factory=dict)
    parked: list[ParkedPlan] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    forecast: bytes | None = None

    def move(self, version: int, state: PlanState) -> None:
        """Moves a plan into another state; one that is committed supersedes the one before."""
        if state is PlanState.COMMITTED:
            for older in self.plans.values():
                if older.state.is_in_force:
                    self.plans[older.version] = older.with_state(PlanState.SUPERSEDED)
            self.deployment = self.deployment.with_committed(version)
        self.plans[version] = self.plans[version].with_state(state)

    def enter(self, decision: Decision) -> None:
        """Enters a decision, in place of one of the same sequence, and forgets the oldest."""
        self.decisions[decision.sequence] = decision
        for sequence in sorted(self.decisions)[: -limits.MAX_JOURNAL]:
            del self.decisions[sequence]

    def prune(self, keep: int) -> None:
        """Forgets all but the latest plans, and those that are in force or on their way."""
        for version in sorted(self.plans)[:-keep]:
            if self.plans[version].state in (PlanState.SUPERSEDED, PlanState.ABORTED):
                del self.plans[version]

    def park(self, parked: ParkedPlan) -> None:
        """Remembers a refusal, and forgets the oldest, and those of other incarnations."""
        own = [
            each
            for each in self.parked
            if (each.participant, each.incarnation) == (parked.participant, parked.incarnation)
            and each != parked
        ]
        others = [each for each in self.parked if each.participant != parked.participant]
        # A participant counts from its latest refusal on.
        latest = {each.participant: None for each in reversed(others)}
        known = set(list(latest)[: limits.MAX_MEMBERS - 1])
        own = own[-(bounds.MAX_PARKED - 1) :]
        self.parked = [
            each for each in self.parked if each.participant in known or each in own
        ] + [parked]


class MemoryStore:
    """Everything in dictionaries; see `Store` for the contract.

    Args:
        keep_plans: number of plans of a deployment that are kept, at least 2.
    """

    def __init__(self, *, keep_plans: int = KEEP_PLANS) -> None:
        refusals.check_keep_plans(keep_plans)
        self._keep_plans = keep_plans
        self._epoch = 1
        self._kept: dict[str, _Kept] = {}
        self._heads: dict[str, int] = {}
        self._requests: dict[str, Answered] = {}

    @property
    def epoch(self) -> int:
        """The owner's term."""
        return self._epoch

    def deployments(self) -> list[Deployment]:
        """Returns every deployment, by name."""
        return [self._kept[name].deployment for name in sorted(self._kept)]

    def create_deployment(
        self, name: str, spec: DeploymentSpec, *, request_id: str, now_s: float
    ) -> tuple[Deployment, bool]:
        """Adds a deployment."""
        request = refusals.creation_of(name, request_id)
        present = self._kept[name].deployment if name in self._kept else None
        repeated = refusals.repeated_creation(request, self._requests.get(request_id), present)
        if repeated is not None:
            return repeated, False
        if present is not None:
            raise refusals.name_taken(name)
        deployment = Deployment(
            name=name, spec=spec, etag=uuid.uuid4().hex, head=self._heads.get(name, 0)
        )
        self._kept[name] = _Kept(deployment)
        self._remember(request)
        return deployment, True

    def delete_deployment(self, name: str, *, etag: str, request_id: str, now_s: float) -> bool:
        """Removes a deployment with its plans."""
        request = refusals.removal_of(name, request_id)
        if refusals.is_repeated(request, self._requests.get(request_id)):
            return False
        deployment = self._get(name).deployment
        if etag:
            refusals.check_etag(deployment, etag)
        self._heads[name] = deployment.head
        del self._kept[name]
        self._remember(request)
        return True

    def update_deployment(
        self,
        name: str,
        spec: DeploymentSpec,
        *,
        etag: str,
        is_new_generation: bool,
        epoch: int,
        request: Request | None,
        now_s: float,
    ) -> Deployment:
        """Replaces a spec, under a new etag and, if asked for, a new generation."""
        kept = self._checked(name, epoch, request)
        before = kept.deployment
        refusals.check_etag(before, etag)
        if is_new_generation and not refusals.has_same_load(before.spec, spec):
            kept.forecast = None
        kept.deployment = replace(
            before,
            spec=spec,
            etag=uuid.uuid4().hex,
            generation=before.generation + is_new_generation,
        )
        self._remember(request)
        return kept.deployment

    def set_paused(
        self,
        name: str,
        *,
        is_paused: bool,
        comment: str,
        epoch: int,
        request: Request | None,
        now_s: float,
    ) -> Deployment:
        """Pauses a deployment, or lifts its pause."""
        kept = self._checked(name, epoch, request)
        kept.deployment = replace(
            kept.deployment, is_paused=is_paused, pause_comment=comment if is_paused else ""
        )
        self._remember(request)
        return kept.deployment

    def publish(
        self,
        draft: PlanDraft,
        *,
        state: PlanState,
        decision: Decision,
        expected_head: int,
        epoch: int,
        request: Request | None,
        now_s: float,
    ) -> Plan:
        """Assigns the next version to a draft; its decision goes into the journal with it."""
        kept = self._checked(draft.deployment, epoch, request)
        refusals.check_head(kept.deployment, expected_head)
        version = expected_head + 1
        plan = Plan(draft=draft, version=version, epoch=epoch, state=state, created_at_s=now_s)
        kept.deployment = kept.deployment.with_head(version)
        kept.plans[version] = plan.with_state(PlanState.STAGING)
        kept.move(version, state)
        kept.enter(replace(decision, plan_version=version))
        kept.prune(self._keep_plans)
        self._remember(request, request.answer(version, decision) if request is not None else 0)
        return plan

    def commit(self, deployment: str, version: int, *, epoch: int) -> None:
        """Commits a staging plan, which supersedes the one committed before."""
        refusals.check_epoch(epoch, self._epoch)
        state = self.plan(deployment, version).state
        kept = self._kept[deployment]
        if refusals.is_commit_due(kept.deployment, version, state):
            kept.move(version, PlanState.COMMITTED)

    def abort(
        self, deployment: str, version: int, *, decision: Decision, epoch: int, now_s: float
    ) -> None:
        """Gives a staging plan up, with the decision that says why."""
        refusals.check_epoch(epoch, self._epoch)
        state = self.plan(deployment, version).state
        kept = self._kept[deployment]
        if refusals.is_abort_due(kept.deployment, version, state):
            kept.move(version, PlanState.ABORTED)
            kept.enter(decision)

    def mark_applied(self, deployment: str, version: int, *, epoch: int) -> None:
        """Notes that every member serves with a committed version."""
        refusals.check_epoch(epoch, self._epoch)
        kept = self._kept.get(deployment)
        plan = kept.plans.get(version) if kept is not None else None
        if kept is not None and plan is not None and plan.state is PlanState.COMMITTED:
            kept.move(version, PlanState.APPLIED)

    def record(
        self,
        deployment: str,
        decision: Decision,
        *,
        epoch: int,
        request: Request | None,
        now_s: float,
    ) -> None:
        """Enters a decision in the journal, in place of one of the same sequence."""
        self._checked(deployment, epoch, request).enter(decision)
        self._remember(request, decision.sequence)

    def park(self, deployment: str, parked: ParkedPlan, *, epoch: int) -> None:
        """Remembers that a participant refuses a placement for good."""
        refusals.check_epoch(epoch, self._epoch)
        if deployment in self._kept:
            self._kept[deployment].park(parked)

    def supersede(self, deployment: str, incarnation: str, *, epoch: int) -> None:
        """Remembers that an incarnation is refused for good."""
        refusals.check_epoch(epoch, self._epoch)
        if deployment in self._kept:
            kept = self._kept[deployment]
            others = [each for each in kept.superseded if each != incarnation]
            kept.superseded = [*others, incarnation][-limits.MAX_MEMBERS :]

    def recover(self, deployment: str, *, num_plans: int) -> Recovered:
        """Returns what a deployment's core needs to go on."""
        kept = self._get(deployment)
        versions = sorted(kept.plans, reverse=True)
        committed = [each for each in versions[num_plans:] if each == kept.deployment.committed]
        return Recovered(
            deployment=kept.deployment,
            plans=tuple(kept.plans[version] for version in versions[:num_plans] + committed),
            decisions=tuple(kept.decisions[sequence] for sequence in sorted(kept.decisions)),
            parked=tuple(kept.parked),
            superseded=tuple(kept.superseded),
        )

    def answered(self, request_id: str) -> Answered | None:
        """Returns what a request id was used for, if it was."""
        return self._requests.get(request_id)

    def decision(self, deployment: str, sequence: int) -> Decision:
        """Returns one decision of the journal."""
        kept = self._kept.get(deployment)
        decision = kept.decisions.get(sequence) if kept is not None else None
        if decision is None:
            raise refusals.no_such_decision(deployment, sequence)
        return decision

    def plan(self, deployment: str, version: int) -> Plan:
        """Returns one plan."""
        kept = self._kept.get(deployment)
        plan = kept.plans.get(version) if kept is not None else None
        if plan is None:
            raise refusals.no_such_plan(deployment, version)
        return plan

    def plans(
        self, deployment: str, *, below: int, limit: int, has_transfers: bool = True
    ) -> list[Plan]:
        """Returns up to `limit` plans with versions under `below`, newest first."""
        kept = self._kept[deployment].plans if deployment in self._kept else {}
        versions = [version for version in sorted(kept, reverse=True) if version < below]
        found = [kept[version] for version in versions[:limit]]
        return found if has_transfers else [_without_transfers(plan) for plan in found]

    def raise_counters(self, deployment: str, *, version: int, epoch: int) -> tuple[int, int]:
        """Lifts head and epoch above what a participant has seen."""
        kept = self._get(deployment)
        before = kept.deployment.head
        kept.deployment = kept.deployment.with_head(version)
        self._epoch = refusals.raised_epoch(self._epoch, epoch, is_behind=version > before)
        return kept.deployment.head, self._epoch

    def save_forecast(
        self, deployment: str, generation: int, checkpoint: bytes, *, now_s: float
    ) -> None:
        """Keeps the forecast of a deployment, in place of an earlier one."""
        kept = self._kept.get(deployment)
        if kept is not None and kept.deployment.generation == generation:
            kept.forecast = checkpoint

    def forecast(self, deployment: str, generation: int) -> bytes | None:
        """Returns the forecast that was kept last, if there is one."""
        kept = self._kept.get(deployment)
        is_present = kept is not None and kept.deployment.generation == generation
        return kept.forecast if kept is not None and is_present else None

    def close(self) -> None:
        """Does nothing: there is nothing to give back."""

    def _get(self, name: str) -> _Kept:
        """Returns a deployment that must exist."""
        kept = self._kept.get(name)
        if kept is None:
            raise refusals.no_such_deployment(name)
        return kept

    def _checked(self, name: str, epoch: int, request: Request | None) -> _Kept:
        """Returns a deployment for its owner to change, by a request that must be new."""
        refusals.check_epoch(epoch, self._epoch)
        kept = self._get(name)
        refusals.check_new(request, self._requests.get(request.id) if request else None)
        return kept

    def _remember(self, request: Request | None, answer: int = 0) -> None:
        """Remembers a request, and forgets the oldest."""
        if request is not None:
            self._requests[request.id] = Answered(request.call, answer)
        for oldest in list(self._requests)[: -bounds.MAX_REQUESTS]:
            del self._requests[oldest]


def _without_transfers(plan: Plan) -> Plan:
    """Returns the plan, its migration left out."""
    solution = replace(plan.draft.solution, transfers=None)
    return replace(plan, draft=replace(plan.draft, solution=solution))
