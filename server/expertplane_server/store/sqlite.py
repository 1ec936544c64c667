"""The embedded store: one SQLite file, one owner, nothing lost on a power cut.

Write-ahead log with `synchronous=FULL`, STRICT tables, `BEGIN IMMEDIATE`, a lock file against a
second process. Not for network file systems: their locks do not hold.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from expertplane_server.core.plan import Plan, PlanState
from expertplane_server.core.recovered import Recovered
from expertplane_server.store import refusals
from expertplane_server.store.base import KEEP_PLANS
from expertplane_server.store.database import Database
from expertplane_server.store.tables import deployments, forecasts, journal, members, plans


if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from expertplane_server.core.plan import Decision, ParkedPlan, PlanDraft, Request
    from expertplane_server.core.spec import Deployment, DeploymentSpec
    from expertplane_server.store.base import Answered


class SqliteStore:
    """A store in one file; see `Store` for the contract.

    Args:
        path: the database file; its folder is made when it is missing.
        keep_plans: number of plans of a deployment that are kept, at least 2.

    Raises:
        StoreInUseError: another process has it open.
        StoreDamagedError: it fails its integrity check, or a later release wrote it.
        StoreError: it cannot be opened.
    """

    def __init__(self, path: Path, *, keep_plans: int = KEEP_PLANS) -> None:
        refusals.check_keep_plans(keep_plans)
        self._keep_plans = keep_plans
        self._database = Database(path)
        with ExitStack() as undo:
            undo.callback(self._database.close)
            self._epoch = self._bump_epoch()
            undo.pop_all()

    @property
    def epoch(self) -> int:
        """The owner's term."""
        return self._epoch

    def deployments(self) -> list[Deployment]:
        """Returns every deployment, by name."""
        with self._database.transaction() as connection:
            return deployments.find_all(connection)

    def create_deployment(
        self, name: str, spec: DeploymentSpec, *, request_id: str, now_s: float
    ) -> tuple[Deployment, bool]:
        """Adds a deployment."""
        request = refusals.creation_of(name, request_id)
        with self._database.transaction() as connection:
            present = deployments.find(connection, name)
            first = journal.answered(connection, request_id)
            repeated = refusals.repeated_creation(request, first, present)
            if repeated is not None:
                return repeated, False
            if present is not None:
                raise refusals.name_taken(name)
            journal.remember(connection, request, answer=0, now_s=now_s)
            return deployments.insert(connection, name, spec, now_s=now_s), True

    def delete_deployment(self, name: str, *, etag: str, request_id: str, now_s: float) -> bool:
        """Removes a deployment with its plans; its counter stays."""
        request = refusals.removal_of(name, request_id)
        with self._database.transaction() as connection:
            if refusals.is_repeated(request, journal.answered(connection, request_id)):
                return False
            deployment = deployments.get(connection, name)
            if etag:
                refusals.check_etag(deployment, etag)
            deployments.delete(connection, name)
            journal.remember(connection, request, answer=0, now_s=now_s)
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
        with self._term(epoch) as connection:
            before = deployments.get(connection, name)
            self._check_new(connection, request)
            refusals.check_etag(before, etag)
            generation = before.generation + is_new_generation
            if is_new_generation and refusals.has_same_load(before.spec, spec):
                forecasts.take_along(connection, name, generation)
            elif is_new_generation:
                forecasts.delete(connection, name)
            journal.remember(connection, request, answer=0, now_s=now_s)
            return deployments.set_spec(connection, name, spec, generation=generation)

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
        with self._term(epoch) as connection:
            deployments.get(connection, name)
            self._check_new(connection, request)
            journal.remember(connection, request, answer=0, now_s=now_s)
            return deployments.set_paused(
                connection, name, is_paused=is_paused, comment=comment if is_paused else ""
            )

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
        name = draft.deployment
        with self._term(epoch) as connection:
            deployment = deployments.get(connection, name)
            self._check_new(connection, request)
            refusals.check_head(deployment, expected_head)
            version = deployment.head + 1
            plan = Plan(draft=draft, version=version, epoch=epoch, state=state, created_at_s=now_s)
            if state.is_in_force:
                plans.supersede(connection, name)
                deployments.set_committed(connection, name, version)
            plans.insert(connection, plan)
            deployments.set_head(connection, name, version)
            journal.enter(connection, name, replace(decision, plan_version=version))
            answer = request.answer(version, decision) if request is not None else 0
            journal.remember(connection, request, answer=answer, now_s=now_s)
            plans.prune(connection, name, keep=self._keep_plans)
        return plan

    def commit(self, deployment: str, version: int, *, epoch: int) -> None:
        """Commits a staging plan, which supersedes the one committed before."""
        with self._term(epoch) as connection:
            state = plans.state_of(connection, deployment, version)
            if refusals.is_commit_due(deployments.get(connection, deployment), version, state):
                plans.supersede(connection, deployment)
                plans.set_state(connection, deployment, version, PlanState.COMMITTED)
                deployments.set_committed(connection, deployment, version)

    def abort(
        self, deployment: str, version: int, *, decision: Decision, epoch: int, now_s: float
    ) -> None:
        """Gives a staging plan up, with the decision that says why."""
        with self._term(epoch) as connection:
            state = plans.state_of(connection, deployment, version)
            if refusals.is_abort_due(deployments.get(connection, deployment), version, state):
                plans.set_state(connection, deployment, version, PlanState.ABORTED)
                journal.enter(connection, deployment, decision)

    def mark_applied(self, deployment: str, version: int, *, epoch: int) -> None:
        """Notes that every member serves with a committed version."""
        with self._term(epoch) as connection:
            plans.mark_applied(connection, deployment, version)

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
        with self._term(epoch) as connection:
            deployments.get(connection, deployment)
            self._check_new(connection, request)
            journal.enter(connection, deployment, decision)
            journal.remember(connection, request, answer=decision.sequence, now_s=now_s)

    def park(self, deployment: str, parked: ParkedPlan, *, epoch: int) -> None:
        """Remembers that a participant refuses a placement for good."""
        with self._term(epoch) as connection:
            if deployments.find(connection, deployment) is not None:
                members.park(connection, deployment, parked)

    def supersede(self, deployment: str, incarnation: str, *, epoch: int) -> None:
        """Remembers that an incarnation is refused for good."""
        with self._term(epoch) as connection:
            if deployments.find(connection, deployment) is not None:
                members.supersede(connection, deployment, incarnation)

    def recover(self, deployment: str, *, num_plans: int) -> Recovered:
        """Returns what a deployment's core needs to go on."""
        with self._database.transaction() as connection:
            found = deployments.get(connection, deployment)
            return Recovered(
                deployment=found,
                plans=tuple(plans.find_latest(connection, found, limit=num_plans)),
                decisions=journal.find_all(connection, deployment),
                parked=members.find_parked(connection, deployment),
                superseded=members.find_superseded(connection, deployment),
            )

    def answered(self, request_id: str) -> Answered | None:
        """Returns what a request id was used for, if it was."""
        with self._database.transaction() as connection:
            return journal.answered(connection, request_id)

    def decision(self, deployment: str, sequence: int) -> Decision:
        """Returns one decision of the journal."""
        with self._database.transaction() as connection:
            decision = journal.find(connection, deployment, sequence)
        if decision is None:
            raise refusals.no_such_decision(deployment, sequence)
        return decision

    def plan(self, deployment: str, version: int) -> Plan:
        """Returns one plan."""
        with self._database.transaction() as connection:
            plan = plans.find(connection, deployment, version)
        if plan is None:
            raise refusals.no_such_plan(deployment, version)
        return plan

    def plans(
        self, deployment: str, *, below: int, limit: int, has_transfers: bool = True
    ) -> list[Plan]:
        """Returns up to `limit` plans with versions under `below`, newest first."""
        with self._database.transaction() as connection:
            return plans.find_below(
                connection, deployment, below=below, limit=limit, has_transfers=has_transfers
            )

    def raise_counters(self, deployment: str, *, version: int, epoch: int) -> tuple[int, int]:
        """Lifts head and epoch above what a participant has seen."""
        with self._database.transaction() as connection:
            current = deployments.get(connection, deployment)
            head = max(current.head, version)
            raised = refusals.raised_epoch(self._epoch, epoch, is_behind=version > current.head)
            deployments.set_head(connection, deployment, head)
            connection.execute("UPDATE term SET epoch = ?", (raised,))
        self._epoch = raised
        return head, raised

    def save_forecast(
        self, deployment: str, generation: int, checkpoint: bytes, *, now_s: float
    ) -> None:
        """Keeps the forecast of a deployment, in place of an earlier one."""
        with self._database.transaction() as connection:
            forecasts.save(connection, deployment, generation, checkpoint, now_s=now_s)

    def forecast(self, deployment: str, generation: int) -> bytes | None:
        """Returns the forecast that was kept last, if there is one."""
        with self._database.transaction() as connection:
            return forecasts.find(connection, deployment, generation)

    def close(self) -> None:
        """Closes the file and gives the lock back."""
        self._database.close()

    def _bump_epoch(self) -> int:
        """Starts a new term, durably."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE term SET epoch = epoch + 1")
            return _stored_epoch(connection)

    @contextmanager
    def _term(self, epoch: int) -> Iterator[sqlite3.Connection]:
        """Runs one transaction of an owner.

        Raises:
            ConflictError: its term is over; whoever took over may be another process.
        """
        with self._database.transaction() as connection:
            refusals.check_epoch(epoch, _stored_epoch(connection))
            yield connection

    def _check_new(self, connection: sqlite3.Connection, request: Request | None) -> None:
        """Refuses a request id that was used before.

        Raises:
            ConflictError: it was.
        """
        first = journal.answered(connection, request.id) if request is not None else None
        refusals.check_new(request, first)


def _stored_epoch(connection: sqlite3.Connection) -> int:
    """Reads the term from the file."""
    return int(connection.execute("SELECT epoch FROM term").fetchone()["epoch"])
