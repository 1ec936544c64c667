"""Decisions, and the request ids of what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_server.core import limits
from expertplane_server.store import bounds, codec
from expertplane_server.store.base import Answered
from expertplane_server.store.damage import damage_in


if TYPE_CHECKING:
    import sqlite3

    from expertplane_server.core.plan import Decision, Request


def enter(connection: sqlite3.Connection, deployment: str, decision: Decision) -> None:
    """Enters a decision, in place of one of the same sequence, and forgets the oldest."""
    connection.execute(
        "INSERT OR REPLACE INTO decisions VALUES (?, ?, ?)",
        (deployment, decision.sequence, codec.decision_to_json(decision)),
    )
    connection.execute(
        "DELETE FROM decisions WHERE deployment = ? AND sequence <= (SELECT sequence FROM "
        "decisions WHERE deployment = ? ORDER BY sequence DESC LIMIT 1 OFFSET ?)",
        (deployment, deployment, limits.MAX_JOURNAL),
    )


def find(connection: sqlite3.Connection, deployment: str, sequence: int) -> Decision | None:
    """Returns a decision, or None."""
    row = connection.execute(
        "SELECT * FROM decisions WHERE deployment = ? AND sequence = ?", (deployment, sequence)
    ).fetchone()
    return _decision(row) if row is not None else None


def find_all(connection: sqlite3.Connection, deployment: str) -> tuple[Decision, ...]:
    """Returns all decisions, oldest first."""
    rows = connection.execute(
        "SELECT * FROM decisions WHERE deployment = ? ORDER BY sequence", (deployment,)
    )
    return tuple(_decision(row) for row in rows)


def answered(connection: sqlite3.Connection, request_id: str) -> Answered | None:
    """Returns what a request id was used for, or None."""
    row = connection.execute(
        "SELECT call, answer FROM requests WHERE request_id = ?", (request_id,)
    ).fetchone()
    return Answered(**dict(row)) if row is not None else None


def remember(
    connection: sqlite3.Connection, request: Request | None, *, answer: int, now_s: float
) -> None:
    """Remembers a request in the transaction that it asked for, and forgets the oldest."""
    if request is None:
        return
    connection.execute(
        "INSERT INTO requests (request_id, call, created_at_s, answer) VALUES (?, ?, ?, ?)",
        (request.id, request.call, now_s, answer),
    )
    connection.execute(
        "DELETE FROM requests WHERE rowid <= "
        "(SELECT rowid FROM requests ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
        (bounds.MAX_REQUESTS,),
    )


def _decision(row: sqlite3.Row) -> Decision:
    """Builds a decision from its row.

    Raises:
        StoreDamagedError: it cannot be read.
    """
    with damage_in(f"decision {row['sequence']} of {row['deployment']}"):
        return codec.decision_from_json(row["content"])
