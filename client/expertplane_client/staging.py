"""Has plans prepared before they may be switched to: one at a time, and only as long as wanted."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import messages
from .errors import ExpertplaneError, PlanUnacceptableError, told


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .plan import Plan
    from .session import Session


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """A plan to prepare; two orders for the same plan are two orders."""

    plan: Plan
    due_s: float


class Stager:
    """Brings what the engine has prepared in line with what the planner wants; `run` is its task.

    Args:
        session: What the participant has.
        stage: Fetches a plan's weights into spare buffers; None has nothing to fetch.
        unstage: Drops what was fetched, or begun to be fetched, of a version.
        answer: Takes what is to be told to the planner.
    """

    def __init__(
        self,
        session: Session,
        stage: Callable[[Plan, float], Awaitable[None]] | None,
        unstage: Callable[[int], Awaitable[None]] | None,
        answer: Callable[[messages.Request], None],
    ) -> None:
        self._session = session
        self._stage = stage
        self._unstage = unstage
        self._answer = answer
        self._wanted: _Order | None = None
        # What the engine was told to fetch and has neither given back nor switched to.
        self._held: _Order | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self.engine = asyncio.Lock()
        """Held while the engine prepares, drops or switches: it is told one thing at a time."""

    def stage(self, plan: Plan, deadline_s: float) -> None:
        """Has a plan prepared within `deadline_s` seconds, in place of any other; no waiting."""
        if self._stage is None:
            self._say(self._session.staged(plan))
            return
        self._want(_Order(plan, asyncio.get_running_loop().time() + deadline_s))

    def unstage(self, version: int) -> None:
        """Has a plan dropped, prepared or not; returns at once."""
        if self._wanted is not None and self._wanted.plan.version == version:
            self._want(None)

    def use(self, plan: Plan) -> None:
        """Notes that the ranks have switched to a plan: what was prepared of it is theirs now."""
        held = self._held
        if held is not None and messages.reference(held.plan) == messages.reference(plan):
            if self._wanted is held:
                self._wanted = None
            self._held = None

    def withdraw(self) -> None:
        """Has everything dropped that is prepared; returns at once."""
        self._want(None)

    async def settle(self) -> None:
        """Waits until the engine has prepared or dropped what it was told to."""
        await self._is_idle.wait()

    async def run(self) -> None:
        """Has prepared and dropped what is asked; never ends."""
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            # For all of it at once: a switch that follows finds the buffers as it may expect.
            async with self.engine:
                if self._held is not self._wanted:
                    await self._drop()
                if self._wanted is not None and self._held is None:
                    await self._prepare(self._wanted)
            if not self._has_work.is_set():
                self._is_idle.set()

    def _want(self, order: _Order | None) -> None:
        if order is self._wanted:
            return
        self._wanted = order
        if self._fetching is not None:
            self._fetching.cancel()
        self._is_idle.clear()
        self._has_work.set()

    async def _prepare(self, order: _Order) -> None:
        self._held = order
        self._fetching = asyncio.create_task(self._fetch(order))
        try:
            await asyncio.wait((self._fetching,))
        finally:
            self._fetching.cancel()
            fetching, self._fetching = self._fetching, None
        if self._wanted is not order:
            await self._drop()
            return
        error = None if fetching.cancelled() else fetching.exception()
        if error is None and not fetching.cancelled():
            self._say(self._session.staged(order.plan))
            return
        self._wanted = None
        if isinstance(error, _LateError):
            await self._drop()
        self._held = None  # an engine that raises has nothing prepared
        version = order.plan.version
        cause = "it was cancelled" if error is None else told(error)
        logger.warning("version %d is not prepared: %s", version, cause)
        is_transient = not isinstance(error, PlanUnacceptableError)
        message = f"Expected version {version} to be prepared, got: {cause}."
        refusal = self._session.not_staged(order.plan, message, is_transient=is_transient)
        self._say(refusal)

    async def _fetch(self, order: _Order) -> None:
        assert self._stage is not None
        left_s = order.due_s - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(order.due_s) as limit:
                if left_s > 0:
                    await self._stage(order.plan, left_s)
                else:
                    await asyncio.sleep(0)
        except TimeoutError:
            if limit.expired():
                raise _LateError("the deadline has passed") from None
            raise

    async def _drop(self) -> None:
        held, self._held = self._held, None
        if held is None or self._unstage is None:
            return
        try:
            await self._unstage(held.plan.version)
        except Exception:  # the engine's own code, and nothing hangs on its answer
            logger.warning("version %d is not dropped", held.plan.version, exc_info=True)

    def _say(self, answer: messages.Request | None) -> None:
        if answer is not None:
            self._answer(answer)


class _LateError(ExpertplaneError):
    """The planner's deadline has passed; it asks no more for what was to be prepared."""
