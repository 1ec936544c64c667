"""The store's own thread: its calls block, and only one at a time may run."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from expertplane_server.store import StoreError


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane_server.store import Store
    from expertplane_server.telemetry.metrics import Metrics


T = TypeVar("T")


class StoreThread:
    """Runs store operations off the event loop, in the order in which they are asked for."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def run(self, name: str, operation: Callable[[Store], T]) -> T:
        """Returns what `operation` makes of the store.

        The operation runs to its end even when the caller is cancelled, so that a write is never
        half known.

        Args:
            name: label of the operation in the metrics.
            operation: called with the store, in its thread.

        Raises:
            ServiceError: as the operation does.
        """
        loop = asyncio.get_running_loop()
        start_s = time.perf_counter()
        try:
            return await asyncio.shield(loop.run_in_executor(self._thread, operation, self._store))
        except StoreError:
            self._metrics.store_errors.labels(name).inc()
            raise
        finally:
            self._metrics.store_seconds.labels(name).observe(time.perf_counter() - start_s)

    async def close(self) -> None:
        """Finishes what is queued and closes the store."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()
