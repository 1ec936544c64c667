"""Deployments, and the version counters that outlive them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from expertplane_server.core.spec import Deployment
from expertplane_server.store import codec
from expertplane_server.store.damage import damage_in
from expertplane_server.store.refusals import no_such_deployment


if TYPE_CHECKING:
    import sqlite3

    from expertplane_server.core.spec import DeploymentSpec


_SELECT = (
    "SELECT name, spec, etag, generation, committed, is_paused, pause_comment, head "
    "FROM deployments JOIN counters ON counters.deployment = deployments.name"
)


def find(connection: sqlite3.Connection, name: str) -> Deployment | None:
    """Returns a deployment, or None."""
    row = connection.execute(f"{_SELECT} WHERE name = ?", (name,)).fetchone()
    return _deployment(row) if row is not None else None


def get(connection: sqlite3.Connection, name: str) -> Deployment:
    """Returns a deployment.

    Raises:
        NotFoundError: there is none of this name.
    """
    deployment = find(connection, name)
    if deployment is None:
        raise no_such_deployment(name)
    return deployment


def find_all(connection: sqlite3.Connection) -> list[Deployment]:
    """Returns every deployment, by name."""
    return [_deployment(row) for row in connection.execute(f"{_SELECT} ORDER BY name")]


def insert(
    connection: sqlite3.Connection, name: str, spec: DeploymentSpec, *, now_s: float
) -> Deployment:
    """Adds a deployment; its counter goes on where that of an earlier one stopped."""
    connection.execute(
        "INSERT INTO deployments (name, spec, etag, generation, committed, created_at_s) "
        "VALUES (?, ?, ?, 1, 0, ?)",
        (name, codec.spec_to_json(spec), uuid.uuid4().hex, now_s),
    )
    connection.execute("INSERT OR IGNORE INTO counters VALUES (?, 0)", (name,))
    return get(connection, name)


def delete(connection: sqlite3.Connection, name: str) -> None:
    """Removes a deployment and all that is told of it elsewhere, but for its counter."""
    connection.execute("DELETE FROM deployments WHERE name = ?", (name,))


def set_spec(
    connection: sqlite3.Connection, name: str, spec: DeploymentSpec, *, generation: int
) -> Deployment:
    """Replaces a spec, under a new etag."""
    connection.execute(
        "UPDATE deployments SET spec = ?, etag = ?, generation = ? WHERE name = ?",
        (codec.spec_to_json(spec), uuid.uuid4().hex, generation, name),
    )
    return get(connection, name)


def set_paused(
    connection: sqlite3.Connection, name: str, *, is_paused: bool, comment: str
) -> Deployment:
    """Pauses a deployment, or lifts its pause."""
    connection.execute(
        "UPDATE deployments SET is_paused = ?, pause_comment = ? WHERE name = ?",
        (is_paused, comment, name),
    )
    return get(connection, name)


def set_committed(connection: sqlite3.Connection, name: str, version: int) -> None:
    """Notes the highest version that is committed."""
    connection.execute("UPDATE deployments SET committed = ? WHERE name = ?", (version, name))


def set_head(connection: sqlite3.Connection, name: str, version: int) -> None:
    """Notes the highest version that is assigned."""
    connection.execute("UPDATE counters SET head = ? WHERE deployment = ?", (version, name))


def _deployment(row: sqlite3.Row) -> Deployment:
    """Builds a deployment from its row.

    Raises:
        StoreDamagedError: its spec cannot be read.
    """
    columns: dict[str, Any] = dict(row)
    with damage_in(f"the spec of {columns['name']}"):
        columns["spec"] = codec.spec_from_json(columns["spec"])
    return Deployment(**{**columns, "is_paused": bool(columns["is_paused"])})
