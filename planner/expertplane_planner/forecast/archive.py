"""A forecast's state as bytes: a stored (not compressed) npz archive of arrays without objects.

Sizes are checked before memory is asked for, zip's checksums find damage, nothing is unpickled.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_planner.errors import InvalidInputError


if TYPE_CHECKING:
    import numpy.typing as npt

    from .state import State


_MAX_MEMBERS = 64


def encode(state: State) -> bytes:
    """Return a state as bytes; the same state gives the same ones."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, value in state.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # without a date
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)
    return buffer.getvalue()


def decode(checkpoint: bytes, max_bytes: int) -> State:
    """Return the state in the bytes; its values are not checked yet.

    Raises:
        InvalidInputError: It is too large, damaged, or no such archive.
    """
    if len(checkpoint) > max_bytes:
        raise refusal(f"at most {max_bytes} bytes", str(len(checkpoint)))
    try:
        with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
            members = archive.infolist()
            _check_members(members, len(checkpoint))
            return {
                member.filename.removesuffix(".npy"): _read_array(archive.read(member))
                for member in members
            }
    except InvalidInputError:
        raise
    # What zipfile raises for bytes that anyone can make up is not one kind of error.
    except Exception as error:
        raise refusal("an undamaged checkpoint", f"{type(error).__name__}: {error}") from error


def _check_members(members: list[zipfile.ZipInfo], num_bytes: int) -> None:
    if len(members) > _MAX_MEMBERS:
        raise refusal(f"at most {_MAX_MEMBERS} arrays", str(len(members)))
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > num_bytes:
            raise refusal(
                "arrays stored as they are",
                f"{member.filename!r} of {member.file_size} bytes, "
                f"compressed by method {member.compress_type}",
            )


def _read_array(content: bytes) -> int | float | npt.NDArray[Any]:
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not an array of format 1.0")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if is_fortran or dtype.str not in ("<f8", "<f4", "<i8", "|b1"):
        raise ValueError(f"an array of {dtype.str}")
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes != len(content) - file.tell():
        raise ValueError(f"an array of {num_bytes} bytes in {len(content) - file.tell()}")
    values = np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)
    is_number = not shape and dtype != np.bool_
    return values.item() if is_number else values


def refusal(expectation: str, found: str) -> InvalidInputError:
    """Return the error that a checkpoint is refused with."""
    return InvalidInputError("checkpoint", f"Expected {expectation}, got {found}.")
