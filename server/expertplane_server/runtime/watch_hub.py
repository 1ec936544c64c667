"""Shows committed plans to watchers, who may skip versions but never hold anybody up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from expertplane_server.core.plan import Plan


class WatchHub:
    """The latest committed plan of every deployment, and who waits for the next one."""

    def __init__(self) -> None:
        self._latest: dict[str, Plan | None] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._num_watching: dict[str, int] = {}
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """The service is draining: watchers are to go elsewhere."""
        return self._is_closed

    def show(self, deployment: str, plan: Plan | None) -> None:
        """Shows a deployment's committed plan; None when it has none yet."""
        self._latest[deployment] = plan
        self._notify(deployment)

    def forget(self, deployment: str) -> None:
        """Notes that a deployment is gone."""
        self._latest.pop(deployment, None)
        self._notify(deployment)

    def knows(self, deployment: str) -> bool:
        """Tells whether the deployment exists."""
        return deployment in self._latest

    def latest(self, deployment: str) -> Plan | None:
        """Returns the committed plan, or None."""
        return self._latest.get(deployment)

    async def changed(self, deployment: str) -> None:
        """Waits for the next change of a deployment; call it right after looking."""
        event = self._changed.setdefault(deployment, asyncio.Event())
        self._num_watching[deployment] = self._num_watching.get(deployment, 0) + 1
        try:
            await event.wait()
        finally:
            self._num_watching[deployment] -= 1
            # Names come from clients: keep nothing about one that nobody watches any more.
            if not self._num_watching[deployment]:
                del self._num_watching[deployment]
                if self._changed.get(deployment) is event:
                    del self._changed[deployment]

    def close(self) -> None:
        """Wakes every watcher for the last time."""
        self._is_closed = True
        for deployment in list(self._changed):
            self._notify(deployment)

    def _notify(self, deployment: str) -> None:
        """Wakes those who wait; each change has an event of its own, so that none is missed."""
        event = self._changed.pop(deployment, None)
        if event is not None:
            event.set()
