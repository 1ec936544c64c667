"""What waits for a stream."""

from __future__ import annotations

import asyncio

import pytest

from expertplane_server.core import effects as fx
from expertplane_server.core.errors import ExhaustedError, UnavailableError
from expertplane_server.runtime.outbox import _MAX_WAITING, Outbox
from expertplane_server.telemetry.metrics import Metrics

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


def stage(version: int) -> fx.Stage:
    """Return a Stage."""
    return fx.Stage(builders.plan(version=version), deadline_s=9.0)


@pytest.mark.parametrize(
    ("waiting", "kept"),
    [
        # An Abort takes the Stage of its version out, and goes all the same: an earlier Stage of
        # that version may have been read.
        ([stage(1), fx.Abort(1, "lost")], [1]),
        ([stage(1), fx.Abort(2, "lost")], [0, 1]),
        # What comes after an Abort is another matter.
        ([fx.Abort(1, "lost"), stage(2)], [0, 1]),
        ([stage(1), fx.Abort(1, "lost"), stage(2)], [1, 2]),
        ([fx.Abort(1, "lost"), fx.Abort(2, "lost")], [0, 1]),
        # A Stage repeats itself, and replaces no other.
        ([stage(1), stage(1)], [1]),
        ([stage(1), stage(2)], [0, 1]),
        # Commits and stages do not touch each other, nor does a Welcome touch a Stage or Abort.
        ([stage(1), fx.Commit(builders.plan(version=1), is_staged=True)], [0, 1]),
        ([commit(1), stage(2)], [0, 1]),
        ([commit(1), fx.Abort(2, "lost")], [0, 1]),
        ([stage(1), welcome()], [0, 1]),
        ([fx.Abort(1, "lost"), welcome()], [0, 1]),
        # The latest cadence counts.
        ([fx.Flow(1.0), fx.Flow(2.0)], [1]),
        ([fx.Flow(1.0), fx.PlannerHeartbeat(head=0, committed=0)], [0, 1]),
    ],
)
async def test_what_gives_way(waiting: list[fx.Message], kept: list[int]) -> None:
    """Only what is outdated gives way, and the order of the rest stays."""
    metrics = Metrics()
    outbox = Outbox(metrics)
    for message in waiting:
        outbox.put(message)

    assert await drained(outbox) == [waiting[number] for number in kept]
    dropped = metrics.registry.get_sample_value("expertplane_outbox_dropped_messages_total")
    assert dropped == len(waiting) - len(kept)


async def test_withdrawn_again_and_again() -> None:
    """Roll-outs that come and go behind the back of a peer end in an end of the stream."""
    metrics = Metrics()
    outbox = Outbox(metrics)
    for version in range(_MAX_WAITING + 1):
        outbox.put(stage(version))
        outbox.put(fx.Abort(version, "lost"))

    with pytest.raises(ExhaustedError):
        await outbox.take()
    labels = {"cause": "overflow"}
    assert metrics.registry.get_sample_value("expertplane_slow_readers_total", labels) == 1


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
