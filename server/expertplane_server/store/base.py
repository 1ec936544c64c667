"""What the service asks of a store.

    StoreError
    +-- StoreInUseError     another process owns it
    +-- StoreDamagedError   its content fails a check

Every method is one transaction: when it returns, the change is durable; when it raises, the change
was not made, or its outcome is unknown and whatever version it took is never used again. Methods
block; the service calls them from one thread of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from expertplane_server.core.errors import UnavailableError


if TYPE_CHECKING:
    from expertplane_server.core.plan import Plan, PlanDraft
    from expertplane_server.core.spec import Deployment, DeploymentSpec


class StoreError(UnavailableError):
    """The store cannot be read or written."""

    default_reason = "STORE_UNAVAILABLE"


class StoreInUseError(StoreError):
    """Another process owns the store."""

    default_reason = "STORE_IN_USE"


class StoreDamagedError(StoreError):
    """What the store holds fails a check."""

    default_reason = "STORE_DAMAGED"


class Store(Protocol):
    """Durable, versioned state of all deployments. Opening it starts a new epoch."""

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

    def publish(self, draft: PlanDraft, *, epoch: int, now_s: float) -> Plan:
        """Assigns the next version to a draft and commits it.

        Raises:
            NotFoundError: the deployment is gone.
            ConflictError: `epoch` is not the store's: a later owner has taken over.
        """
        ...

    def mark_applied(self, deployment: str, version: int) -> None:
        """Notes that every member serves with a committed version; no-op for any other state."""
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
