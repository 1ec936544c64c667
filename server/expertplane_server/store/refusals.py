"""What every store decides alike: refusals in one wording, and what a change entails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_server.core.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
)
from expertplane_server.core.plan import PlanState, Request


if TYPE_CHECKING:
    from expertplane_server.core.spec import Deployment, DeploymentSpec
    from expertplane_server.store.base import Answered


def no_such_deployment(name: str) -> NotFoundError:
    """Returns the refusal of an unknown deployment."""
    return NotFoundError(
        f"Expected an existing deployment, got {name!r}.", reason="DEPLOYMENT_UNKNOWN"
    )


def no_such_plan(deployment: str, version: int) -> NotFoundError:
    """Returns the refusal of an unknown version."""
    return NotFoundError(
        f"Expected an existing version of {deployment}, got {version}.",
        reason="PLAN_VERSION_UNKNOWN",
    )


def no_such_decision(deployment: str, sequence: int) -> NotFoundError:
    """Returns the refusal of a decision that the journal does not hold."""
    return NotFoundError(
        f"Expected a decision of {deployment} that is still kept, got {sequence}.",
        reason="DECISION_UNKNOWN",
    )


def name_taken(name: str) -> AlreadyExistsError:
    """Returns the refusal of a second deployment of one name."""
    return AlreadyExistsError(
        f"Expected a new name, got {name!r}, which exists.", field="name", reason="NAME_TAKEN"
    )


def check_keep_plans(keep_plans: int) -> None:
    """Refuses to keep so few plans that there is none to go back to.

    Raises:
        InvalidArgumentError: they are fewer than two.
    """
    if keep_plans < 2:
        raise InvalidArgumentError(
            f"Expected to keep at least 2 plans, got {keep_plans}.", field="keep_plans"
        )


def creation_of(name: str, request_id: str) -> Request | None:
    """Returns the call that a request id belongs to; None without an id."""
    return Request(request_id, f"create {name}") if request_id else None


def removal_of(name: str, request_id: str) -> Request | None:
    """Returns the call that a request id belongs to; None without an id."""
    return Request(request_id, f"delete {name}") if request_id else None


def is_repeated(request: Request | None, first: Answered | None) -> bool:
    """Tells whether a call that may be repeated has been carried out before.

    Args:
        request: the call; None when it has no request id.
        first: what the request id was used for, if it was.

    Raises:
        ConflictError: the request id was used for another call.
    """
    if request is None or first is None:
        return False
    if request.call != first.call:
        raise _request_id_reused(request, first)
    return True


def repeated_creation(
    request: Request | None, first: Answered | None, present: Deployment | None
) -> Deployment | None:
    """Returns the first answer to a creation that is asked for again; None to one that is not.

    Args:
        request: the creation; None when it has no request id.
        first: what the request id was used for, if it was.
        present: the deployment of that name, if there is one.

    Raises:
        ConflictError: the request id belongs to another call, or what it created is gone.
    """
    if request is None or first is None:
        return None
    if not is_repeated(request, first) or present is None:
        raise _request_id_reused(request, first)
    return present


def check_new(request: Request | None, first: Answered | None) -> None:
    """Refuses a request id that was used before: the caller has looked it up, and found nothing.

    Raises:
        ConflictError: it was.
    """
    if request is not None and first is not None:
        raise _request_id_reused(request, first)


def _request_id_reused(request: Request, first: Answered) -> ConflictError:
    """Returns the refusal of a request id that cannot be repeated."""
    return ConflictError(
        f"Expected a request id of its own to {request.call}; this one was used to {first.call}.",
        field="request_id",
        reason="REQUEST_ID_REUSED",
    )


def check_etag(deployment: Deployment, etag: str) -> None:
    """Refuses a change that was written against an older spec.

    Raises:
        ConflictError: `etag` is not current.
    """
    if etag != deployment.etag:
        raise ConflictError(
            f"Expected the current etag {deployment.etag!r}, got {etag!r}.",
            field="etag",
            reason="STALE_ETAG",
        )


def check_head(deployment: Deployment, expected_head: int) -> None:
    """Refuses a plan that was made without knowing the latest version.

    Raises:
        ConflictError: the head is another.
    """
    if expected_head != deployment.head:
        raise ConflictError(
            f"Expected the current head {deployment.head} of {deployment.name}, "
            f"got {expected_head}.",
            field="expected_head",
            reason="STALE_HEAD",
        )


def is_commit_due(deployment: Deployment, version: int, state: PlanState) -> bool:
    """Tells whether a plan is still to be committed.

    Raises:
        ConflictError: it cannot be any more.
    """
    if state.is_in_force:
        return False
    if state is not PlanState.STAGING or version < deployment.committed:
        raise _not_staging(deployment, version, state)
    return True


def is_abort_due(deployment: Deployment, version: int, state: PlanState) -> bool:
    """Tells whether a plan is still to be given up.

    Raises:
        ConflictError: it cannot be any more.
    """
    if state is PlanState.ABORTED:
        return False
    if state is not PlanState.STAGING:
        raise _not_staging(deployment, version, state)
    return True


def _not_staging(deployment: Deployment, version: int, state: PlanState) -> ConflictError:
    """Returns the refusal to decide about a plan that has been decided about."""
    return ConflictError(
        f"Expected version {version} of {deployment.name} to be staging, above the committed "
        f"version {deployment.committed}, got {state}.",
        reason="PLAN_NOT_STAGING",
    )


def has_same_load(before: DeploymentSpec, after: DeploymentSpec) -> bool:
    """Tells whether what was learned of the load before a change of the spec holds after it."""
    return (
        before.layer_ids == after.layer_ids
        and before.num_logical_experts == after.num_logical_experts
    )


def check_epoch(epoch: int, current: int) -> None:
    """Refuses the write of an owner whose term is over.

    Raises:
        ConflictError: it is.
    """
    if epoch != current:
        raise ConflictError(
            f"Expected the current epoch {current}, got {epoch}.", reason="STALE_EPOCH"
        )


def raised_epoch(current: int, seen: int, *, is_behind: bool) -> int:
    """Returns the epoch after a participant has told what it has seen.

    A store that lags behind in versions may have reached the same number by another way, so a new
    term starts even when the numbers are equal.

    Args:
        current: the store's epoch.
        seen: the highest epoch that the participant has seen.
        is_behind: the participant has seen a version that the store does not know.
    """
    if seen > current or (is_behind and seen >= current):
        return seen + 1
    return current
