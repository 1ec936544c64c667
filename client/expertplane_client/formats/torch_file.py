"""Tensors in torch's files (.pt). Such a file is a program: here it may only build tensors."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .files import load_package, read_bytes
from .numpy_file import MAX_ELEMENTS
from .torch_program import check_program


if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


MAX_TORCH_BYTES = 2**29
MAX_PICKLE_BYTES = 2**26
_MAX_MEMBERS = 2**17

_ZIP_MAGIC = b"PK\x03\x04"
_MEMBER = re.compile(r"(?P<folder>[^/]+)/(?P<name>data\.pkl|version|byteorder|data/[0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFile:
    """What a .pt file holds."""

    content: Any
    """Tensors, or lists and dicts with tensors; trusted only through `tensor_of`."""

    storage_bytes: frozenset[int]
    """Sizes of the storages that lie in the file."""


def read_torch(file: Path) -> TorchFile:
    """Returns what a .pt file holds, on the CPU.

    Torch's reader of weights alone still lets a file ask for memory (`bytearray(2**40)`), and had
    a hole in its older formats before torch 2.6. So only today's format is taken, only calls that
    build plain tensors from storages in the file, and only members that passed their checksum.

    Raises:
        FormatError: it cannot be read, is damaged, too large, or wants to do more.
    """
    source = str(file)
    members = _members_of(read_bytes(file, max_bytes=MAX_TORCH_BYTES), source)
    _check_pickle(members, source)
    torch = load_package("torch", extra="planner")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for name, content in members.items():
            writer.writestr(f"archive/{name}", content)
    sizes = frozenset(len(part) for name, part in members.items() if name.startswith("data/"))
    del members
    archive.seek(0)
    try:
        content = torch.load(archive, weights_only=True, map_location="cpu")
    except Exception as error:
        # The unpickler raises whatever a damaged program runs into.
        raise _damaged(source, error) from error
    return TorchFile(content=content, storage_bytes=sizes)


def is_tensor(found: object) -> bool:
    """Whether an object out of a .pt file is a tensor."""
    torch = load_package("torch", extra="planner")
    return isinstance(found, torch.Tensor)


def tensor_of(file: TorchFile, found: object, *, source: str) -> NDArray[Any]:
    """Returns a tensor of a .pt file as int64 or float64.

    Raises:
        FormatError: it is no tensor of numbers, or larger than its storage in the file.
    """
    torch = load_package("torch", extra="planner")
    if not isinstance(found, torch.Tensor) or found.layout != torch.strided:
        raise FormatError(f"Expected {source} to be a tensor, got {type(found).__name__}.")
    num_elements, num_bytes = found.numel(), found.untyped_storage().nbytes()
    is_repeated = num_elements * found.element_size() > num_bytes
    if num_elements > MAX_ELEMENTS or is_repeated or num_bytes not in file.storage_bytes:
        raise FormatError(
            f"Expected {source} of at most {MAX_ELEMENTS} elements, all in the file, "
            f"got shape {list(found.shape)} in {num_bytes} bytes."
        )
    wide = found.double() if found.is_floating_point() else found.long()
    array: NDArray[Any] = wide.detach().numpy()
    return array


def torch_bytes(array: NDArray[Any]) -> bytes:
    """Returns the .pt file of an array.

    Raises:
        FormatError: torch is not installed.
    """
    torch = load_package("torch", extra="planner")
    buffer = io.BytesIO()
    torch.save(torch.from_numpy(np.array(array)), buffer)
    return buffer.getvalue()


def _members_of(content: bytes, source: str) -> dict[str, bytes]:
    """Returns the members that matter, by their name below the archive's folder."""
    if not content.startswith(_ZIP_MAGIC):
        raise FormatError(
            f"Expected {source} to be a .pt file of torch 1.6 or newer, which begins with "
            f"{_ZIP_MAGIC!r}, got {content[:4]!r}."
        )
    members: dict[str, bytes] = {}
    folders = set()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            _check_entries(entries, source)
            for entry in entries:
                match = _MEMBER.fullmatch(entry.filename)
                if match is not None:
                    folders.add(match["folder"])
                    members[match["name"]] = archive.read(entry)
    except FormatError:
        raise
    except Exception as error:
        raise _damaged(source, error) from error
    if len(folders) != 1 or "data.pkl" not in members:
        raise FormatError(f"Expected {source} to be a .pt file, got {entries[:4]}.")
    if members.get("byteorder", b"little") != b"little":
        raise FormatError(
            f"Expected {source} in little-endian byte order, got {members['byteorder'][:8]!r}."
        )
    return members


def _check_entries(entries: list[zipfile.ZipInfo], source: str) -> None:
    num_names = len({entry.filename for entry in entries})
    if len(entries) > _MAX_MEMBERS or num_names != len(entries):
        raise FormatError(
            f"Expected {source} of at most {_MAX_MEMBERS} different members, got {len(entries)} "
            f"of {num_names} names."
        )
    # Torch never compresses; what is not compressed cannot be larger than the file.
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise FormatError(
                f"Expected {source} without compression, as torch writes it, got "
                f"{entry.filename[:40]!r} compressed."
            )
    num_bytes = sum(entry.file_size for entry in entries)
    if num_bytes > MAX_TORCH_BYTES:
        raise FormatError(
            f"Expected {source} of at most {MAX_TORCH_BYTES} bytes, got {num_bytes}."
        )


def _check_pickle(members: dict[str, bytes], source: str) -> None:
    program = members["data.pkl"]
    if len(program) > MAX_PICKLE_BYTES:
        raise FormatError(
            f"Expected {source} of at most {MAX_PICKLE_BYTES} bytes of objects, got "
            f"{len(program)}."
        )
    try:
        check_program(program, source=source)
    except FormatError:
        raise
    except Exception as error:
        raise _damaged(source, error) from error


def _damaged(source: str, error: Exception) -> FormatError:
    text = " ".join(str(error).split())[:200]
    return FormatError(f"Expected {source} to be a sound .pt file, got: {text}.")
