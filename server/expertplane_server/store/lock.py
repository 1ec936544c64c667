"""The lock that keeps a second process off a store's file."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING, Any

from expertplane_server.store.base import StoreError, StoreInUseError


if TYPE_CHECKING:
    from pathlib import Path


def lock_file(path: Path) -> Any:
    """Takes the lock that keeps a second process out, and returns the open lock file.

    Raises:
        StoreInUseError: another process holds it.
        StoreError: the folder cannot be written.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("a")
    except OSError as error:
        raise StoreError(f"Expected a writable folder for {path}, got: {error}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        message = f"Expected to be alone on {path}; another process has it."
        raise StoreInUseError(message) from error
    return lock
