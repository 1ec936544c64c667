"""Back-pressure: slower reports while events pile up, the usual cadence once they do not."""

from __future__ import annotations


_HIGH, _LOW = 0.5, 0.1
_MAX_FACTOR = 16.0
_CALM_S = 10.0
"""Calm, in seconds, before the cadence rises again: relief must not bring the pressure back."""


class Pacer:
    """Decides on the report interval from how full the queue of events is.

    Attributes:
        interval_s: the shortest time between two reports of a member, now.

    Args:
        usual_s: without pressure.
    """

    def __init__(self, usual_s: float) -> None:
        self.interval_s = usual_s
        self._usual_s = usual_s
        self._was_high = False
        self._calm_since_s: float | None = None

    def note(self, queue_fill: float, now_s: float) -> bool:
        """Takes a look at the queue, and tells whether the interval has changed.

        Two looks in a row at a queue that is half full double it; ten seconds with less than a
        tenth halve it again.

        Args:
            queue_fill: from 0 to 1.
            now_s: monotonic time.
        """
        before_s = self.interval_s
        is_high = queue_fill >= _HIGH
        if is_high and self._was_high:
            self.interval_s = min(self.interval_s * 2.0, self._usual_s * _MAX_FACTOR)
        # A rise must show its effect before the next one.
        self._was_high = is_high and self.interval_s == before_s
        if queue_fill > _LOW:
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= _CALM_S:
            self._calm_since_s = now_s
            self.interval_s = max(self.interval_s / 2.0, self._usual_s)
        return self.interval_s != before_s
