"""What waits to be written to one stream: bounded, and the newest state wins."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from expertplane_server.core.effects import Abort, Commit, Flow, PlannerHeartbeat, Stage, Welcome
from expertplane_server.core.errors import ExhaustedError


if TYPE_CHECKING:
    from expertplane_server.core.effects import Message
    from expertplane_server.core.errors import ServiceError
    from expertplane_server.telemetry.metrics import Metrics

_MAX_WAITING = 256


class Outbox:
    """Messages for one stream. `put` never blocks; one reader takes them with `take`.

    What waits and is outdated gives way: a Commit to a newer Commit, and to a Welcome, which tells
    all about the plan; a Stage to the Abort of its version, and to its own repetition; a cadence
    and a heartbeat to the next. All else stays, in its order: an Abort is never dropped, as the
    Stage that it withdraws may have been read before. A peer that lets too many messages wait
    does not read; its stream is ended.

    Args:
        metrics: where what is dropped is counted; None counts nothing.
    """

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics
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
        self._drop_outdated(message)
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.clear()
            self.close(
                ExhaustedError(
                    f"Expected a peer that reads, got {_MAX_WAITING} answers waiting.",
                    retry_after_s=1.0,
                    reason="SLOW_READER",
                )
            )
            if self._metrics is not None:
                self._metrics.slow_readers.labels("overflow").inc()
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

    def _drop_outdated(self, newer: Message) -> None:
        """Forgets waiting messages that a newer one is about to replace."""
        if not any(_replaces(newer, each) for each in self._waiting):
            return
        kept = deque(each for each in self._waiting if not _replaces(newer, each))
        if self._metrics is not None:
            self._metrics.outbox_dropped.inc(len(self._waiting) - len(kept))
        self._waiting = kept


def _replaces(newer: Message, older: Message) -> bool:
    """Tells whether a message need not be written any more, now that there is a newer one."""
    match older:
        case Commit():
            return isinstance(newer, Commit | Welcome)
        case Stage(plan):
            version = plan.version
            if isinstance(newer, Stage):
                return newer.plan.version == version
            return isinstance(newer, Abort) and newer.version == version
        case Flow() | PlannerHeartbeat():
            return isinstance(newer, type(older))
        case _:
            return False
