"""Small checks that the other converters share. Every refusal names the field."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from expertplane.wire import TensorError, decode_tensor
from expertplane.wire.tensors import DTYPES
from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError, UnservedError
from expertplane_server.core.plan import Request


if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

    from expertplane.v1 import tensor_pb2

T = TypeVar("T")

_REQUEST_ID = re.compile(r"[a-zA-Z0-9._-]{0,64}")
_LONGEST_ETAG = 64
_LONGEST_COMMENT = 1024
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


def comment(text: str, at: str = "comment") -> str:
    """Returns what an operator says to people.

    Raises:
        InvalidArgumentError: it is too long.
    """
    if len(text) > _LONGEST_COMMENT:
        raise InvalidArgumentError(
            f"Expected at most {_LONGEST_COMMENT} characters, got {len(text)}.", field=at
        )
    return text


def checked_etag(etag: str) -> str:
    """Returns an etag that may have been read somewhere, "" for none.

    Raises:
        InvalidArgumentError: it is too long to be one; a refusal could not even quote it.
    """
    if len(etag) > _LONGEST_ETAG:
        raise InvalidArgumentError(
            f"Expected at most {_LONGEST_ETAG} characters, got {len(etag)}.", field="etag"
        )
    return etag


def counter(value: int, at: str) -> int:
    """Returns a version, epoch or step that a store can hold.

    Raises:
        InvalidArgumentError: it is too large.
    """
    if value > limits.MAX_COUNTER:
        raise InvalidArgumentError(f"Expected at most 2^63 - 1, got {value}.", field=at)
    return value


def request_of(request_id: str, call: str, *, is_for_decision: bool = False) -> Request | None:
    """Returns what makes a repeated call return the first answer; None goes without.

    Args:
        request_id: the caller's, or empty.
        call: what is asked for.
        is_for_decision: the call is answered with a decision.

    Raises:
        InvalidArgumentError: the id does not match the pattern.
    """
    if not request_id:
        return None
    return Request(checked_request_id(request_id), call, is_for_decision)


def checked_request_id(request_id: str) -> str:
    """Returns a request id, or "" for a call that goes without.

    Raises:
        InvalidArgumentError: it does not match the pattern.
    """
    if _REQUEST_ID.fullmatch(request_id) is None:
        raise InvalidArgumentError(
            f"Expected {_REQUEST_ID.pattern}, got {request_id[:80]!r}.", field="request_id"
        )
    return request_id


def page_size(wanted: int, *, at: str = "page_size") -> int:
    """Returns the number of entries of a page; 0 asks for the default.

    Raises:
        InvalidArgumentError: it is too large.
    """
    if wanted > _LARGEST_PAGE:
        raise InvalidArgumentError(f"Expected at most {_LARGEST_PAGE}, got {wanted}.", field=at)
    return wanted or _DEFAULT_PAGE


def nested(field_number: int, *parts: bytes) -> tuple[bytes, ...]:
    """Returns the wire form of a message field whose content is in parts, without joining them.

    Source: the protobuf encoding: a key of wire type 2 (length-delimited), the length, the
    content.
    """
    head = _varint(field_number << 3 | 2) + _varint(sum(map(len, parts)))
    return (head, *parts)


def _varint(value: int) -> bytes:
    """Returns an unsigned integer in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
