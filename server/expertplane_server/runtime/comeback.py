"""When to try again to plan on a device that has failed: after a minute, later and later."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from expertplane_server.runtime.clock import Clock

FIRST_DELAY_S = 60.0
LONGEST_DELAY_S = 3600.0


class Comeback:
    """Counts the time that a device is left alone.

    The delay doubles with every failure, up to an hour; a device that has served for as long
    since it came back begins anew.

    Args:
        clock: tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._delay_s = FIRST_DELAY_S
        self._due_s: float | None = None
        self._tried_s = -math.inf

    @property
    def is_away(self) -> bool:
        """Whether the device has failed and has not been tried since."""
        return self._due_s is not None

    @property
    def delay_s(self) -> float:
        """How long the device is left alone this time."""
        return self._delay_s

    def is_due(self) -> bool:
        """Tells whether to try the device when there is nothing else to do."""
        return self._due_s is not None and self._now_s() >= self._due_s

    def is_overdue(self) -> bool:
        """Tells whether to try it whatever there is to do: it has waited for as long again."""
        return self._due_s is not None and self._now_s() >= self._due_s + self._delay_s

    def on_failure(self) -> None:
        """Notes that the device has failed."""
        now_s = self._now_s()
        is_relapse = now_s - self._tried_s < LONGEST_DELAY_S
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S) if is_relapse else FIRST_DELAY_S
        self._due_s = now_s + self._delay_s

    def on_try(self) -> None:
        """Notes that the device is tried."""
        self._due_s = None
        self._tried_s = self._now_s()

    def _now_s(self) -> float:
        return self._clock.now().monotonic_s
