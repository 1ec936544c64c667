"""What the sidecar keeps on disk: the last known good plan, and the last one ordered."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from expertplane_client.cache import CacheEntry, PlanCache
from expertplane_client.errors import CacheError


if TYPE_CHECKING:
    from pathlib import Path

    from expertplane_client.plan import Plan

    from .dialogue import Applied


logger = logging.getLogger(__name__)


class _GuardedCache(PlanCache):
    """A cache whose participant may be replaced while a thread still writes for it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._lock = threading.Lock()

    def load(self, deployment: str, participant_id: str) -> CacheEntry | None:
        """Returns what was saved last."""
        with self._lock:
            return super().load(deployment, participant_id)

    def save(self, deployment: str, participant_id: str, entry: CacheEntry) -> None:
        """Replaces what was saved."""
        with self._lock:
            super().save(deployment, participant_id, entry)


class Memory:
    """The plans of one participant on disk.

    A sidecar may die between telling its engine to switch and hearing that it did. So what the
    engine is told is written first, and an engine that says to serve with it is believed.

    Args:
        directory: Where the files go.
        deployment: "namespace/name".
        participant_id: Whose plans they are.
    """

    def __init__(self, directory: Path, deployment: str, participant_id: str) -> None:
        self.cache: PlanCache = _GuardedCache(directory)
        self._ordered: PlanCache = _GuardedCache(directory / "ordered")
        self._names = (deployment, participant_id)

    async def order(self, plan: Plan) -> None:
        """Keeps a plan that the engine is about to be told to switch to."""
        entry = CacheEntry(plan=plan, highest_version=plan.version, highest_epoch=plan.epoch)
        try:
            await asyncio.to_thread(self._ordered.save, *self._names, entry)
        except CacheError as error:
            logger.warning("the order is not kept: %s", error)

    async def believe(self, applied: Applied | None) -> None:
        """Takes the plan that an engine says to serve with for the last known good one."""
        if applied is None or not applied.version:
            return
        try:
            known = await asyncio.to_thread(self.cache.load, *self._names)
            ordered = await asyncio.to_thread(self._ordered.load, *self._names)
            if _has(known, applied) or ordered is None or not _has(ordered, applied):
                return
            version, epoch = ordered.highest_version, ordered.highest_epoch
            if known is not None:
                version = max(version, known.highest_version)
                epoch = max(epoch, known.highest_epoch)
            entry = CacheEntry(plan=ordered.plan, highest_version=version, highest_epoch=epoch)
            await asyncio.to_thread(self.cache.save, *self._names, entry)
        except CacheError as error:
            logger.warning("what the engine serves with is not looked up: %s", error)


def _has(entry: CacheEntry | None, applied: Applied) -> bool:
    plan = None if entry is None else entry.plan
    return plan is not None and (plan.version, plan.digest) == (applied.version, applied.digest)
