"""Measures how late the event loop is: what a stuck loop hides from every other probe."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from prometheus_client import Histogram

_INTERVAL_S = 0.05


async def watch_lag(histogram: Histogram) -> None:
    """Observes, for ever, by how much a short sleep overruns, in seconds."""
    while True:
        due_s = time.perf_counter() + _INTERVAL_S
        await asyncio.sleep(_INTERVAL_S)
        histogram.observe(max(0.0, time.perf_counter() - due_s))
