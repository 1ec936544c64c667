"""The task around the core: effects in order, persistence first, failures survived."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.errors import UnavailableError
from expertplane_server.core.group import Group
from expertplane_server.core.plan import PlanState
from expertplane_server.runtime import driver as driver_module
from expertplane_server.runtime.driver import _MAX_QUEUED, Driver
from expertplane_server.runtime.jobs import LearnJob, SolveJob
from expertplane_server.runtime.outbox import Outbox

from .. import builders


if TYPE_CHECKING:
    from .conftest import Bench


async def test_whole_way(bench: Bench) -> None:
    """Report, solve, store, announce, commit, applied: the driver carries it all out."""
    bench.solver.answer = builders.solution()
    async with bench.running() as driven:
        assert await driven.hear(1) == ["Welcome"]
        assert await driven.ask(builders.report(), 2) == ["ReportAck", "Commit"]

        assert bench.hub.latest(builders.NAME) == bench.store.plan(builders.NAME, 1)
        plan = bench.store.plan(builders.NAME, 1)
        assert await driven.ask(builders.applied(plan), 0) == []
        # The next answer comes behind what the Ack set off.
        assert await driven.ask(builders.report(), 1) == ["ReportAck"]

    assert bench.store.plan(builders.NAME, 1).state is PlanState.APPLIED
    assert bench.store.calls == ["publish", "mark_applied"]
    assert bench.count("committed_version", deployment=builders.NAME) == 1
    assert bench.count("decisions_total", deployment=builders.NAME, reason="PUBLISHED") == 1
    assert bench.count("samples_total", deployment=builders.NAME, fate="accepted") == 1


async def test_store_that_fails(bench: Bench) -> None:
    """A plan that is not stored is shown to nobody; the next window publishes version 1."""
    bench.solver.answer = builders.solution()
    bench.store.failing.add("publish")
    async with bench.running() as driven:
        await driven.hear(1)
        await driven.ask(builders.report(), 1)
        await asyncio.to_thread(bench.store.has_failed.wait)
        bench.store.failing.clear()

        assert bench.hub.latest(builders.NAME) is None
        assert await driven.ask(builders.report(first_step=1), 2) == ["ReportAck", "Commit"]
        latest = bench.hub.latest(builders.NAME)
        assert latest is not None
        assert latest.version == 1

    assert bench.count("store_errors_total", operation="publish") == 1
    assert bench.count("decisions_total", deployment=builders.NAME, reason="FAILED_STORE") == 1
    assert bench.count("core_errors_total") == 0


async def test_applied_that_is_not_stored(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """That a plan is applied is a note: when it cannot be stored, the service goes on."""
    bench.solver.answer = builders.solution()
    bench.store.failing.add("mark_applied")
    async with bench.running() as driven:
        await driven.hear(1)
        await driven.ask(builders.report(), 2)
        with caplog.at_level(logging.WARNING):
            await driven.ask(builders.applied(bench.store.plan(builders.NAME, 1)), 0)
            assert await driven.ask(builders.report(), 1) == ["ReportAck"]

    assert "that v1 is applied not stored" in caplog.text
    assert bench.count("core_errors_total") == 0


async def test_solver_that_fails(bench: Bench) -> None:
    """A lost solver is a decision."""
    bench.solver.answer = UnavailableError("lost")
    async with bench.running() as driven:
        await driven.hear(1)
        await driven.ask(builders.report(), 1)
        await bench.solver.asked.wait()
        bench.solver.answer = builders.solution()
        assert await driven.ask(builders.report(first_step=1), 2) == ["ReportAck", "Commit"]

    assert bench.count("decisions_total", deployment=builders.NAME, reason="FAILED_SOLVE") == 1


async def test_counters_before_the_welcome(bench: Bench) -> None:
    """Counters that a participant has seen are raised durably before it is welcomed."""
    driver = bench.driver()
    outbox = Outbox()
    driver.attach(1, outbox)
    driver.start()
    await driver.submit(builders.hello(1, highest_version=9, highest_epoch=4))
    welcome = await outbox.take()
    await driver.stop()

    assert isinstance(welcome, fx.Welcome)
    assert bench.store.deployments()[0].head == 9
    assert (bench.store.epoch, bench.epochs) == (5, [5])
    assert (driver.group.epoch, driver.group.deployment.head) == (5, 9)


async def test_counters_that_cannot_be_raised(bench: Bench) -> None:
    """Without durable counters the stream ends, and the driver goes on."""
    bench.store.failing.add("raise_counters")
    driver = bench.driver()
    outbox = Outbox()
    driver.attach(1, outbox)
    driver.start()
    await driver.submit(builders.hello(1, highest_version=9))

    with pytest.raises(UnavailableError):
        await outbox.take()
    await driver.stop()
    assert bench.count("core_errors_total") == 0


async def test_event_that_fails(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """An event that the core trips over is logged and counted, and does not end the task."""
    async with bench.running() as driven:
        await driven.hear(1)
        await driven.driver.submit(ev.Stored(plan=builders.plan()))
        assert await driven.ask(builders.report(), 1) == ["ReportAck"]

    assert bench.count("core_errors_total") == 1
    assert "event Stored failed" in caplog.text


async def test_stream_that_ends(bench: Bench) -> None:
    """A superseded stream is closed with its error; messages for unknown streams are dropped."""
    async with bench.running() as driven:
        await driven.hear(1)
        await driven.driver.submit(builders.hello(2))

        with pytest.raises(Exception, match="it has opened another"):
            await driven.outbox.take()


async def test_stop_ends_a_solve(bench: Bench) -> None:
    """A driver that is stopped waits for no solve."""
    bench.solver.may_answer.clear()
    async with bench.running() as driven:
        await driven.hear(1)
        await driven.ask(builders.report(), 1)
        await bench.solver.asked.wait()

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_stopped_driver_holds_nobody_up(bench: Bench) -> None:
    """Whoever waits for room in the queue, or comes later, is let through by a stop."""
    driver = bench.driver()
    driver.attach(1, Outbox())
    for _ in range(_MAX_QUEUED):
        await driver.submit(ev.Tick())
    blocked = [asyncio.create_task(driver.submit(ev.Tick())) for _ in range(5)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in blocked)
    await driver.stop()

    await asyncio.gather(*blocked)
    for _ in range(_MAX_QUEUED + 1):
        await driver.submit(ev.Tick())


async def test_messages_to_all(bench: Bench) -> None:
    """A message to all goes to every stream; closing all hands the outboxes back once."""
    driver = bench.driver()
    boxes = [Outbox(), Outbox()]
    for number, box in enumerate(boxes):
        driver.attach(number, box)
    driver.send_all(fx.Drain(1.0))

    assert driver.close_all() == boxes
    assert driver.close_all() == []
    assert [await box.take() for box in boxes] == [fx.Drain(1.0)] * 2


async def test_window_without_a_solve(bench: Bench) -> None:
    """A window that is skipped is learned, and what was learned is saved on demand."""
    bench.solver.may_answer.clear()
    bench.solver.answer = builders.solution()
    async with bench.running() as driven:
        await driven.hear(1)
        await driven.ask(builders.report(), 1)
        await bench.solver.asked.wait()
        await driven.ask(builders.report(first_step=1), 1)
        await driven.settle()
        bench.solver.may_answer.set()
        await driven.hear(1)
        # The keeper's turn comes behind the windows that wait for it.
        await driven.driver.save_forecast()

    assert [type(job) for job in bench.solver.jobs][:2] == [SolveJob, LearnJob]
    skipped = "SKIPPED_ROLLOUT_IN_FLIGHT"
    assert bench.count("decisions_total", deployment=builders.NAME, reason=skipped) == 1


async def test_windows_of_one_report(bench: Bench) -> None:
    """Windows that close together are learned in the order of their steps, all of them."""
    async with bench.running() as driven:
        await driven.hear(1)
        counts = [(float(number), 2.0, 3.0, 4.0) for number in range(1, 21)]
        await driven.ask(builders.report(*counts), 1)
        await driven.settle()
        # The keeper's turn comes behind the windows that wait for it.
        await driven.driver.save_forecast()

    jobs = [job for job in bench.solver.jobs if isinstance(job, SolveJob | LearnJob)]
    assert [job.samples[0, 0, 0] for job in jobs] == list(range(1, 21))
    assert bench.count("forecast_windows", deployment=builders.NAME) == 20
    assert not bench.count("forecast_lost_windows_total", deployment=builders.NAME)


async def test_solver_with_a_defect(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """An error that is no refusal is a decision too, or the deployment would wait for ever."""
    bench.solver.answer = ZeroDivisionError("oops")
    async with bench.running() as driven:
        await driven.hear(1)
        await driven.ask(builders.report(), 1)
        await bench.solver.asked.wait()
        bench.solver.answer = builders.solution()
        assert await driven.ask(builders.report(first_step=1), 2) == ["ReportAck", "Commit"]

    assert bench.count("decisions_total", deployment=builders.NAME, reason="FAILED_SOLVE") == 1
    assert bench.count("core_errors_total") == 1
    assert "ZeroDivisionError: oops" in caplog.text


async def test_ticks_tell_how_full_the_queue_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core hears with each tick how far it is behind; a full queue needs no tick."""
    monkeypatch.setattr(driver_module, "_TICK_S", 0.0)
    driver = bench.driver()
    for _ in range(_MAX_QUEUED // 2):
        await driver.submit(builders.report())
    ticking = asyncio.create_task(driver._tick())
    for _ in range(2 * _MAX_QUEUED):
        await asyncio.sleep(0)
    ticking.cancel()
    queued = [driver._queue.get_nowait() for _ in range(driver._queue.qsize())]
    fills = [event.queue_fill for event in queued if isinstance(event, ev.Tick)]

    assert len(queued) == _MAX_QUEUED
    assert fills[0] == 0.5
    assert fills[-1] == 1 - 1 / _MAX_QUEUED


async def test_roll_out_that_a_crash_has_cut_short(bench: Bench) -> None:
    """What an earlier planner was staging is given up before anything else happens."""
    driver = bench.driver()
    plan = builders.published(bench.store, state=PlanState.STAGING)
    driver = Driver(
        Group(
            bench.store.recover(builders.NAME, num_plans=16),
            epoch=bench.store.epoch,
            heartbeat_interval_s=builders.HEARTBEAT_S,
        ),
        bench.services,
        on_epoch=bench.epochs.append,
    )
    driver.start()
    await driver.order(orders.Pause())
    await driver.stop()
    calls = [each for each in bench.store.calls if each in ("abort", "set_paused")]

    assert calls == ["abort", "set_paused"]
    assert bench.store.plan(builders.NAME, plan.version).state is PlanState.ABORTED
    assert bench.count("plans_total", deployment=builders.NAME, outcome="aborted") == 1
