"""Bytes and names in, whole files out; each with a bound, and every failure a `FormatError`."""

from __future__ import annotations

import importlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expertplane_client.atomic import write_atomically
from expertplane_client.errors import FormatError


if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


MAX_FILE_BYTES = 2**30
MAX_FOLDER_FILES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder and what is in it."""

    path: Path
    """Where it is."""

    names: tuple[str, ...]
    """Its entries, sorted."""


def load_package(name: str, *, extra: str) -> Any:
    """Returns a package that only some formats need.

    Imported by name, so that the client's own imports stay light.

    Args:
        name: The module to import.
        extra: The extra of Expertplane that brings it.

    Raises:
        FormatError: it is not installed; says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FormatError(
            f"Expected the package {name.partition('.')[0]} for this format, got: {error}; "
            f"pip install 'expertplane[{extra}]'."
        ) from error


def read_bytes(file: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Returns what a file holds.

    Raises:
        FormatError: it cannot be read, is no regular file, or is too large.
    """
    try:
        if file.exists() and not file.is_file():  # a pipe would block, a device never end
            raise FormatError(f"Expected {file} to be a file, got something else.")
        with file.open("rb") as stream:
            num_bytes = os.fstat(stream.fileno()).st_size
            # Asked for no more than there is: a read allocates all that it is asked for.
            content = stream.read(num_bytes) if num_bytes <= max_bytes else None
    except FormatError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"Expected to read {file}, got: {reason}.") from error
    if content is None:
        raise FormatError(f"Expected {file} of at most {max_bytes} bytes, got {num_bytes}.")
    return content


def check_exists(path: Path) -> None:
    """Checks that there is something to read before its name is read anything into.

    Raises:
        FormatError: there is nothing of this name.
    """
    if not path.exists():
        raise FormatError(f"Expected to read {path}, got: no such file or folder.")


def read_folder(path: Path) -> Folder:
    """Returns the names in a folder.

    Raises:
        FormatError: it cannot be read, or holds too much.
    """
    names: list[str] = []
    try:
        for entry in path.iterdir():
            names.append(entry.name)
            if len(names) > MAX_FOLDER_FILES:
                raise FormatError(
                    f"Expected {path} with at most {MAX_FOLDER_FILES} files, got more."
                )
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"Expected to read {path}, got: {reason}.") from error
    return Folder(path=path, names=tuple(sorted(names)))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file as a whole or not at all; replaces one that exists.

    Raises:
        FormatError: it cannot be written.
    """
    try:
        write_atomically(path, content)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"Expected to write {path}, got: {reason}.") from error


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Writes a folder as a whole or not at all; never replaces one that holds something.

    Args:
        path: The folder; nothing may be there, or an empty one.
        contents: What its files hold, by name.

    Raises:
        FormatError: it cannot be written, or something is there.
    """
    try:
        temporary = path.with_name(f"{path.name}.tmp")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FormatError(f"Expected {path} to be new or an empty folder, got one in use.")
        temporary.mkdir()
    except FormatError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"Expected to write {path}.tmp, got: {reason}.") from error
    try:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise FormatError(f"Expected to write {path}, got: {error.strerror or error}.") from error
