"""Arrays inside JSON: dtype, shape, and the elements as base64, little-endian, in C order."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import numpy as np

from expertplane_client.errors import InputError


_DTYPES = ("int32", "int64", "float32", "float64")


def to_document(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Returns an array as JSON can hold it.

    Raises:
        InputError: the dtype is none of int32, int64, float32 and float64.
    """
    if array.dtype.name not in _DTYPES:
        raise InputError(f"Expected a dtype among {', '.join(_DTYPES)}, got {array.dtype.name}.")
    content = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "data": base64.b64encode(content).decode(),
    }


def from_document(document: Any, field: str) -> np.ndarray[Any, Any]:
    """Returns the array, read-only.

    Args:
        document: As parsed from JSON; `dtype` may be left out for int32.
        field: What the array is, for the message of an error.

    Raises:
        InputError: it is no array, or its length is not what its shape says.
    """
    if not isinstance(document, dict) or not {"shape", "data"} <= document.keys():
        raise InputError(f"Expected {field} to have shape and data, got {_short(document)}.")
    name = document.get("dtype", "int32")
    if name not in _DTYPES:
        raise InputError(f"Expected {field}.dtype among {', '.join(_DTYPES)}, got {_short(name)}.")
    dtype = np.dtype(name).newbyteorder("<")
    shape = document["shape"]
    is_shape = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    if not is_shape or not 1 <= len(shape) <= 3:
        raise InputError(
            f"Expected {field}.shape of 1 to 3 positive integers, got {_short(shape)}."
        )
    try:
        content = base64.b64decode(document["data"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise InputError(f"Expected {field}.data in base64, got: {error}.") from error
    expected = math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise InputError(f"Expected {field}.data of {expected} bytes, got {len(content)}.")
    return np.frombuffer(content, dtype=dtype).reshape(shape).astype(name, copy=False)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
