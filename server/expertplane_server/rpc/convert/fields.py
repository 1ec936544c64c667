"""Small checks that the other converters share. Every refusal names the field."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from expertplane.wire import TensorError, decode_tensor
from expertplane.wire.tensors import DTYPES
from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError, UnservedError


if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
    from google.protobuf.message import Message

    from expertplane.v1 import tensor_pb2

T = TypeVar("T")

_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1000


def enum_member(value: int, names: EnumTypeWrapper, served: Mapping[Any, T], at: str) -> T:
    """Returns the domain's value for a wire enum.

    Raises:
        InvalidArgumentError: the number has no meaning, or is one that must be said and was not.
        UnservedError: it has a meaning that this release does not serve.
    """
    if value in served:
        return served[value]
    offered = ", ".join(names.Name(number) for number in served)
    if value not in names.values():
        raise InvalidArgumentError(f"Expected one of {offered}, got {value}.", field=at)
    if value == 0:
        raise InvalidArgumentError(f"Expected one of {offered}, got none.", field=at)
    raise UnservedError(
        f"Expected one of {offered}; this release does not serve {names.Name(value)}.", field=at
    )


def refuse_unserved(message: Message, paths: Sequence[str], prefix: str = "") -> None:
    """Refuses a message that sets a field which this release would have to ignore.

    Args:
        message: the message to look into.
        paths: dotted field paths below it.
        prefix: what to put in front of the path in the refusal.

    Raises:
        UnservedError: one of the fields is set.
    """
    for path in paths:
        *owners, last = path.split(".")
        owner: Any = message
        for name in owners:
            owner = getattr(owner, name)
        has_presence = owner.DESCRIPTOR.fields_by_name[last].has_presence
        if owner.HasField(last) if has_presence else bool(getattr(owner, last)):
            raise UnservedError(
                f"Expected {prefix}{path} to be left out; this release does not serve it.",
                field=prefix + path,
            )


def finite(value: float, at: str) -> float:
    """Returns a number that is neither NaN nor infinite.

    Raises:
        InvalidArgumentError: it is.
    """
    if not math.isfinite(value):
        raise InvalidArgumentError(f"Expected a finite number, got {value}.", field=at)
    return value


def tensor(
    message: tensor_pb2.Tensor,
    at: str,
    *,
    max_shape: Sequence[int],
    dtypes: Collection[int] = DTYPES.keys(),
) -> np.ndarray[Any, Any]:
    """Returns a read-only view of a tensor's elements.

    Raises:
        InvalidArgumentError: type, dimensions, extents or byte length are not as expected.
    """
    try:
        return decode_tensor(message, max_shape=max_shape, dtypes=dtypes)
    except TensorError as error:
        raise InvalidArgumentError(str(error), field=f"{at}.{error.field}") from error


def token_counts(
    message: tensor_pb2.Tensor, at: str, *, max_shape: Sequence[int]
) -> np.ndarray[Any, Any]:
    """Returns token counts: a tensor of finite numbers from 0 to 2^53.

    Raises:
        InvalidArgumentError: it is not; the first offending index and value are named.
    """
    counts = tensor(message, at, max_shape=max_shape)
    # One comparison each catches NaN as well, which compares false with everything.
    if counts.min() >= 0 and counts.max() <= limits.MAX_COUNT:
        return counts
    is_good = (counts >= 0) & (counts <= limits.MAX_COUNT)
    index = [int(i) for i in np.argwhere(~is_good)[0]]
    raise InvalidArgumentError(
        f"Expected finite counts from 0 to 2^53, got {counts[tuple(index)]} at {index}.",
        field=f"{at}.data",
    )


def page_size(wanted: int, *, at: str = "page_size") -> int:
    """Returns the number of entries of a page; 0 asks for the default.

    Raises:
        InvalidArgumentError: it is too large.
    """
    if wanted > _LARGEST_PAGE:
        raise InvalidArgumentError(f"Expected at most {_LARGEST_PAGE}, got {wanted}.", field=at)
    return wanted or _DEFAULT_PAGE
