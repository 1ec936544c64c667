"""What every store decides alike: refusals in one wording, and how far an epoch jumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_server.core.errors import AlreadyExistsError, ConflictError, NotFoundError


if TYPE_CHECKING:
    from expertplane_server.core.spec import Deployment


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


def name_taken(name: str) -> AlreadyExistsError:
    """Returns the refusal of a second deployment of one name."""
    return AlreadyExistsError(
        f"Expected a new name, got {name!r}, which exists.", field="name", reason="NAME_TAKEN"
    )


def repeated_creation(name: str, present: Deployment | None, first: str) -> Deployment:
    """Returns the first answer to a creation that is asked for again.

    Args:
        name: the deployment to create.
        present: the deployment of that name, if there is one.
        first: what the request id was used for, as `creation_of` or `removal_of` writes it.

    Raises:
        ConflictError: the request id belongs to another call, or what it created is gone.
    """
    if present is None:
        raise _request_id_reused(creation_of(name), first)
    check_repeated(creation_of(name), first)
    return present


def check_repeated(call: str, first: str) -> None:
    """Refuses a request id that was used for another call.

    Raises:
        ConflictError: it was.
    """
    if call != first:
        raise _request_id_reused(call, first)


def creation_of(name: str) -> str:
    """Names the call that a request id belongs to."""
    return f"create {name}"


def removal_of(name: str) -> str:
    """Names the call that a request id belongs to."""
    return f"delete {name}"


def _request_id_reused(call: str, first: str) -> ConflictError:
    """Returns the refusal of a request id that cannot be repeated."""
    return ConflictError(
        f"Expected a request id of its own to {call}; this one was used to {first}.",
        field="request_id",
        reason="REQUEST_ID_REUSED",
    )


def check_etag(deployment: Deployment, etag: str) -> None:
    """Refuses a change that was written against an older spec.

    Raises:
        ConflictError: `etag` is neither empty nor current.
    """
    if etag not in ("", deployment.etag):
        raise ConflictError(
            f"Expected the current etag {deployment.etag!r}, got {etag!r}.",
            field="etag",
            reason="STALE_ETAG",
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
