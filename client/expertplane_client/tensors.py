"""Arrays to tensors of the wire and back, with the client's widening and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.wire import TensorError, decode_tensor, encode_tensor

from .errors import InputError, ProtocolError


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from expertplane.v1 import tensor_pb2


_INTEGERS = (np.int16, np.int32, np.int64)
# Each kind widens only within itself: int64 to float64 would lose counts without a word.
_CHOICES: dict[str, tuple[type[np.generic], ...]] = {
    "i": _INTEGERS,
    "u": _INTEGERS,
    "f": (np.float32, np.float64),
}


def to_tensor(array: NDArray[Any], *, field: str) -> tensor_pb2.Tensor:
    """Returns an array as the wire carries it: little-endian, C order.

    Args:
        array: Integers or floats of any byte order and layout; a dtype that the wire does not know
            is widened to the next that holds all its values. Not mutated.
        field: What the array is, for the message of an error.

    Raises:
        InputError: the dtype has no counterpart (such as bool, uint64 or object), or an extent
            is 0.
    """
    choices = _CHOICES.get(array.dtype.kind, ())
    wide = next((choice for choice in choices if np.can_cast(array.dtype, choice)), None)
    if wide is None:
        raise InputError(
            f"Expected {field} of integers up to int64 or floats up to float64, "
            f"got {array.dtype.name}."
        )
    if 0 in array.shape:
        raise InputError(f"Expected {field} without empty dimensions, got {list(array.shape)}.")
    return encode_tensor(array.astype(wide, copy=False))


def from_tensor(
    tensor: tensor_pb2.Tensor, *, field: str, max_shape: Sequence[int]
) -> NDArray[Any]:
    """Returns a read-only view of a tensor's elements.

    Args:
        tensor: As received.
        field: Path of the tensor in its message, for the message of an error.
        max_shape: The largest extents of the field; as many as it has dimensions.

    Raises:
        ProtocolError: unknown dtype, other dimensions, an extent of 0 or too large, or a wrong
            length of data.
    """
    try:
        return decode_tensor(tensor, max_shape=max_shape)
    except TensorError as error:
        raise ProtocolError(f"{field}.{error.field}: {error}") from error
