"""What waits to be written to one stream: bounded, and the newest plan wins."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from expertplane_server.core.effects import Commit, PlannerHeartbeat, Welcome
from expertplane_server.core.errors import ExhaustedError


if TYPE_CHECKING:
    from expertplane_server.core.effects import Message
    from expertplane_server.core.errors import ServiceError

_MAX_WAITING = 256


class Outbox:
    """Messages for one stream. `put` never blocks; one reader takes them with `take`.

    A plan that waits is replaced by a newer one, so is a heartbeat. A peer that lets too many
    answers wait does not read; its stream is ended.
    """

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._error: ServiceError | None = None
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """The stream ends once what waits is written."""
        return self._is_closed

    def put(self, message: Message) -> None:
        """Appends a message; a no-op once the outbox is closed."""
        if self._is_closed:
            return
        if isinstance(message, (Commit, Welcome)):
            self._drop(Commit)
        elif isinstance(message, PlannerHeartbeat):
            self._drop(PlannerHeartbeat)
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.clear()
            self.close(
                ExhaustedError(
                    f"Expected a peer that reads, got {_MAX_WAITING} answers waiting.",
                    retry_after_s=1.0,
                    reason="SLOW_READER",
                )
            )
            return
        self._waiting.append(message)
        self._changed.set()

    def close(self, error: ServiceError | None = None) -> None:
        """Ends the stream once what waits is written: with an error, or in order."""
        if not self._is_closed:
            self._is_closed = True
            self._error = error
            self._changed.set()

    async def take(self) -> Message | None:
        """Returns the next message, or None at the end.

        Raises:
            ServiceError: the stream ends with this error.
        """
        while not self._waiting:
            if self._is_closed:
                if self._error is not None:
                    raise self._error
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    def _drop(self, kind: type[Message]) -> None:
        """Forgets waiting messages of one kind, which a newer one is about to replace."""
        if any(isinstance(message, kind) for message in self._waiting):
            self._waiting = deque(each for each in self._waiting if not isinstance(each, kind))
