"""Virtual time, one heap of what is to happen, one source of randomness, and the trace."""

from __future__ import annotations

import hashlib
import heapq
import random
from typing import TYPE_CHECKING, Any

from .wording import say


if TYPE_CHECKING:
    from collections.abc import Callable


MAX_EVENTS = 200_000
"""A world that is this busy is in a loop without end."""


class ViolationError(AssertionError):
    """An invariant does not hold.

    Args:
        invariant: its short name, "I1" to "I9", or what else went wrong.
        message: what was expected, and what was seen.
    """

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(f"{invariant}: {message}")
        self.invariant = invariant


class Loop:
    """Everything that happens in a world happens here, one thing after another.

    Args:
        seed: two loops of one seed see the same, to the byte.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._trace: list[tuple[float, str, tuple[Any, ...]]] = []

    def after(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have something happen in a while; of two at one moment the earlier asked goes first."""
        self.at(self.now_s + delay_s, call, *arguments)

    def at(self, moment_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have something happen at a moment."""
        self._number += 1
        heapq.heappush(self._heap, (moment_s, self._number, call, arguments))

    def run(self, until_s: float, is_done: Callable[[], bool] | None = None) -> bool:
        """Let things happen until a moment, or until something is so, and tell whether it is."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, number, call, arguments = heapq.heappop(self._heap)
            if number > MAX_EVENTS:
                raise ViolationError("I5", f"Expected fewer than {MAX_EVENTS} events.")
            call(*arguments)
            if is_done is not None and is_done():
                return True
        self.now_s = max(self.now_s, until_s)
        return False

    def note(self, who: str, *details: Any) -> None:
        """Add a line to the trace. What it says is only worded when somebody reads it."""
        self._trace.append((self.now_s, who, details))

    def lines(self, last: int | None = None) -> list[str]:
        """Return the trace, or the end of it, one line for each thing that happened."""
        first = 0 if last is None else max(0, len(self._trace) - last)
        return [
            f"{now_s:9.3f} {who:<8} {' '.join(map(say, details))}"
            for now_s, who, details in self._trace[first:]
        ]

    def fingerprint(self) -> str:
        """Return a digest of the whole trace."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()
