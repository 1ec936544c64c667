"""Writes a file as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(path: Path, content: bytes, *, is_durable: bool = False) -> None:
    """Replaces a file; whoever reads it sees the old content or the new, never a part.

    Goes through a file of the same name with ".tmp" behind it, so that what a crash leaves over is
    replaced by the next write. Two writers of one path must not write at the same time.

    Args:
        path: The file; its folder must exist.
        content: What it holds afterwards.
        is_durable: Returns only when the content and its name have reached the disk.

    Raises:
        OSError: the file cannot be written; the old one, if any, is still there.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if is_durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # Without it the new name may be lost in a power cut although the content is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
