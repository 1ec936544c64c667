"""The latest forecast of each deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import sqlite3


def save(
    connection: sqlite3.Connection,
    deployment: str,
    generation: int,
    checkpoint: bytes,
    *,
    now_s: float,
) -> None:
    """Keeps a forecast, unless the deployment is gone or has another generation."""
    connection.execute(
        "INSERT OR REPLACE INTO forecasts SELECT name, generation, ?, ? FROM deployments "
        "WHERE name = ? AND generation = ?",
        (checkpoint, now_s, deployment, generation),
    )


def find(connection: sqlite3.Connection, deployment: str, generation: int) -> bytes | None:
    """Returns the forecast of a generation, or None."""
    row = connection.execute(
        "SELECT checkpoint FROM forecasts WHERE deployment = ? AND generation = ?",
        (deployment, generation),
    ).fetchone()
    return bytes(row["checkpoint"]) if row is not None else None


def take_along(connection: sqlite3.Connection, deployment: str, generation: int) -> None:
    """Makes the forecast that of another generation."""
    connection.execute(
        "UPDATE forecasts SET generation = ? WHERE deployment = ?", (generation, deployment)
    )


def delete(connection: sqlite3.Connection, deployment: str) -> None:
    """Forgets the forecast."""
    connection.execute("DELETE FROM forecasts WHERE deployment = ?", (deployment,))
