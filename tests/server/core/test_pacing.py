"""Slower reports while events pile up."""

from __future__ import annotations

import random

from expertplane_server.core import events as ev
from expertplane_server.core.group import Group
from expertplane_server.core.pacing import Pacer
from expertplane_server.core.recovered import Recovered

from .. import builders
from .script import Conversation


def test_one_look_is_no_pressure() -> None:
    """A queue that is half full once is an accident."""
    pacer = Pacer(1.0)

    assert [pacer.note(fill, 0.0) for fill in (0.5, 0.49, 0.5, 0.0)] == [False] * 4
    assert pacer.interval_s == 1.0


def test_pressure_doubles_the_interval() -> None:
    """Two looks in a row at a half full queue double the interval, up to sixteen times."""
    pacer = Pacer(0.5)
    intervals = []
    for _ in range(14):
        pacer.note(0.5, 0.0)
        intervals.append(pacer.interval_s)

    assert intervals == [0.5, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 8, 8, 8]


def test_calm_halves_the_interval() -> None:
    """Ten seconds with less than a tenth in the queue halve it again, down to the usual."""
    pacer = Pacer(1.0)
    for _ in range(4):
        pacer.note(1.0, 0.0)
    changes = [now_s for now_s in range(1, 60) if pacer.note(0.1, float(now_s))]

    assert changes == [11, 21]
    assert pacer.interval_s == 1.0


def test_calm_is_not_interrupted() -> None:
    """What fills more than a tenth of the queue ends the calm, without being pressure."""
    pacer = Pacer(1.0)
    for _ in range(2):
        pacer.note(1.0, 0.0)
    fills = {6: 0.11}
    changes = [now_s for now_s in range(1, 30) if pacer.note(fills.get(now_s, 0.0), float(now_s))]

    assert changes == [17]


def test_interval_stays_in_its_bounds() -> None:
    """Whatever comes, the interval is in its bounds, and a change is told when there is one."""
    rng = random.Random(7)
    pacer = Pacer(2.0)
    for now_s in range(2000):
        before_s = pacer.interval_s
        is_told = pacer.note(rng.choice([0.0, 0.05, 0.3, 0.6, 1.0]) * (now_s % 100 < 60), now_s)
        assert is_told == (pacer.interval_s != before_s)
        assert 2.0 <= pacer.interval_s <= 32.0


def test_members_hear_of_it() -> None:
    """Every member is told the new interval once, and a newcomer with its welcome."""
    recovered = Recovered(deployment=builders.deployment())
    group = Group(recovered, epoch=1, heartbeat_interval_s=1e6, report_interval_s=0.5)
    talk = Conversation(group)
    talk.tell(builders.hello(1, "a", (0,)), ev.Tick())

    assert talk.tell(ev.Tick(0.9)) == []
    assert talk.tell(ev.Tick(0.9)) == ["1 < flow 1 s"]
    assert talk.tell(ev.Tick(0.9)) == []
    (welcome, *_) = group.handle(builders.hello(2, "b", (1,)), builders.at())
    assert welcome.message.report_interval_s == 1.0  # type: ignore[union-attr]
    talk.now_s = 1.0
    talk.tell(ev.Tick())
    talk.now_s = 11.0
    assert talk.tell(ev.Tick()) == ["1 < flow 0.5 s", "2 < flow 0.5 s"]
