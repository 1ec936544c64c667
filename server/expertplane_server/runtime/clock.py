"""The one place that asks what time it is."""

from __future__ import annotations

import time
from typing import Protocol

from expertplane_server.core.events import Instant


class Clock(Protocol):
    """Tells the time; swapped in tests."""

    def now(self) -> Instant:
        """Returns this moment on both clocks."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Instant:
        """Returns this moment on both clocks."""
        return Instant(monotonic_s=time.monotonic(), wall_s=time.time())
