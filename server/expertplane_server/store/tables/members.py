"""What participants are remembered for: placements that they refuse, and earlier incarnations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_server.core import limits
from expertplane_server.core.plan import ParkedPlan
from expertplane_server.store import bounds


if TYPE_CHECKING:
    import sqlite3


def park(connection: sqlite3.Connection, deployment: str, parked: ParkedPlan) -> None:
    """Remembers a refusal, and forgets the oldest, and those of other incarnations."""
    participant = parked.participant
    connection.execute(
        "DELETE FROM parked WHERE deployment = ? AND participant = ? AND incarnation != ?",
        (deployment, participant, parked.incarnation),
    )
    connection.execute(
        "INSERT OR REPLACE INTO parked (deployment, participant, incarnation, digest) "
        "VALUES (?, ?, ?, ?)",
        (deployment, participant, parked.incarnation, parked.digest),
    )
    connection.execute(
        "DELETE FROM parked WHERE deployment = ? AND participant = ? AND id <= "
        "(SELECT id FROM parked WHERE deployment = ? AND participant = ? "
        "ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (deployment, participant, deployment, participant, bounds.MAX_PARKED),
    )
    connection.execute(
        "DELETE FROM parked WHERE deployment = ? AND participant IN "
        "(SELECT participant FROM parked WHERE deployment = ? GROUP BY participant "
        "ORDER BY max(id) DESC LIMIT -1 OFFSET ?)",
        (deployment, deployment, limits.MAX_MEMBERS),
    )


def find_parked(connection: sqlite3.Connection, deployment: str) -> tuple[ParkedPlan, ...]:
    """Returns all refusals, oldest first."""
    rows = connection.execute(
        "SELECT participant, incarnation, digest FROM parked WHERE deployment = ? ORDER BY id",
        (deployment,),
    )
    return tuple(ParkedPlan(**dict(row)) for row in rows)


def supersede(connection: sqlite3.Connection, deployment: str, incarnation: str) -> None:
    """Remembers an incarnation, as the latest one, and forgets the oldest."""
    connection.execute(
        "INSERT OR REPLACE INTO superseded (deployment, incarnation) VALUES (?, ?)",
        (deployment, incarnation),
    )
    connection.execute(
        "DELETE FROM superseded WHERE deployment = ? AND id <= (SELECT id FROM superseded "
        "WHERE deployment = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (deployment, deployment, limits.MAX_MEMBERS),
    )


def find_superseded(connection: sqlite3.Connection, deployment: str) -> tuple[str, ...]:
    """Returns all superseded incarnations, oldest first."""
    rows = connection.execute(
        "SELECT incarnation FROM superseded WHERE deployment = ? ORDER BY id", (deployment,)
    )
    return tuple(row["incarnation"] for row in rows)
