"""Makes a deployment what a file says: creates it, updates it, or leaves it alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from expertplane.v1 import deployment_pb2

from .errors import NotFoundError
from .spec_document import changed_fields


if TYPE_CHECKING:
    from collections.abc import Mapping

    from .blocking import BlockingClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What was done about a deployment, or would be."""

    name: str
    """The deployment."""

    action: str
    """"created", "updated" or "unchanged"."""

    changes: Mapping[str, tuple[Any | None, Any | None]] = field(default_factory=dict)
    """Old and new value of every changed field by path; None for absent ones."""

    etag: str = ""
    """Etag of the spec in force; empty where there is none."""

    generation: int = 0
    """Generation in force; 0 where there is none."""


def apply_deployment(
    client: BlockingClient,
    name: str,
    spec: deployment_pb2.DeploymentSpec,
    *,
    is_dry_run: bool = False,
    request_id: str | None = None,
) -> Applied:
    """Makes a deployment what a spec says, and returns what that took.

    Specs are compared with the defaults of the contract spelt out, so that what is there already
    is left alone, etag included. A spec without a policy's name keeps the one that there is: only
    the planner knows its default.

    Args:
        client: The planner to ask.
        name: "namespace/name".
        spec: What to plan for.
        is_dry_run: Whether to leave everything as it is.
        request_id: Makes a repeated call return the first answer; None draws a new UUID.

    Raises:
        CallError: the planner refuses, or cannot be asked; `AbortedError` where somebody else has
            changed the deployment in the meantime.
    """
    try:
        current = client.get_deployment(name)
    except NotFoundError:
        if is_dry_run:
            return Applied(name=name, action="created")
        created = client.create_deployment(name, spec, request_id=request_id)
        return _applied("created", created)
    wanted = deployment_pb2.DeploymentSpec()
    wanted.CopyFrom(spec)
    if not wanted.policy.name:
        wanted.policy.name = current.spec.policy.name
    changes = changed_fields(current.spec, wanted)
    if not changes:
        return _applied("unchanged", current)
    if is_dry_run:
        return _applied("updated", current, changes)
    updated = client.update_deployment(name, wanted, etag=current.etag, request_id=request_id)
    # The planner's word counts: it may know that both specs mean the same.
    if updated.etag == current.etag:
        return _applied("unchanged", updated)
    return _applied("updated", updated, changes)


def _applied(
    action: str,
    deployment: deployment_pb2.Deployment,
    changes: Mapping[str, tuple[Any | None, Any | None]] | None = None,
) -> Applied:
    return Applied(
        name=deployment.name,
        action=action,
        changes=changes or {},
        etag=deployment.etag,
        generation=deployment.generation,
    )
