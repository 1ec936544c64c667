"""What a call is, and what every description of one needs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np

from expertplane_client.errors import (
    CallCancelledError,
    CallError,
    InputError,
    ProtocolError,
    UnavailableError,
)
from expertplane_client.tensors import to_tensor


if TYPE_CHECKING:
    from google.protobuf.message import Message
    from numpy.typing import NDArray

    from expertplane.v1 import tensor_pb2


T = TypeVar("T")

READ_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 30.0
SOLVE_TIMEOUT_S = 120.0

DEPLOYMENTS = "/expertplane.v1.DeploymentService"
PLANS = "/expertplane.v1.PlanService"
PAGE_SIZE = 100

MAX_VERSION = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One unary call: what to send, and how to read the answer."""

    method: str
    """Path of the method, such as "/expertplane.v1.PlanService/GetPlan"."""

    request: Message
    """The message to send."""

    response_class: type[Message]
    """The message to expect."""

    parse: Callable[[Any], T]
    """Reads the answer; raises ProtocolError."""

    timeout_s: float
    """Default deadline, in seconds."""

    is_read: bool
    """Whether the call changes nothing, so that it may wait for the planner to come up."""

    def may_repeat(self, error: CallError, *, waits: bool) -> bool:
        """Tells whether to send the same message once more after a failure.

        Where the planner went away, nobody knows whether it acted. The request id makes it give
        the first answer again, so a call that carries one is repeated, and what only reads where
        the client waits for a planner anyway.

        Args:
            error: what became of the call.
            waits: whether the client waits for a planner to come up.
        """
        has_id = bool(getattr(self.request, "request_id", ""))
        is_safe = has_id or (waits and self.is_read)
        return is_safe and isinstance(error, UnavailableError | CallCancelledError)


Flow: TypeAlias = Generator[Call[Any], Any, T]
"""Yields calls, receives their answers, returns the result."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list."""

    items: tuple[T, ...]
    """What the page holds."""

    next_token: str
    """Asks for the next page; empty on the last one."""


def all_pages(page: Callable[[str], Call[Page[T]]], limit: int | None) -> Flow[list[T]]:
    """Follows the pages of a list until the last one, or until there are `limit` items."""
    items: list[T] = []
    seen = {""}
    token = ""
    while True:
        answer: Page[T] = yield page(token)
        items += answer.items
        token = answer.next_token
        if not token or (limit is not None and len(items) >= limit):
            return items[:limit]
        # What ends the loop is the planner's word, so a planner that turns in circles is caught.
        if token in seen:
            raise ProtocolError(f"Expected a new next_page_token, got {token!r} again.")
        seen.add(token)


def new_request_id(request_id: str | None) -> str:
    """Returns the caller's request id, or a new UUID for None."""
    return str(uuid.uuid4()) if request_id is None else request_id


def check_version(field: str, version: int) -> int:
    """Returns a version that the wire can carry.

    Raises:
        InputError: it is negative, or does not fit 64 bits.
    """
    if not 0 <= version <= MAX_VERSION:
        raise InputError(f"Expected {field} in [0, 2^64), got {version}.")
    return version


def map_tensor(phy2log: NDArray[np.integer[Any]], *, field: str) -> tensor_pb2.Tensor:
    """Returns a map as the planner takes it, whatever integers it came in.

    Raises:
        InputError: it holds no integers, or some that are no expert ids.
    """
    if phy2log.dtype.kind not in "iu" or phy2log.size == 0:
        raise InputError(
            f"Expected {field} of integers, got {phy2log.dtype.name} of shape "
            f"{list(phy2log.shape)}."
        )
    if int(phy2log.min()) < -1 or int(phy2log.max()) > np.iinfo(np.int32).max:
        raise InputError(
            f"Expected {field} of expert ids from -1 to 2^31 - 1, "
            f"got {int(phy2log.min())} to {int(phy2log.max())}."
        )
    return to_tensor(phy2log.astype(np.int32), field=field)
