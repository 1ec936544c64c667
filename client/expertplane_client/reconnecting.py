"""When to connect again: after a back-off, or within the window of a planner that goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import random

    from .backoff import Backoff


class Reconnecting:
    """The waits between streams.

    Args:
        backoff: Waits between tries that fail.
        rng: Where jitter comes from.
    """

    def __init__(self, backoff: Backoff, rng: random.Random) -> None:
        self._backoff = backoff
        self._rng = rng
        self._attempt = 0
        self._window_s: float | None = None

    @property
    def is_leaving(self) -> bool:
        """Whether the planner of this stream has asked to leave it."""
        return self._window_s is not None

    def open(self) -> None:
        """Starts a stream."""
        self._window_s = None

    def welcome(self) -> None:
        """Notes that the planner took the stream: the next failure is the first again."""
        self._attempt = 0

    def drain(self, window_s: float) -> None:
        """Notes that the planner goes away, to be found again within `window_s` seconds."""
        self._window_s = window_s

    def delay_s(self) -> float:
        """Returns the wait before the next stream, in seconds."""
        if self._window_s is not None:
            return self._rng.uniform(0.0, self._window_s)
        self._attempt += 1
        return self._backoff.delay_s(self._attempt - 1, self._rng)
