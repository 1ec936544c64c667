"""What the service asks of a store.

    StoreError
    +-- StoreInUseError     another process owns it
    +-- StoreDamagedError   its content fails a check

Every method is one transaction: when it returns, the change is durable; when it raises, the change
was not made, or its outcome is unknown and whatever version it took is never used again. Methods
block; the service calls them from one thread of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from expertplane_server.core.errors import UnavailableError


if TYPE_CHECKING:
    from expertplane_server.core.plan import (
        Decision,
        ParkedPlan,
        Plan,
        PlanDraft,
        PlanState,
        Request,
    )
    from expertplane_server.core.recovered import Recovered
    from expertplane_server.core.spec import Deployment, DeploymentSpec


KEEP_PLANS = 64
"""Plans of a deployment that are kept: enough for days of publication, and some megabytes."""


class StoreError(UnavailableError):
    """The store cannot be read or written."""

    default_reason = "STORE_UNAVAILABLE"


class StoreInUseError(StoreError):
    """Another process owns the store."""

    default_reason = "STORE_IN_USE"


class StoreDamagedError(StoreError):
    """What the store holds fails a check."""

    default_reason = "STORE_DAMAGED"


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that was carried out.

    Attributes:
        call: as in `Request`.
        answer: the version that was published, or the sequence of the decision; 0 for other calls.
    """

    call: str
    answer: int


class Store(Protocol):
    """Durable, versioned state of all deployments. Opening it starts a new epoch.

    Plans are immutable but for their state, and the latest `keep_plans` of a deployment are kept,
    the committed and the staging one always. Where a method takes an `epoch`, one that is not the
    store's is a ConflictError: a later owner has taken over.
    """

    @property
    def epoch(self) -> int:
        """The owner's term; fences the writes of earlier owners."""
        ...

    def deployments(self) -> list[Deployment]:
        """Returns every deployment, by name."""
        ...

    def create_deployment(
        self, name: str, spec: DeploymentSpec, *, request_id: str, now_s: float
    ) -> tuple[Deployment, bool]:
        """Adds a deployment. Its versions go on above those of an earlier one of the same name.

        Returns:
            The deployment, and whether it is new: a repeated `request_id` returns the first
            answer.

        Raises:
            AlreadyExistsError: the name is taken.
            ConflictError: the request id was used for something else.
        """
        ...

    def delete_deployment(self, name: str, *, etag: str, request_id: str, now_s: float) -> bool:
        """Removes a deployment with its plans; its counter stays.

        Returns:
            Whether it is gone by this call: a repeated `request_id` removes nothing more.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: `etag` is neither empty nor current, or the request id was used for
                something else.
        """
        ...

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
        """Replaces a spec, under a new etag and, if asked for, a new generation.

        The forecast is taken along into a new generation where layers and experts are the same.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: `etag` is not current, or the request id was used before.
        """
        ...

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
        """Pauses a deployment, or lifts its pause, whether or not it is paused already.

        The comment is kept while the pause lasts. The etag stays.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: the request id was used before.
        """
        ...

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
        """Assigns the next version to a draft; its decision goes into the journal with it.

        Args:
            draft: what to publish.
            state: STAGING, or COMMITTED, which supersedes the plan committed before.
            decision: its `plan_version` is set to the new version.
            expected_head: the head that the caller knows.
            epoch: the caller's term.
            request: remembered, with the version as its answer, or the sequence of the decision
                where it `is_for_decision`.
            now_s: wall-clock time.

        Raises:
            NotFoundError: the deployment is gone.
            ConflictError: the head is another, or the request id was used before.
        """
        ...

    def commit(self, deployment: str, version: int, *, epoch: int) -> None:
        """Commits a staging plan, which supersedes the one committed before; once is enough.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: it is aborted, or superseded, or lower than the committed version.
        """
        ...

    def abort(
        self, deployment: str, version: int, *, decision: Decision, epoch: int, now_s: float
    ) -> None:
        """Gives a staging plan up, with the decision that says why; once is enough.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: it is committed, or has been.
        """
        ...

    def mark_applied(self, deployment: str, version: int, *, epoch: int) -> None:
        """Notes that every member serves with a committed version; no-op for any other state."""
        ...

    def record(
        self,
        deployment: str,
        decision: Decision,
        *,
        epoch: int,
        request: Request | None,
        now_s: float,
    ) -> None:
        """Enters a decision in the journal, in place of one of the same sequence.

        The latest `limits.MAX_JOURNAL` decisions are kept.

        Raises:
            NotFoundError: the deployment is gone.
            ConflictError: the request id was used before.
        """
        ...

    def park(self, deployment: str, parked: ParkedPlan, *, epoch: int) -> None:
        """Remembers that a participant refuses a placement for good.

        What other incarnations of the participant refused is forgotten, and the oldest of what
        exceeds `bounds.MAX_PARKED` a participant or `limits.MAX_MEMBERS` participants. No-op when
        the deployment is gone.
        """
        ...

    def supersede(self, deployment: str, incarnation: str, *, epoch: int) -> None:
        """Remembers that an incarnation is refused for good: the latest `limits.MAX_MEMBERS`.

        No-op when the deployment is gone.
        """
        ...

    def recover(self, deployment: str, *, num_plans: int) -> Recovered:
        """Returns what a deployment's core needs to go on, from one transaction.

        Args:
            deployment: whose state it is.
            num_plans: number of plans, the latest ones, at most; with the committed one besides.

        Raises:
            NotFoundError: there is no such deployment.
        """
        ...

    def answered(self, request_id: str) -> Answered | None:
        """Returns what a request id was used for, if it was."""
        ...

    def decision(self, deployment: str, sequence: int) -> Decision:
        """Returns one decision of the journal.

        Raises:
            NotFoundError: there is none of this sequence any more.
        """
        ...

    def plan(self, deployment: str, version: int) -> Plan:
        """Returns one plan.

        Raises:
            NotFoundError: there is no such version.
        """
        ...

    def plans(
        self, deployment: str, *, below: int, limit: int, has_transfers: bool = True
    ) -> list[Plan]:
        """Returns up to `limit` plans with versions under `below`, newest first.

        Args:
            deployment: whose plans they are.
            below: versions from here on are left out.
            limit: number of plans, at most.
            has_transfers: whether the plans come with their transfers.
        """
        ...

    def raise_counters(self, deployment: str, *, version: int, epoch: int) -> tuple[int, int]:
        """Lifts the head of a deployment and the epoch above what a participant has seen.

        Returns:
            The head, at least `version`, and the epoch: above `epoch` when either was behind.
        """
        ...

    def save_forecast(
        self, deployment: str, generation: int, checkpoint: bytes, *, now_s: float
    ) -> None:
        """Keeps the forecast of a deployment, in place of an earlier one.

        No-op when the deployment is gone or has another generation by now.
        """
        ...

    def forecast(self, deployment: str, generation: int) -> bytes | None:
        """Returns the forecast that was kept last for a generation, if there is one.

        What it contains is the solver's to check.
        """
        ...

    def close(self) -> None:
        """Gives the store back; it is not used any more."""
        ...
