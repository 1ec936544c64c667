"""The SQLite file's schema, version by version, and how a file comes to the present one.

A new file goes through all versions, one of an earlier release through those that it lacks; each
in one transaction with its number.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from expertplane_server.store.base import StoreDamagedError, StoreError


if TYPE_CHECKING:
    from pathlib import Path

_VERSIONS = (
    """
CREATE TABLE term (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL) STRICT;
INSERT INTO term VALUES (1, 0);
CREATE TABLE counters (deployment TEXT PRIMARY KEY, head INTEGER NOT NULL) STRICT;
CREATE TABLE deployments (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    etag TEXT NOT NULL,
    generation INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    created_at_s REAL NOT NULL
) STRICT;
CREATE TABLE plans (
    deployment TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    state TEXT NOT NULL,
    digest TEXT NOT NULL,
    num_layers INTEGER NOT NULL,
    num_slots INTEGER NOT NULL,
    num_logical_experts INTEGER NOT NULL,
    phy2log BLOB NOT NULL,
    provenance TEXT NOT NULL,
    created_at_s REAL NOT NULL,
    PRIMARY KEY (deployment, version)
) STRICT;
CREATE TABLE requests (
    request_id TEXT PRIMARY KEY,
    call TEXT NOT NULL,
    created_at_s REAL NOT NULL
) STRICT;
""",
    """
ALTER TABLE plans ADD COLUMN transfers BLOB;
CREATE TABLE forecasts (
    deployment TEXT PRIMARY KEY REFERENCES deployments (name) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    checkpoint BLOB NOT NULL,
    written_at_s REAL NOT NULL
) STRICT;
""",
    """
ALTER TABLE deployments ADD COLUMN is_paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deployments ADD COLUMN pause_comment TEXT NOT NULL DEFAULT '';
ALTER TABLE requests ADD COLUMN answer INTEGER NOT NULL DEFAULT 0;
CREATE TABLE decisions (
    deployment TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (deployment, sequence)
) STRICT;
CREATE TABLE parked (
    id INTEGER PRIMARY KEY,
    deployment TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
    participant TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    digest TEXT NOT NULL,
    UNIQUE (deployment, participant, digest)
) STRICT;
CREATE TABLE superseded (
    id INTEGER PRIMARY KEY,
    deployment TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
    incarnation TEXT NOT NULL,
    UNIQUE (deployment, incarnation)
) STRICT;
""",
)
SCHEMA_VERSION = len(_VERSIONS)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Checks a database and brings it to the present schema.

    Args:
        connection: to the database, in autocommit.
        path: its file, for messages.

    Raises:
        StoreDamagedError: the file fails its check, or a later release wrote it.
        StoreError: it is sound, and could not be brought to the present schema.
        sqlite3.Error: it cannot be read.
    """
    version = check(connection, path)
    for number, script in enumerate(_VERSIONS[version:], start=version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;"
            )
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise StoreError(
                f"Expected to bring {path} to schema version {number}, got: {error}. "
                f"It stays at version {number - 1}."
            ) from error


def check(connection: sqlite3.Connection, path: Path) -> int:
    """Checks a database without changing it.

    Args:
        connection: to the database, in autocommit.
        path: its file, for messages.

    Returns:
        Its schema version; 0 for one that is still empty.

    Raises:
        StoreDamagedError: the file fails its check, or a later release wrote it.
        sqlite3.Error: it cannot be read.
    """
    verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
    if verdict != "ok":
        raise StoreDamagedError(f"Expected {path} to pass its check, got: {verdict}.")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not 0 <= version <= SCHEMA_VERSION:
        raise StoreDamagedError(
            f"Expected schema version {SCHEMA_VERSION} or earlier in {path}, got {version}."
        )
    return version
