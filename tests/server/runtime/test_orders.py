"""Operators' orders in the driver: answered once, by whatever becomes of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.errors import (
    ConflictError,
    ExhaustedError,
    NotFoundError,
    ServiceError,
    UnavailableError,
)
from expertplane_server.core.plan import Decision, Plan, PlanState, Reason, Request
from expertplane_server.runtime import order_book
from expertplane_server.runtime.driver import _MAX_QUEUED
from expertplane_server.runtime.outbox import Outbox

from .. import builders


if TYPE_CHECKING:
    from .conftest import Bench


FIRST, SECOND = (0, 3, 1, 2), (1, 2, 0, 3)
PATIENCE_S = 20.0
"""A test that waits longer than this has failed."""


def publication(*experts: int) -> orders.Publish:
    """Return an operator's placement."""
    plan = builders.plan(experts or FIRST)
    return orders.Publish(plan.phy2log, plan.digest)


def repeatable(call: str = "pause prod/v3") -> Request:
    """Return a request with an id."""
    return builders.request("r-1", call)


async def test_answers(bench: Bench) -> None:
    """Each order has its answer: a plan, a decision, the deployment as it is now, a refusal."""
    async with bench.running() as driven:
        driver = driven.driver
        plan = await driver.order(publication())
        decision = await driver.order(orders.Rebalance())
        paused: Any = await driver.order(orders.Pause("night"))
        resumed: Any = await driver.order(orders.Resume())
        with pytest.raises(ConflictError):
            await driver.order(publication(*SECOND), expected_head=7)

    assert isinstance(plan, Plan)
    assert (plan.version, plan.state) == (1, PlanState.COMMITTED)
    assert isinstance(decision, Decision)
    assert (paused.is_paused, paused.pause_comment, resumed.is_paused) == (True, "night", False)
    assert bench.store.deployments()[0].etag == paused.etag


async def test_repeated(bench: Bench) -> None:
    """A request that was carried out has its first answer, over a restart as well."""
    wanted = builders.request("r-1", "publish it")
    async with bench.running() as driven:
        first = await driven.driver.order(publication(), request=wanted)
        assert await driven.driver.order(publication(*SECOND), request=wanted) == first
        assert bench.store.calls.count("publish") == 1
        assert await driven.driver.first_answer(publication(), wanted) == first
        other = builders.request("r-1", "publish another")
        with pytest.raises(ConflictError) as refusal:
            await driven.driver.order(publication(), request=other)

    assert refusal.value.reason == "REQUEST_ID_REUSED"


async def test_repeated_rebalance(bench: Bench) -> None:
    """A Rebalance has its decision again, whether it published a plan or not."""
    wanted, later = (Request(name, "rebalance", is_for_decision=True) for name in ("r-1", "r-2"))
    async with bench.running() as driven:
        idle = await driven.driver.order(orders.Rebalance(), request=wanted)
        bench.solver.answer = builders.solution(FIRST)
        await driven.hear(1)
        assert await driven.ask(builders.report(), 2) == ["ReportAck", "Commit"]
        bench.solver.answer = builders.solution(SECOND)
        published: Any = await driven.driver.order(orders.Rebalance(), request=later)

        assert await driven.driver.order(orders.Rebalance(), request=wanted) == idle
        assert await driven.driver.order(orders.Rebalance(), request=later) == published
    assert isinstance(idle, Decision)
    assert idle.reason is Reason.SKIPPED_FEW_SAMPLES
    assert (published.reason, published.plan_version) == (Reason.PUBLISHED, 2)
    assert published.sequence == 3


async def test_answer_that_is_not_kept(bench: Bench) -> None:
    """When the first answer is kept no more, a repeat is told so, and nothing is done twice."""
    wanted = builders.request("r-1", "publish it")
    bench.store._keep_plans = 2
    async with bench.running() as driven:
        await driven.driver.order(publication(), request=wanted)
        for experts in (SECOND, FIRST):
            await driven.driver.order(publication(*experts))
        with pytest.raises(NotFoundError):
            await driven.driver.order(publication(), request=wanted)

    assert bench.store.deployments()[0].head == 3


async def test_one_of_two_gives_up(bench: Bench) -> None:
    """Who repeats an order in flight waits for the same answer, also when the first gives up."""
    async with bench.running() as driven:
        driver, request = driven.driver, repeatable()
        first = asyncio.create_task(driver.order(orders.Pause(), request=request))
        second = asyncio.create_task(driver.order(orders.Pause(), request=request))
        await asyncio.sleep(0)
        first.cancel()
        answer: Any = await second
        with pytest.raises(asyncio.CancelledError):
            await first

    assert answer.is_paused
    assert bench.store.calls.count("set_paused") == 1


async def test_other_call_under_the_id_of_one_in_flight(bench: Bench) -> None:
    """An id is one order's already while that is being carried out."""
    driver = bench.driver()
    waiting = asyncio.create_task(driver.order(orders.Pause(), request=repeatable("pause")))
    await asyncio.sleep(0)
    other = driver.order(orders.Resume(), request=repeatable("resume"))
    with pytest.raises(ConflictError):
        await asyncio.wait_for(other, PATIENCE_S)
    driver.start()

    await waiting
    await driver.stop()


async def test_stopped(bench: Bench) -> None:
    """What waits when the driver stops, and what comes later, is unavailable."""
    driver = bench.driver()
    waiting = asyncio.create_task(driver.order(orders.Pause()))
    await asyncio.sleep(0)
    await driver.stop()

    for order in (waiting, driver.order(orders.Resume())):
        with pytest.raises(UnavailableError) as refusal:
            await asyncio.wait_for(order, PATIENCE_S)
        assert refusal.value.reason == "STOPPED"


async def test_bound(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders in flight are bounded; one that is answered makes room."""
    monkeypatch.setattr(order_book, "MAX_ORDERS", 2)
    driver = bench.driver()
    waiting = [asyncio.create_task(driver.order(orders.Pause(str(n)))) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ExhaustedError) as refusal:
        await driver.order(orders.Resume())
    driver.start()

    assert refusal.value.reason == "TOO_MANY_ORDERS"
    await asyncio.gather(*waiting)
    await driver.order(orders.Resume())
    await driver.stop()


async def test_given_up_before_it_was_queued(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gives up while the queue is full leaves no order behind."""
    monkeypatch.setattr(order_book, "MAX_ORDERS", 1)
    driver = bench.driver()
    for _ in range(_MAX_QUEUED):
        await driver.submit(ev.Tick())
    ordering = asyncio.create_task(driver.order(orders.Pause()))
    await asyncio.sleep(0)
    ordering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ordering
    driver.start()

    await driver.order(orders.Resume())
    await driver.stop()


@pytest.mark.parametrize("at", ["handle", "publish"])
async def test_defect(bench: Bench, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """An order that the planner trips over is answered all the same, and the next one served."""
    async with bench.running() as driven:
        await driven.settle()
        with monkeypatch.context() as patched:

            def fail(*args: Any, **told: Any) -> Any:
                raise ZeroDivisionError("oops")

            owner: Any = driven.driver.group if at == "handle" else bench.store
            patched.setattr(owner, at, fail)
            with pytest.raises(ServiceError) as refusal:
                await driven.driver.order(publication())
        plan: Any = await driven.driver.order(publication())

    assert isinstance(refusal.value, UnavailableError)
    assert refusal.value.reason == "DEFECT"
    assert plan.version == 1
    assert bench.count("core_errors_total") == 1


async def test_defect_in_a_later_event(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that waits for a solve is answered also when the planner trips over its result."""
    async with bench.running() as driven:
        cycle = driven.driver.group._cycle
        await driven.hear(1)
        await driven.ask(builders.report(), 1)
        await bench.solver.asked.wait()
        await driven.driver.save_forecast()  # its turn comes behind the solve
        await driven.settle()

        def fail(*args: Any, **told: Any) -> Any:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr(cycle._trigger, "judge", fail)
        with pytest.raises(UnavailableError) as refusal:
            await asyncio.wait_for(driven.driver.order(orders.Rebalance()), PATIENCE_S)
        paused: Any = await driven.driver.order(orders.Pause())

    assert refusal.value.reason == "DEFECT"
    assert paused.is_paused


async def test_effect_with_a_defect(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one effect fails, an answer that stands behind it is not lost in silence."""
    bench.solver.answer = builders.solution(gain=0.0)
    async with bench.running() as driven:
        await driven.ask(builders.report(), 1)
        await bench.solver.asked.wait()
        await driven.driver.save_forecast()  # its turn comes behind the solve
        await driven.settle()
        count = driven.driver._instruments.on_effect

        def fail_at_record(effect: fx.Effect) -> None:
            if isinstance(effect, fx.Record):
                raise ZeroDivisionError("oops")
            count(effect)

        monkeypatch.setattr(driven.driver._instruments, "on_effect", fail_at_record)
        order = driven.driver.order(orders.Rebalance())
        with pytest.raises(UnavailableError) as refusal:
            await asyncio.wait_for(order, PATIENCE_S)

    assert refusal.value.reason == "DEFECT"


async def test_counts(bench: Bench) -> None:
    """What operators do is seen in the metrics."""
    outbox = Outbox()
    async with bench.running() as driven:
        driven.driver.attach(2, outbox)
        await driven.driver.order(publication())
        await driven.driver.order(orders.Pause())

    assert bench.count("paused", deployment=builders.NAME) == 1
    assert bench.count("plans_total", deployment=builders.NAME, outcome="published") == 1
    assert bench.count("committed_version", deployment=builders.NAME) == 1
