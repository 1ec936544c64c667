"""When a device that has failed is tried again."""

from __future__ import annotations

import pytest

from expertplane_server.runtime.comeback import Comeback

from ..fakes import HandClock


@pytest.fixture
def clock() -> HandClock:
    """A clock that does not begin at zero, as no machine's does."""
    made = HandClock()
    made.now_s = 5000.0
    return made


def fail(comeback: Comeback, clock: HandClock) -> float:
    """Let the device fail, wait until it is due and try it; return how long that took."""
    comeback.on_failure()
    start_s = clock.now_s
    while not comeback.is_due():
        clock.now_s += 1.0
    comeback.on_try()
    return clock.now_s - start_s


def test_no_failure() -> None:
    """A device that has not failed is not tried again, however much time goes by."""
    clock = HandClock()
    comeback = Comeback(clock)
    clock.now_s = 1e9

    assert not comeback.is_away
    assert not comeback.is_due()
    assert not comeback.is_overdue()


def test_later_and_later(clock: HandClock) -> None:
    """After a minute, then after twice as long each time, in the end every hour."""
    comeback = Comeback(clock)

    waited_s = [fail(comeback, clock) for _ in range(9)]

    assert waited_s == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_relapse(clock: HandClock) -> None:
    """A device that fails again within the hour has not come back; after that it has."""
    comeback = Comeback(clock)
    fail(comeback, clock)
    clock.now_s += 3599
    assert fail(comeback, clock) == 120
    clock.now_s += 3600
    assert fail(comeback, clock) == 60


def test_states(clock: HandClock) -> None:
    """Away from the failure to the try; due after the delay, overdue after twice the delay."""
    comeback = Comeback(clock)
    comeback.on_failure()
    seen = []
    for _ in range(4):
        seen.append((comeback.is_away, comeback.is_due(), comeback.is_overdue()))
        clock.now_s += 59.5
    assert seen == [(True, False, False)] * 2 + [(True, True, False), (True, True, True)]
    comeback.on_try()

    assert (comeback.is_away, comeback.is_due(), comeback.is_overdue()) == (False, False, False)
