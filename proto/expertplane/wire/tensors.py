"""Numpy arrays to `Tensor` messages and back, with every check made before memory is touched."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.v1 import tensor_pb2


if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

DTYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.D_TYPE_INT16: np.dtype("<i2"),
    tensor_pb2.D_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.D_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.D_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.D_TYPE_FLOAT64: np.dtype("<f8"),
}
INTEGERS = frozenset({tensor_pb2.D_TYPE_INT16, tensor_pb2.D_TYPE_INT32, tensor_pb2.D_TYPE_INT64})
_WIRE_TYPES = {(dtype.kind, dtype.itemsize): wire for wire, dtype in DTYPES.items()}


class TensorError(ValueError):
    """A tensor message that breaks the contract; `field` is the offending field of the tensor."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def encode_tensor(array: np.ndarray[Any, Any]) -> tensor_pb2.Tensor:
    """Returns the message for an int16, int32, int64, float32 or float64 array of any layout.

    Raises:
        TensorError: the element type has no wire type.
    """
    wire = _WIRE_TYPES.get((array.dtype.kind, array.dtype.itemsize))
    if wire is None:
        raise TensorError(
            "dtype", f"Expected int16, int32, int64, float32 or float64, got {array.dtype}."
        )
    data = np.ascontiguousarray(array, dtype=DTYPES[wire]).tobytes()
    return tensor_pb2.Tensor(dtype=tensor_pb2.DType.Name(wire), shape=array.shape, data=data)


def decode_tensor(
    message: tensor_pb2.Tensor,
    *,
    max_shape: Sequence[int],
    dtypes: Collection[int] = DTYPES.keys(),
) -> np.ndarray[Any, Any]:
    """Returns a read-only view of the message's elements.

    Args:
        message: the tensor to read.
        max_shape: the largest extent allowed in each dimension; its length is the number of
            dimensions expected.
        dtypes: the wire types allowed.

    Raises:
        TensorError: type, dimensions, extents or byte length are not as expected.
    """
    if message.dtype not in dtypes or message.dtype not in DTYPES:
        names = ", ".join(DTYPES[wire].name for wire in sorted(dtypes))
        raise TensorError("dtype", f"Expected one of {names}, got {_dtype_name(message.dtype)}.")
    shape = tuple(message.shape)
    if len(shape) != len(max_shape):
        raise TensorError("shape", f"Expected {len(max_shape)} dimensions, got {len(shape)}.")
    if any(not 1 <= extent <= limit for extent, limit in zip(shape, max_shape, strict=True)):
        raise TensorError(
            "shape", f"Expected extents from 1 to {list(max_shape)}, got {list(shape)}."
        )
    dtype = DTYPES[message.dtype]
    expected_bytes = math.prod(shape) * dtype.itemsize
    if len(message.data) != expected_bytes:
        raise TensorError(
            "data",
            f"Expected {expected_bytes} bytes for shape {list(shape)} of {dtype.name}, "
            f"got {len(message.data)}.",
        )
    elements: np.ndarray[Any, Any] = np.frombuffer(message.data, dtype=dtype)
    return elements.reshape(shape)


def _dtype_name(wire: int) -> str:
    """Names a wire type, also one that this release does not know."""
    descriptor = tensor_pb2.DType.DESCRIPTOR.values_by_number.get(wire)
    return descriptor.name if descriptor is not None else str(wire)
