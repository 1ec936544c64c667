"""Turns what gRPC raises into the client's errors, for both kinds of channels."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from .errors import ERROR_BY_STATUS, CallError, PlannerDefectError
from .rich_status import reason_and_field


if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "connection refused": "connection refused",
        "connection reset": "connection reset",
        "socket closed": "connection closed",
        "goaway": "connection closed",
        "no route to host": "no route to host",
        "network is unreachable": "network unreachable",
        "timed out": "connection timed out",
        "timeout occurred": "connection timed out",
        "name resolution": "no address for this name",
        "dns resolution failed": "no address for this name",
        "name or service not known": "no address for this name",
        "domain name not found": "no address for this name",
        "permission denied": "permission denied",
        "no such file": "no such socket",
        "handshake": "no TLS that both ends accept",
        "deadline exceeded": "",
        "method not found": "it may be older than this client",
    }
)
"""What gRPC says in the middle of its own words, and what it comes to; empty adds nothing."""


def call_error(error: grpc.RpcError, *, method: str, address: str) -> CallError:
    """Returns the client's error for a call that failed.

    Args:
        error: What gRPC raised; of blocking channels it is the call itself, of asyncio's not.
        method: The method that was called.
        address: Where the planner was expected.
    """
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        # gRPC promises a status with every error; without one there is nothing to tell but this.
        return _build(grpc.StatusCode.UNKNOWN, str(error), (), method=method, address=address)
    return _build(
        error.code(),
        error.details() or "",
        error.trailing_metadata() or (),
        method=method,
        address=address,
    )


def _build(
    code: grpc.StatusCode,
    details: str,
    metadata: Iterable[tuple[str, str | bytes]],
    *,
    method: str,
    address: str,
) -> CallError:
    reason, field = reason_and_field(metadata)
    # A status of a later gRPC release is none that a planner answers on purpose.
    kind = ERROR_BY_STATUS.get(code, PlannerDefectError)
    # A reason is the planner's own word, so there was an answer.
    message = details if reason else _sentence(code, details, method=method, address=address)
    return kind(message, code=code, reason=reason, field=field, method=method)


def _sentence(code: grpc.StatusCode, details: str, *, method: str, address: str) -> str:
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"Expected a planner at {address}, got no answer{_cause(details)}."
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return (
            f"Expected an answer of the planner at {address} in time, got none{_cause(details)}."
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"Expected the planner at {address} to serve {method.rpartition('/')[2]}, got "
            f"UNIMPLEMENTED{_cause(details)}."
        )
    return details or code.name


def _cause(details: str) -> str:
    """Returns, in brackets, what people need of gRPC's own words."""
    lowered = details.lower()
    for words, cause in _CAUSES.items():
        if words in lowered:
            return cause and f" ({cause})"
    text = " ".join(details.split()).rstrip(".!")
    return text and f" ({text})"
