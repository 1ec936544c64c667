"""Operators' orders that wait for their answers."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expertplane_server.core.errors import ExhaustedError, ServiceError, UnavailableError
from expertplane_server.store.base import Answered
from expertplane_server.store.refusals import is_repeated


if TYPE_CHECKING:
    from expertplane_server.core.plan import Decision, Plan, Request
    from expertplane_server.core.spec import Deployment

    OrderAnswer = Plan | Decision | Deployment | ServiceError

MAX_ORDERS = 64
"""Orders of one deployment in flight: far more than people give."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order in flight.

    Attributes:
        order: its number, unique within the book.
        request: as of the order.
        answer: is resolved once, also by a refusal, which is a value here.
    """

    order: int
    request: Request | None
    answer: asyncio.Future[OrderAnswer]


class OrderBook:
    """Who waits for what. Used from the event loop alone."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Waiting] = {}
        self._taken: set[int] = set()
        self._end: ServiceError | None = None

    def find(self, request: Request | None) -> Waiting | None:
        """Returns the order in flight that a call repeats, if there is one.

        Raises:
            ConflictError: the request id belongs to another order in flight.
        """
        for waiting in self._waiting.values():
            if request is None or waiting.request is None or waiting.request.id != request.id:
                continue
            if is_repeated(request, Answered(waiting.request.call, 0)):
                return waiting
        return None

    def open(self, request: Request | None) -> Waiting:
        """Enters an order.

        Raises:
            UnavailableError: no more orders are taken.
            ExhaustedError: too many of them wait.
        """
        if self._end is not None:
            raise self._end
        if len(self._waiting) >= MAX_ORDERS:
            raise ExhaustedError(
                f"Expected at most {MAX_ORDERS} orders of a deployment in flight.",
                retry_after_s=1.0,
                reason="TOO_MANY_ORDERS",
            )
        answer: asyncio.Future[OrderAnswer] = asyncio.get_running_loop().create_future()
        waiting = Waiting(next(self._numbers), request, answer)
        self._waiting[waiting.order] = waiting
        return waiting

    def take(self, order: int) -> None:
        """Notes that an order is being carried out: from now on it is the core's to answer."""
        self._taken.add(order)

    def fail(self, error: ServiceError) -> None:
        """Answers every order that is being carried out: the core may have lost any of them."""
        for order in list(self._taken):
            self.answer(order, error)

    def answer(self, order: int, answer: OrderAnswer) -> None:
        """Answers an order; a no-op when it is answered."""
        self._taken.discard(order)
        waiting = self._waiting.pop(order, None)
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(answer)

    def close(self) -> None:
        """Answers every order, and takes no more: nobody is left to carry them out."""
        self._end = UnavailableError(
            "Expected a deployment that is served; it is being stopped.", reason="STOPPED"
        )
        for order in list(self._waiting):
            self.answer(order, self._end)
