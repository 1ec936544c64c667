"""The SQLite file: its one owner, how it is opened, and its transactions."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from expertplane_server.store import schema
from expertplane_server.store.base import StoreDamagedError, StoreError
from expertplane_server.store.lock import lock_file


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Database:
    """An open file that belongs to this process, in the present schema.

    Args:
        path: the file; its folder is made when it is missing.

    Raises:
        StoreInUseError: another process has it open.
        StoreDamagedError: it fails its integrity check, or a later release wrote it.
        StoreError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = lock_file(path)
        with ExitStack() as undo:
            undo.callback(self._lock.close)
            self._connection = _open(path)
            undo.pop_all()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Runs one transaction.

        Raises:
            StoreError: SQLite cannot carry it out; nothing of it is kept.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._roll_back()
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise StoreError(f"Expected to write {self._path}, got: {error}.") from error

    def close(self) -> None:
        """Closes the file and gives the lock back."""
        self._connection.close()
        self._lock.close()

    def _roll_back(self) -> None:
        """Undoes the open transaction, unless SQLite has done so itself (as on a full disk)."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _open(path: Path) -> sqlite3.Connection:
    """Opens, checks and if need be creates the database."""
    try:
        # Opened in one thread, used in the service's store thread, never in two at once.
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=5.0
        )
    except sqlite3.Error as error:
        raise StoreError(f"Expected to open {path}, got: {error}.") from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        message = f"Expected a readable SQLite file at {path}, got: {error}."
        raise StoreDamagedError(message) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Sets the connection up, checks the database and if need be creates its tables.

    Raises:
        StoreDamagedError: the file fails its check, or a later release wrote it.
        StoreError: its schema could not be brought up to date.
    """
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    schema.prepare(connection, path)
