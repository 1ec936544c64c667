"""Reads recordings of expert load. A file is only trusted as far as it has been checked."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from expertplane_client.errors import FormatError

from .recording import Recording


if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray


MAX_FILE_BYTES = 2**30
MAX_ELEMENTS = 2**27  # 256 samples of the largest deployments that a planner serves fit

_NPZ_KEYS = ("weight", "samples")
_JSON_KEY = "logical_count"


def read_load(path: str | os.PathLike[str], layer_ids: Sequence[int] | None = None) -> Recording:
    """Returns the load that a file holds.

    Known are `.npz` with either `weight` [num_layers, num_logical_experts] or `samples`
    [num_samples, num_layers, num_logical_experts], and `.json` with `logical_count`, as SGLang
    dumps it, of either shape. Nothing in a file is executed.

    Args:
        path: The file.
        layer_ids: Rows to keep, ascending; the row index is the model's layer number. Dense layers
            are dropped by leaving them out here and in no other way. None keeps all.

    Raises:
        FormatError: the file cannot be read, is of no known kind, damaged, or holds something
            else than token counts.
    """
    file = Path(path)
    readers = {".npz": _read_npz, ".json": _read_json}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise FormatError(f"Expected a .npz or .json file, got {str(file)!r}.")
    try:
        num_bytes = file.stat().st_size
        if num_bytes > MAX_FILE_BYTES:
            raise FormatError(f"Expected {file} of at most {MAX_FILE_BYTES} bytes.")
        samples = reader(file)
    except OSError as error:
        raise FormatError(f"Expected to read {file}, got: {error.strerror or error}.") from error
    return Recording.from_rows(samples, layer_ids=layer_ids, source=str(file))


def _read_npz(file: Path) -> NDArray[Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            keys = [key for key in _NPZ_KEYS if f"{key}.npy" in names]
            if len(keys) != 1:
                raise FormatError(
                    f"Expected {file} to hold either 'weight' or 'samples', got {names[:8]}."
                )
            member = archive.getinfo(f"{keys[0]}.npy")
            with archive.open(member) as stream:
                return _read_npy(stream, member.file_size, source=f"{file}:{keys[0]}")
    except (FormatError, OSError):
        raise
    except Exception as error:
        # zipfile, zlib and numpy's header parser raise a dozen kinds of errors on damaged files.
        raise FormatError(
            f"Expected {file} to be a sound .npz archive, got: {error!r}."
        ) from error


def _read_npy(stream: IO[bytes], num_bytes: int, *, source: str) -> NDArray[Any]:
    # numpy would allocate whatever the header declares; so the header is read, and checked, first.
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise FormatError(f"Expected {source} of .npy version 1 or 2, got {version}.")
    shape, is_fortran, dtype = read_header(stream)
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


def _read_json(file: Path) -> NDArray[Any]:
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"Expected {file} to hold JSON, got: {error}.") from error
    if not isinstance(document, dict) or _JSON_KEY not in document:
        raise FormatError(f"Expected {file} to hold an object with {_JSON_KEY!r}.")
    source = f"{file}:{_JSON_KEY}"
    rows = document[_JSON_KEY]
    try:
        array = np.asarray(rows) if isinstance(rows, list) else None
    except (ValueError, OverflowError, RecursionError) as error:
        raise FormatError(f"Expected {source} to be rectangular, got: {error}.") from error
    if array is None or array.dtype.kind not in "iuf":
        raise FormatError(f"Expected {source} to hold lists of numbers only.")
    return array
