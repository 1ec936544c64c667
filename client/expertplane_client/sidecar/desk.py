"""Between participant and engine: asks what the planner wants, and waits, engine or none."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from expertplane_client.errors import ExpertplaneError, PlanUnacceptableError

from .dialogue import Applied, Refused, Staged


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane_client.plan import Plan

    from .dialogue import EngineHello


class EngineRefusalError(ExpertplaneError):
    """The engine did not do it this time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """What the engine is asked to do with a plan."""

    kind: Literal["plan", "stage", "commit"]
    """Serve with it from the start, prepare it, or switch to it."""
    plan: Plan
    due_s: float | None = None
    """When the answer must be there, on the loop's clock; None for no limit."""
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names the order for ever."""


class Port(Protocol):
    """A way to tell the engine; nothing here waits or fails."""

    def offer(self, order: Order) -> None:
        """Tells an order, in place of an earlier one of its kind."""

    def withdraw(self, version: int) -> None:
        """Tells that a version is not to be prepared any more."""

    def say_no_plan(self) -> None:
        """Tells that there is no plan: serve with the start placement."""


@dataclass(slots=True, eq=False)
class _Question:
    order: Order
    answer: asyncio.Future[int]


class Desk:
    """The engine as its participant sees it. Outlives engines: what is asked waits for the next.

    Args:
        on_change: Called when an engine has come, gone or answered.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._port: Port | None = None
        self._engine: EngineHello | None = None
        self._applied = Applied(version=0)
        self._staging: _Question | None = None
        self._switching: _Question | None = None
        # Prepared, and told to the planner: an engine that comes back is to keep it.
        self._staged: Order | None = None
        self._is_closed = False

    @property
    def engine(self) -> EngineHello | None:
        """The engine that is there now."""
        return self._engine

    @property
    def applied_version(self) -> int:
        """The version that the engine has last said to serve with; 0 is its start placement."""
        return self._applied.version

    def open(self, port: Port) -> None:
        """Takes the way to the engine."""
        self._port = port

    def close(self) -> None:
        """Fails whatever waits for the engine, now and later."""
        self._is_closed = True
        for question in (self._staging, self._switching):
            if question is not None and not question.answer.done():
                question.answer.set_exception(EngineRefusalError("the sidecar stops"))

    def is_served_with(self, plan: Plan | None, hello: EngineHello) -> bool:
        """Tells whether an engine that comes serves with a plan, or has just switched to ours."""
        if self._switching is not None and _is(hello.applied, self._switching.order.plan):
            return True
        if plan is None:
            return hello.applied is None or not hello.applied.version
        return _is(hello.applied, plan)

    def attach(self, hello: EngineHello) -> None:
        """Notes that an engine has come, about which nothing is known."""
        self._engine = hello
        self._staged = None
        self._applied = hello.applied or Applied(version=0)
        self._on_change()

    def resume(self, hello: EngineHello, plan: Plan | None) -> None:
        """Notes that the same engine has come back, and tells it again what it is to do.

        Args:
            hello: What it says of itself.
            plan: The plan that its participant believes it to serve with.
        """
        self._engine = hello
        self._applied = hello.applied or Applied(version=0)
        switching = None if self._switching is None else self._switching.order
        if switching is not None and _is(hello.applied, switching.plan):
            # It has switched and could not say so any more: sent back it would leave the others.
            plan, switching = switching.plan, None
        if plan is None:
            self.say_no_plan()
        else:
            self._offer(Order(kind="plan", plan=plan))
        held = self._staging.order if self._staging is not None else self._staged
        for order in (held, switching):
            if order is not None:
                self._offer(order)
        if hello.applied is not None:
            self.answer(hello.applied)
        self._on_change()

    def detach(self) -> None:
        """Notes that the engine is gone; what was asked waits."""
        self._engine = None
        self._on_change()

    async def stage(self, plan: Plan, deadline_s: float) -> None:
        """Has a plan prepared; the caller keeps the time.

        Raises:
            EngineRefusalError: the engine could not.
            PlanUnacceptableError: the engine never will.
        """
        loop = asyncio.get_running_loop()
        question = self._question(Order(kind="stage", plan=plan, due_s=loop.time() + deadline_s))
        self._staging = question
        try:
            self._offer(question.order)
            await question.answer
            self._staged = question.order
        finally:
            self._staging = None

    async def unstage(self, version: int) -> None:
        """Has a plan dropped."""
        self._staged = None
        if self._port is not None and self._engine is not None:
            self._port.withdraw(version)

    async def switch(self, plan: Plan, *, is_start: bool) -> int:
        """Has the ranks switched, and returns the step at which they did.

        Args:
            plan: The plan to serve with.
            is_start: Whether it is what an engine that has just come is to start with.

        Raises:
            EngineRefusalError: the engine could not.
            PlanUnacceptableError: the engine never will.
        """
        question = self._question(Order(kind="plan" if is_start else "commit", plan=plan))
        self._switching = question
        try:
            self._offer(question.order)
            if _is(self._applied, plan):
                return self._applied.step
            step = await question.answer
            self._applied = Applied(version=plan.version, digest=plan.digest, step=step)
            self._staged = None
            return step
        finally:
            self._switching = None

    def say_no_plan(self) -> None:
        """Tells the engine that it starts without a plan."""
        if self._port is not None and self._engine is not None:
            self._port.say_no_plan()

    def answer(self, message: Staged | Applied | Refused) -> bool:
        """Takes an engine's word; False when nothing of the kind was asked."""
        staging, switching = self._staging, self._switching
        match message:
            case Staged() if staging is not None and _is(message, staging.order.plan):
                return _settle(staging, 0)
            case Applied() if switching is not None and _is(message, switching.order.plan):
                return _settle(switching, message.step)
            case Refused():
                for question in (staging, switching):
                    if question is not None and _refuses(message, question.order):
                        return _settle(question, _refusal(message))
                return False
            case Staged():
                return self._staged is not None and _is(message, self._staged.plan)
            case _:
                return message.version == self._applied.version

    def _question(self, order: Order) -> _Question:
        if self._is_closed:
            raise EngineRefusalError("the sidecar stops")
        return _Question(order, asyncio.get_running_loop().create_future())

    def _offer(self, order: Order) -> None:
        if self._port is not None and self._engine is not None:
            self._port.offer(order)


def _settle(question: _Question, outcome: int | Exception) -> bool:
    if question.answer.done():
        return True
    if isinstance(outcome, int):
        question.answer.set_result(outcome)
    else:
        question.answer.set_exception(outcome)
    return True


def _is(message: Staged | Applied | None, plan: Plan) -> bool:
    if message is None or message.version != plan.version:
        return False
    return message.digest in ("", plan.digest)


def _refuses(message: Refused, order: Order) -> bool:
    return message.version == order.plan.version and message.order in ("", order.number)


def _refusal(message: Refused) -> Exception:
    kind = EngineRefusalError if message.is_transient else PlanUnacceptableError
    return kind(message.message)
