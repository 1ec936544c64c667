"""Kinds of files: what a path is opened as before anybody looks for an engine's keys in it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from expertplane_client.errors import FormatError

from .files import read_bytes, read_folder
from .json_file import MAX_JSON_BYTES, read_json
from .numpy_file import read_npy, read_npz
from .torch_file import read_torch
from .yaml_file import read_yaml


if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path


class Container(enum.Enum):
    """A kind of file; its value are the suffixes that name it."""

    NPZ = (".npz",)
    """An archive of numpy arrays, as `zipfile.ZipFile`."""

    NPY = (".npy",)
    """One numpy array."""

    JSON = (".json",)
    """A document."""

    JSON_LINES = (".jsonl",)
    """A document a line, as bytes."""

    TORCH = (".pt", ".pth")
    """What `torch.save` wrote, as `TorchFile`."""

    YAML = (".yaml", ".yml")
    """A document."""

    FOLDER = ()
    """Files side by side, as `Folder`."""


_READERS: Mapping[Container, Callable[[Path], Any]] = {
    Container.NPZ: read_npz,
    Container.NPY: read_npy,
    Container.JSON: read_json,
    Container.JSON_LINES: lambda file: read_bytes(file, max_bytes=MAX_JSON_BYTES),
    Container.TORCH: read_torch,
    Container.YAML: read_yaml,
    Container.FOLDER: read_folder,
}


def find_container(path: Path, known: Collection[Container]) -> Container:
    """Returns what a path is, by what lies there if that is a folder, otherwise by its suffix.

    Args:
        path: The file or folder.
        known: The kinds to choose from.

    Raises:
        FormatError: none of them.
    """
    suffix = path.suffix.lower()
    for container in known:
        if suffix in container.value and not is_folder(path):
            return container
    if Container.FOLDER in known and is_folder(path):
        return Container.FOLDER
    every = [suffix for container in known for suffix in container.value]
    suffixes = ", ".join(dict.fromkeys(every))
    more = " or a folder" if Container.FOLDER in known else ""
    raise FormatError(f"Expected a file of {suffixes}{more}, got {str(path)!r}.")


def open_container(path: Path, container: Container) -> Any:
    """Returns the content of a path, see the members of `Container`.

    Raises:
        FormatError: it cannot be read, is damaged or too large.
    """
    return _READERS[container](path)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
