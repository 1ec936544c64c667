"""Arrays in numpy's files. What a header declares is checked before memory is asked for."""

from __future__ import annotations

import io
import math
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .files import read_bytes


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


MAX_ELEMENTS = 2**27  # 256 samples of the largest deployments that a planner serves fit


def read_npz(file: Path) -> zipfile.ZipFile:
    """Returns the archive that a file is, opened in memory.

    Raises:
        FormatError: it cannot be read, or is no archive.
    """
    content = read_bytes(file)
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except Exception as error:
        raise _damaged(str(file), error) from error


def array_of(archive: zipfile.ZipFile, keys: Sequence[str], *, source: str) -> NDArray[Any]:
    """Returns the one array of an archive whose name is among `keys`.

    Raises:
        FormatError: there is none or more than one, or it is damaged or too large.
    """
    names = archive.namelist()
    found = [key for key in keys if f"{key}.npy" in names]
    if len(found) != 1:
        wanted = " or ".join(map(repr, keys))
        either = "either " if len(keys) > 1 else ""
        raise FormatError(f"Expected {source} to hold {either}{wanted}, got {names[:8]}.")
    try:
        member = archive.getinfo(f"{found[0]}.npy")
        with archive.open(member) as stream:
            return _read_array(stream, member.file_size, source=f"{source}:{found[0]}")
    except FormatError:
        raise
    except Exception as error:
        # zipfile, zlib and numpy's header parser raise a dozen kinds of errors on damaged files.
        raise _damaged(source, error) from error


def read_npy(file: Path) -> NDArray[Any]:
    """Returns the array of a .npy file.

    Raises:
        FormatError: it cannot be read, is no such file, damaged or too large.
    """
    content = read_bytes(file)
    try:
        return _read_array(io.BytesIO(content), len(content), source=str(file))
    except FormatError:
        raise
    except Exception as error:
        raise _damaged(str(file), error) from error


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Returns the archive of some arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            # A `ZipInfo` has no time of its own: the same maps are the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_bytes(array))
    return buffer.getvalue()


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Returns the .npy file of an array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _damaged(source: str, error: Exception) -> FormatError:
    return FormatError(f"Expected {source} to be a sound numpy file, got: {error!r}.")


def _read_array(stream: IO[bytes], num_bytes: int, *, source: str) -> NDArray[Any]:
    # numpy would allocate whatever the header declares; so the header is read, and checked, first.
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # later ones may declare 4 GiB of header, which numpy reads at once
        raise FormatError(f"Expected {source} of .npy version (1, 0), got {version}.")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "iuf":
        raise FormatError(f"Expected {source} to hold integers or floats, got {dtype}.")
    num_elements = math.prod(shape)
    is_too_large = num_elements > MAX_ELEMENTS or min(shape, default=0) < 0
    if is_too_large or num_elements * dtype.itemsize > num_bytes:
        raise FormatError(
            f"Expected {source} of at most {MAX_ELEMENTS} elements, all in the file, "
            f"got shape {list(shape)} in {num_bytes} bytes."
        )
    content = stream.read(num_elements * dtype.itemsize)
    elements = np.frombuffer(content, dtype=dtype)
    return elements.reshape(shape, order="F" if is_fortran else "C")
