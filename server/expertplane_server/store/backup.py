"""A copy of the SQLite file, taken while a planner goes on writing to it.

Put in place of the original it is an earlier state: the planner that starts on it jumps past the
versions and epochs that its participants have seen (`Store.raise_counters`).
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from expertplane_server.core.errors import AlreadyExistsError, InvalidArgumentError
from expertplane_server.store import schema
from expertplane_server.store.base import StoreDamagedError, StoreError


if TYPE_CHECKING:
    from collections.abc import Iterator

_LOG_SUFFIXES = ("-wal", "-journal")


def backup(source: Path, target: Path, *, replaces: bool = False) -> None:
    """Copies a store as one moment saw it; the copy is there whole or not at all.

    Args:
        source: the store's file; another process may own it.
        target: where the copy goes, in a folder that exists.
        replaces: whether a file that is there already may go.

    Raises:
        AlreadyExistsError: there is such a file.
        InvalidArgumentError: the target is the store itself, or belongs to an open database.
        StoreDamagedError: the copy fails its check, or is no store that this release can read.
        StoreError: the store cannot be read, or the copy not be written.
    """
    try:
        _check_target(source, target, replaces=replaces)
        _copy(source, target)
    except OSError as error:
        raise StoreError(f"Expected to write {target}, got: {error}.") from error


def _check_target(source: Path, target: Path, *, replaces: bool) -> None:
    """Refuses a target that something else would be lost with.

    Raises:
        AlreadyExistsError: there is such a file, and it may not go.
        InvalidArgumentError: it is the store itself, or belongs to an open database.
    """
    if not source.is_file():
        raise StoreError(f"Expected a store at {source}, got no file.")
    if target.exists() and target.samefile(source):
        raise InvalidArgumentError(
            f"Expected a target beside the store, got {target}, the store itself.", field="target"
        )
    # SQLite would take a log that lies beside a database for the database's own.
    for log in (target.with_name(target.name + suffix) for suffix in _LOG_SUFFIXES):
        if log.exists():
            raise InvalidArgumentError(
                f"Expected a target without the log of another database, got {log}.",
                field="target",
            )
    if target.exists() and not replaces:
        raise AlreadyExistsError(f"Expected a new file, got {target}, which exists.")


def _copy(source: Path, target: Path) -> None:
    """Writes the copy beside the target, checks it and puts it in place, durably."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        # The copy is a snapshot: a reader does not hold the planner up, nor see half a change.
        with _reading(source, "mode=ro") as connection:
            connection.execute("VACUUM INTO ?", (name,))
        _check(part, target)
        _sync(part)
        part.replace(target)
        _sync(target.parent)
    finally:
        part.unlink(missing_ok=True)


def _check(part: Path, target: Path) -> None:
    """Reads the whole copy.

    Raises:
        StoreDamagedError: it fails its check, or is no store that this release can read.
    """
    with _reading(part, "mode=ro&immutable=1") as connection:
        if schema.check(connection, target) == 0:
            raise StoreDamagedError(f"Expected the copy {target} to be a store, got no tables.")


@contextmanager
def _reading(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    """Opens a database to be read.

    Raises:
        StoreError: SQLite cannot read it, or not write the copy of it.
    """
    try:
        uri = f"{path.absolute().as_uri()}?{how}"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise StoreError(f"Expected to copy {path}, got: {error}.") from error


def _sync(path: Path) -> None:
    """Makes a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
