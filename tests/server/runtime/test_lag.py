"""What a stuck event loop leaves behind."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from prometheus_client import CollectorRegistry, Histogram

from expertplane_server.runtime.lag import watch_lag


STUCK_S = 0.2


async def test_stuck_loop_is_seen() -> None:
    """How long the loop has stood still is in the histogram once it goes on."""
    registry = CollectorRegistry()
    lag = Histogram("lag_seconds", "Lag.", registry=registry)
    watching = asyncio.create_task(watch_lag(lag))
    await asyncio.sleep(0)  # it has begun to wait
    threading.Event().wait(STUCK_S)
    # Its timer is overdue: it comes before one that is set now.
    await asyncio.sleep(0.001)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    seen_s = registry.get_sample_value("lag_seconds_sum")

    assert seen_s is not None
    # Up to its own interval of 50 ms it would have slept anyhow.
    assert seen_s > STUCK_S / 2
