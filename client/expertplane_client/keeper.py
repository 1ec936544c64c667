"""Switches the ranks to plans, one after the other, and keeps on disk what must not be lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import operator
from typing import TYPE_CHECKING

from .cache import CacheEntry
from .effects import AdoptPlan, Remember, StagePlan, Unstage
from .errors import CacheError, ExpertplaneError, PlanUnacceptableError, told


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from . import messages
    from .cache import PlanCache
    from .identity import Identity
    from .plan import Plan
    from .session import Session
    from .staging import Stager


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
        stager: Has plans prepared; the two never call the engine at once.
        answer: Takes what is to be told to the planner.
    """

    def __init__(
        self,
        identity: Identity,
        session: Session,
        apply: Callable[[Plan], Awaitable[int]],
        cache: PlanCache | None,
        stager: Stager,
        answer: Callable[[messages.Request], None],
    ) -> None:
        self._identity = identity
        self._session = session
        self._apply = apply
        self._cache = cache
        self._stager = stager
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

    def carry_out(self, effect: AdoptPlan | StagePlan | Unstage | Remember) -> None:
        """Takes over what the session wants done about plans; returns at once."""
        match effect:
            case StagePlan(plan, deadline_s):
                self._stager.stage(plan, deadline_s)
                return
            case Unstage(version):
                self._stager.unstage(version)
                return
            case AdoptPlan(plan):
                self._next_plan = plan
        self._is_idle.clear()
        self._has_work.set()

    async def settle(self, timeout_s: float) -> None:
        """Drops what is prepared and waits for what is under way, at most `timeout_s` seconds."""
        self._stager.withdraw()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._stager.settle()
                await self._is_idle.wait()

    async def run(self) -> None:
        """Switches the ranks to the cached plan, then does what is handed over; never ends."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stager.run())
            await self._keep()

    async def _keep(self) -> None:
        await self._restore()
        self._is_restored.set()
        self._is_idle.set()
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            plan, self._next_plan = self._next_plan, None
            answer = None if plan is None else await self._switch(plan)
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
        await self._switch(plan)

    async def _switch(self, plan: Plan) -> messages.Request:
        # Returns what the planner is to be told of it.
        async with self._stager.engine:
            try:
                step = operator.index(await self._apply(plan))
            except Exception as error:  # the engine's own code: whatever it raises is a refusal
                version = plan.version
                # Where an error of ours comes from is no riddle.
                is_ours = isinstance(error, ExpertplaneError)
                logger.warning(
                    "the ranks did not switch to version %d: %s",
                    version,
                    error,
                    exc_info=not is_ours,
                )
                message = f"Expected the ranks to switch to version {version}, got: {told(error)}."
                is_transient = not isinstance(error, PlanUnacceptableError)
                return self._session.not_applied(plan, message, is_transient=is_transient)
            self._stager.use(plan)
            self._plan = plan
            self._num_plans += 1
            return self._session.applied(plan, max(0, step))

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
