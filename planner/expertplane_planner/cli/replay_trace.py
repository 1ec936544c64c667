"""Traces as files: an archive with `samples` and nothing else. Needs numpy.

Written window by window, so that no more than one is held; read only after the size that the file
declares has been found small enough. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from expertplane_client.formats import FormatError


if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray


MAX_ELEMENTS = 2**29  # 2260 windows of 16 samples, 58 layers of 256 experts; 2 GiB
_MAX_BYTES = 4 * MAX_ELEMENTS
_BLOCK_BYTES = 2**24
_MEMBER = "samples.npy"


def check_size(shape: tuple[int, ...]) -> None:
    """Check that a trace is small enough to be held in memory.

    Raises:
        FormatError: It is not.
    """
    if math.prod(shape) > MAX_ELEMENTS:
        raise FormatError(
            f"Expected a trace of at most {MAX_ELEMENTS} numbers, got {math.prod(shape)}: "
            f"{' x '.join(map(str, shape))} windows, samples, layers and experts."
        )


def write_trace(
    path: Path, windows: Iterable[NDArray[np.int64]], shape: tuple[int, int, int, int]
) -> None:
    """Write a trace, as a whole or not at all; the same samples are the same bytes.

    Args:
        path: The file; replaced when it exists.
        windows: As many as the shape says, [num_samples, num_layers, num_logical_experts] each.
            They are asked for one by one, once the file can be written.
        shape: Windows, samples, layers, experts.

    Raises:
        FormatError: It cannot be written, or is too large.
    """
    check_size(shape)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        try:
            _write(temporary, windows, shape)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FormatError(f"Expected to write {path}, got: {error.strerror or error}.") from error


def _write(path: Path, windows: Iterable[NDArray[np.int64]], shape: tuple[int, ...]) -> None:
    member = zipfile.ZipInfo(_MEMBER)  # without a time of its own
    header = {"descr": "<i4", "fortran_order": False, "shape": shape}
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open(member, "w", force_zip64=True) as stream,
    ):
        np.lib.format.write_array_header_1_0(stream, header)
        for window in windows:
            stream.write(window.astype("<i4").tobytes())


def read_trace(path: Path) -> NDArray[Any]:
    """Return the samples of a trace, [num_windows, num_samples, num_layers, num_logical_experts].

    Returns:
        int16, int32, int64, float32 or float64, in the machine's byte order; values unchecked.

    Raises:
        FormatError: It cannot be read, is no such file, damaged or too large.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would block, a device never end
            raise FormatError(f"Expected {path} to be a file, got something else.")
        with zipfile.ZipFile(path) as archive:
            if _MEMBER not in archive.namelist():
                raise FormatError(
                    f"Expected {path} to hold 'samples', got {archive.namelist()[:8]}."
                )
            with archive.open(_MEMBER) as stream:
                return _read(stream, archive.getinfo(_MEMBER).file_size, path)
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(f"Expected to read {path}, got: {error.strerror or error}.") from error
    except Exception as error:
        # zipfile, zlib and numpy's header parser raise a dozen kinds of errors on damaged files.
        raise FormatError(f"Expected {path} to be a sound trace, got: {error!r}.") from error


def _read(stream: IO[bytes], num_bytes: int, path: Path) -> NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # later ones may declare 4 GiB of header, which numpy reads at once
        raise FormatError(f"Expected {path} of .npy version (1, 0), got {version}.")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FormatError(f"Expected {path} to hold integers or floats, got {dtype}.")
    if len(shape) != 4 or min(shape) < 1:
        raise FormatError(
            f"Expected samples of shape [windows, samples, layers, experts] in {path}, "
            f"got {list(shape)}."
        )
    check_size(shape)
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > min(num_bytes, _MAX_BYTES):
        raise FormatError(
            f"Expected {path} of at most {_MAX_BYTES} bytes, all in the file, "
            f"got {wanted} in {num_bytes}."
        )
    elements = np.empty(math.prod(shape), dtype=dtype)
    _fill(elements.view(np.uint8).data, stream)
    return _plain(elements).reshape(shape, order="F" if is_fortran else "C")


def _fill(content: memoryview, stream: IO[bytes]) -> None:
    position = 0
    while position < len(content):
        block = stream.read(min(_BLOCK_BYTES, len(content) - position))
        if not block:
            raise EOFError(f"{len(content) - position} bytes are missing")
        content[position : position + len(block)] = block
        position += len(block)
    if stream.read(1):  # and at the end zip compares its checksum
        raise ValueError("more than the samples")


def _plain(elements: NDArray[Any]) -> NDArray[Any]:
    """Return numbers of a type that planners take, in the machine's byte order."""
    dtype = elements.dtype
    names = {
        "i": ("int16", "int16", "int32", "int64"),
        "u": ("int16", "int32", "int64", "int64"),  # what does not fit is negative, and refused
        "f": ("float32", "float32", "float32", "float64"),
    }[dtype.kind]
    return elements.astype(names[dtype.itemsize.bit_length() - 1], copy=False)
