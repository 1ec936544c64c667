"""What waits for a stream."""

from __future__ import annotations

import asyncio

import pytest

from expertplane_server.core import effects as fx
from expertplane_server.core.errors import ExhaustedError, UnavailableError
from expertplane_server.runtime.outbox import _MAX_WAITING, Outbox

from .. import builders


def commit(version: int) -> fx.Commit:
    """Return a Commit."""
    return fx.Commit(builders.plan(version=version))


def welcome() -> fx.Welcome:
    """Return a Welcome."""
    return fx.Welcome(verdict=fx.Verdict.NO_PLAN_YET)


async def drained(outbox: Outbox) -> list[fx.Message]:
    """Close the outbox and return what it hands out."""
    outbox.close()
    taken = []
    while (message := await outbox.take()) is not None:
        taken.append(message)
    return taken


async def test_order() -> None:
    """Messages come out in the order in which they went in."""
    outbox = Outbox()
    messages: list[fx.Message] = [welcome(), fx.ReportAck(1), commit(1), fx.ReportAck(2)]
    for message in messages:
        outbox.put(message)

    assert await drained(outbox) == messages


async def test_waits() -> None:
    """A reader waits for the next message."""
    outbox = Outbox()
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.put(fx.ReportAck(1))

    assert await taking == fx.ReportAck(1)


async def test_newest_plan_wins() -> None:
    """A plan that waits gives way to a newer one, which goes to the end."""
    outbox = Outbox()
    newest = commit(3)
    for message in (commit(1), fx.ReportAck(1), commit(2), newest):
        outbox.put(message)

    assert await drained(outbox) == [fx.ReportAck(1), newest]


async def test_welcome_replaces_a_plan() -> None:
    """A Welcome tells all about the plan: a Commit before it goes, one after it stays."""
    outbox = Outbox()
    told, newest = welcome(), commit(2)
    for message in (commit(1), told, newest):
        outbox.put(message)

    assert await drained(outbox) == [told, newest]


async def test_newest_heartbeat_wins() -> None:
    """One heartbeat waits at most."""
    outbox = Outbox()
    for head in (1, 2, 3):
        outbox.put(fx.PlannerHeartbeat(head=head, committed=0))

    assert await drained(outbox) == [fx.PlannerHeartbeat(head=3, committed=0)]


async def test_overflow_ends_the_stream() -> None:
    """A peer that lets 256 answers wait is cut off, and nothing more is kept for it."""
    outbox = Outbox()
    for sequence in range(_MAX_WAITING):
        outbox.put(fx.ReportAck(sequence))
    assert not outbox.is_closed
    outbox.put(fx.ReportAck(_MAX_WAITING))
    outbox.put(fx.ReportAck(_MAX_WAITING + 1))

    with pytest.raises(ExhaustedError) as refusal:
        await outbox.take()
    assert refusal.value.reason == "SLOW_READER"


async def test_closed_with_an_error() -> None:
    """What waits is written before the stream ends with its error; nothing is added to it."""
    outbox = Outbox()
    outbox.put(fx.ReportAck(1))
    outbox.close(UnavailableError("over"))
    outbox.put(fx.ReportAck(2))

    assert await outbox.take() == fx.ReportAck(1)
    with pytest.raises(UnavailableError, match="over"):
        await outbox.take()


async def test_first_end_counts() -> None:
    """A stream that has ended with an error does not end in order afterwards, nor otherwise."""
    outbox = Outbox()
    outbox.close(UnavailableError("first"))
    outbox.close()
    outbox.close(UnavailableError("second"))

    with pytest.raises(UnavailableError, match="first"):
        await outbox.take()


async def test_close_wakes_the_reader() -> None:
    """A reader that waits hears of the end."""
    outbox = Outbox()
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.close()

    assert await taking is None
