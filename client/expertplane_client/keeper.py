"""Switches the ranks to plans, one after the other, and keeps on disk what must not be lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import operator
from typing import TYPE_CHECKING

from .cache import CacheEntry
from .errors import CacheError


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from . import messages
    from .cache import PlanCache
    from .identity import Identity
    from .plan import Plan
    from .session import Session


logger = logging.getLogger(__name__)


class Keeper:
    """The only one who calls the engine and who writes the cache; a task runs its `run`.

    A plan that arrives during a switch waits, and replaces another one that waits: the ranks skip
    versions, but are never told two at once.

    Args:
        identity: Whose plans these are.
        session: What the participant has.
        apply: Switches the ranks and returns the engine step at which they did.
        cache: Where the last known good plan lies; None keeps it nowhere.
        answer: Takes what is to be told to the planner.
    """

    def __init__(
        self,
        identity: Identity,
        session: Session,
        apply: Callable[[Plan], Awaitable[int]],
        cache: PlanCache | None,
        answer: Callable[[messages.Request], None],
    ) -> None:
        self._identity = identity
        self._session = session
        self._apply = apply
        self._cache = cache
        self._answer = answer
        self._plan: Plan | None = None
        self._next_plan: Plan | None = None
        self._num_plans = 0
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_restored = asyncio.Event()

    @property
    def is_restored(self) -> asyncio.Event:
        """Set when the ranks serve with the plan from the cache, or there is none."""
        return self._is_restored

    @property
    def plan(self) -> Plan | None:
        """The plan that the ranks switched to last."""
        return self._plan

    @property
    def num_plans(self) -> int:
        """Switches that succeeded."""
        return self._num_plans

    def adopt(self, plan: Plan) -> None:
        """Hands over a plan to switch to; returns at once."""
        self._next_plan = plan
        self.remember()

    def remember(self) -> None:
        """Has the session's counters written; returns at once."""
        self._is_idle.clear()
        self._has_work.set()

    async def settle(self, timeout_s: float) -> None:
        """Waits until nothing is under way, at most `timeout_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._is_idle.wait()

    async def run(self) -> None:
        """Switches the ranks to the cached plan, then does what is handed over; never ends."""
        await self._restore()
        self._is_restored.set()
        self._is_idle.set()
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            plan, self._next_plan = self._next_plan, None
            step = None if plan is None else await self._switch(plan)
            answer = None
            if plan is not None and isinstance(step, int):
                answer = self._session.applied(plan, step)
            elif plan is not None and isinstance(step, str):
                answer = self._session.not_applied(plan, step)
            # On disk first: what the planner believes of these ranks must survive their crash.
            await self._save()
            if answer is not None:
                self._answer(answer)
            if not self._has_work.is_set():
                self._is_idle.set()

    async def _restore(self) -> None:
        entry = await self._load()
        if entry is None:
            return
        self._session.restore(entry.highest_version, entry.highest_epoch)
        plan = entry.plan
        if plan is None:
            return
        mismatch = self._session.mismatch(plan)
        if mismatch:
            logger.warning("the cached plan is not for these ranks: %s", mismatch)
            return
        step = await self._switch(plan)
        if isinstance(step, int):
            self._session.applied(plan, step)

    async def _switch(self, plan: Plan) -> int | str:
        # Returns the step, or why there is none.
        try:
            step = operator.index(await self._apply(plan))
        except Exception as error:  # the engine's own code: whatever it raises is a refusal
            logger.warning("the ranks did not switch to version %d", plan.version, exc_info=True)
            return f"Expected the ranks to switch to version {plan.version}, got: {error!r}"
        self._plan = plan
        self._num_plans += 1
        return max(0, step)

    async def _load(self) -> CacheEntry | None:
        if self._cache is None:
            return None
        identity = self._identity
        try:
            return await asyncio.to_thread(
                self._cache.load, identity.deployment, identity.participant_id
            )
        except CacheError as error:
            logger.warning("starting without a cached plan: %s", error)
            return None

    async def _save(self) -> None:
        if self._cache is None:
            return
        entry = CacheEntry(
            plan=self._plan,
            highest_version=self._session.highest_version,
            highest_epoch=self._session.highest_epoch,
        )
        identity = self._identity
        try:
            await asyncio.to_thread(
                self._cache.save, identity.deployment, identity.participant_id, entry
            )
        except CacheError as error:
            # Serving goes on; a restart will have to ask the planner.
            logger.warning("the plan is not kept: %s", error)
