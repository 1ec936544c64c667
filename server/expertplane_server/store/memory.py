"""A store without a disk, for tests: it keeps every promise but durability."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from expertplane_server.core.plan import Plan, PlanState
from expertplane_server.core.spec import Deployment
from expertplane_server.store.refusals import (
    check_epoch,
    check_etag,
    check_repeated,
    creation_of,
    name_taken,
    no_such_deployment,
    no_such_plan,
    raised_epoch,
    removal_of,
    repeated_creation,
)


if TYPE_CHECKING:
    from expertplane_server.core.plan import PlanDraft
    from expertplane_server.core.spec import DeploymentSpec


class MemoryStore:
    """Everything in dictionaries; see `Store` for the contract."""

    def __init__(self) -> None:
        self._epoch = 1
        self._deployments: dict[str, Deployment] = {}
        self._plans: dict[str, dict[int, Plan]] = {}
        self._heads: dict[str, int] = {}
        self._requests: dict[str, str] = {}
        self._forecasts: dict[str, tuple[int, bytes]] = {}

    @property
    def epoch(self) -> int:
        """The owner's term."""
        return self._epoch

    def deployments(self) -> list[Deployment]:
        """Returns every deployment, by name."""
        return [self._deployments[name] for name in sorted(self._deployments)]

    def create_deployment(
        self, name: str, spec: DeploymentSpec, *, request_id: str, now_s: float
    ) -> tuple[Deployment, bool]:
        """Adds a deployment."""
        present = self._deployments.get(name)
        if request_id and request_id in self._requests:
            return repeated_creation(name, present, self._requests[request_id]), False
        if present is not None:
            raise name_taken(name)
        deployment = Deployment(
            name=name, spec=spec, etag=uuid.uuid4().hex, head=self._heads.get(name, 0)
        )
        self._deployments[name] = deployment
        self._plans[name] = {}
        if request_id:
            self._requests[request_id] = creation_of(name)
        return deployment, True

    def delete_deployment(self, name: str, *, etag: str, request_id: str, now_s: float) -> bool:
        """Removes a deployment with its plans."""
        if request_id and request_id in self._requests:
            check_repeated(removal_of(name), self._requests[request_id])
            return False
        check_etag(self._get(name), etag)
        self._heads[name] = self._deployments.pop(name).head
        del self._plans[name]
        self._forecasts.pop(name, None)
        if request_id:
            self._requests[request_id] = removal_of(name)
        return True

    def publish(self, draft: PlanDraft, *, epoch: int, now_s: float) -> Plan:
        """Assigns the next version to a draft and commits it."""
        check_epoch(epoch, self._epoch)
        deployment = self._get(draft.deployment)
        version = deployment.head + 1
        plan = Plan(
            draft=draft,
            version=version,
            epoch=epoch,
            state=PlanState.COMMITTED,
            created_at_s=now_s,
        )
        plans = self._plans[draft.deployment]
        for older in plans.values():
            plans[older.version] = older.with_state(PlanState.SUPERSEDED)
        plans[version] = plan
        self._deployments[draft.deployment] = deployment.with_head(version)
        return plan

    def mark_applied(self, deployment: str, version: int) -> None:
        """Notes that every member serves with a committed version."""
        plan = self._plans.get(deployment, {}).get(version)
        if plan is not None and plan.state is PlanState.COMMITTED:
            self._plans[deployment][version] = plan.with_state(PlanState.APPLIED)

    def plan(self, deployment: str, version: int) -> Plan:
        """Returns one plan."""
        plan = self._plans.get(deployment, {}).get(version)
        if plan is None:
            raise no_such_plan(deployment, version)
        return plan

    def plans(
        self, deployment: str, *, below: int, limit: int, has_transfers: bool = True
    ) -> list[Plan]:
        """Returns up to `limit` plans with versions under `below`, newest first."""
        plans = self._plans.get(deployment, {})
        versions = [version for version in sorted(plans, reverse=True) if version < below]
        found = [plans[version] for version in versions[:limit]]
        return found if has_transfers else [_without_transfers(plan) for plan in found]

    def raise_counters(self, deployment: str, *, version: int, epoch: int) -> tuple[int, int]:
        """Lifts head and epoch above what a participant has seen."""
        current = self._get(deployment)
        head = max(current.head, version)
        self._deployments[deployment] = replace(current, head=head)
        self._epoch = raised_epoch(self._epoch, epoch, is_behind=version > current.head)
        return head, self._epoch

    def save_forecast(
        self, deployment: str, generation: int, checkpoint: bytes, *, now_s: float
    ) -> None:
        """Keeps the forecast of a deployment, in place of an earlier one."""
        current = self._deployments.get(deployment)
        if current is not None and current.generation == generation:
            self._forecasts[deployment] = (generation, checkpoint)

    def forecast(self, deployment: str, generation: int) -> bytes | None:
        """Returns the forecast that was kept last, if there is one."""
        kept_generation, checkpoint = self._forecasts.get(deployment, (0, None))
        return checkpoint if kept_generation == generation else None

    def close(self) -> None:
        """Does nothing: there is nothing to give back."""

    def _get(self, name: str) -> Deployment:
        """Returns a deployment that must exist."""
        deployment = self._deployments.get(name)
        if deployment is None:
            raise no_such_deployment(name)
        return deployment


def _without_transfers(plan: Plan) -> Plan:
    """Returns the plan, its migration left out."""
    solution = replace(plan.draft.solution, transfers=None)
    return replace(plan, draft=replace(plan.draft, solution=solution))
