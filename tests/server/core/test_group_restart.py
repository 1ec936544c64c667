"""What a planner that starts finds in the store, and what it makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.plan import PlanRef, PlanState

from .. import builders
from .stored import (
    Mishap,
    StoredConversation,
    coordinated_pair,
    pair,
    publish,
    rollout,
)


# A restart.


def test_restart_during_a_staging() -> None:
    """What an earlier planner was staging is given up first of all; the version is burned."""
    talk = coordinated_pair()
    talk.propose()
    talk.staged(1)
    ref = talk.ref(1)

    assert talk.restart() == ["abort v1", "record FAILED_ROLLOUT v1"]
    assert talk.plan(1).state is PlanState.ABORTED
    latest = talk.group.journal.latest
    assert latest is not None
    assert latest.message == (
        "Version 1 is given up before its commit. The planner that rolled it out is gone."
    )
    assert talk.tell(builders.hello(1, "a", (0,), staged=ref)) == [
        "1 < welcome no_plan_yet elected",
        "1 < abort v1",
    ]
    talk.tell(builders.hello(2, "b", (1,)))
    assert talk.propose()[1] == "record PUBLISHED v2"


@pytest.mark.parametrize("mishap", list(Mishap))
def test_restart_during_a_staging_with_a_store_that_fails(mishap: Mishap) -> None:
    """Until the old plan is given up durably, no other is published."""
    talk = coordinated_pair()
    talk.propose()
    talk.mishaps[fx.AbortPlan] = [mishap, mishap]
    talk.mishaps[fx.ReadBack] = [Mishap.LOST]

    assert talk.restart() == ["abort v1", "read back"]
    talk.join()
    for _ in range(4):
        assert talk.group.staging_version in (0, 1)
        talk.wait(0.25)
    assert talk.plan(1).state is PlanState.ABORTED
    assert talk.propose()[1] == "record PUBLISHED v2"


def test_restart_after_the_commit() -> None:
    """What was committed is in force, and whoever comes back is told to take it."""
    talk = coordinated_pair()
    talk.propose()
    talk.staged(1)
    talk.staged(2)
    ref = talk.ref(1)

    assert talk.restart() == []
    assert talk.group.committed == talk.plan(1)
    assert talk.tell(builders.hello(1, "a", (0,), staged=ref)) == [
        "1 < welcome take_this_plan v1 elected"
    ]
    talk.tell(builders.hello(2, "b", (1,), applied=ref))
    assert talk.applied(1) == ["applied v1"]


def test_restart_keeps_the_journal() -> None:
    """Decisions go on to be numbered where they have left off."""
    talk = pair()
    for _ in range(3):
        talk.propose(gain=0.0)
    talk.restart()
    talk.join()
    talk.propose()

    decisions = talk.group.journal.after(0, 10)
    assert [each.sequence for each in decisions] == [1, 2, 3, 4]
    assert decisions == list(talk.store.recover(builders.NAME, num_plans=1).decisions)
    assert [each.epoch for each in decisions] == [1, 1, 1, talk.store.epoch]


@pytest.mark.parametrize("started", [1, 2])
def test_restart_keeps_what_was_refused(started: int) -> None:
    """What a process refused for good it is not sent after a restart; a new process is."""
    talk = coordinated_pair()
    talk.propose()
    talk.tell(builders.nack(1, stream=2))
    talk.restart()
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,), started=started))

    lines = talk.propose()
    assert ("record SKIPPED_PLAN_REFUSED" in lines) == (started == 1)


def test_restart_keeps_who_was_superseded() -> None:
    """A process that another has replaced is refused by every later planner."""
    talk = pair()
    talk.tell(builders.hello(3, "b", (1,), started=2), ev.StreamEnded(stream=3, is_goodbye=True))
    talk.restart()

    assert talk.tell(builders.hello(4, "b", (1,), started=1)) == ["4 ends: SUPERSEDED"]


@pytest.mark.parametrize("ago_s", [0.0, 20.0])
def test_restart_keeps_the_cooldown(ago_s: float) -> None:
    """The cool-down goes on over a restart, by the wall clock, from the plan, not from its end."""
    talk = coordinated_pair(cooldown_s=60.0)
    talk.propose()
    talk.now_s = 10.0
    talk.tell(builders.nack(1, stream=2, is_transient=False))
    talk.now_s = 40.0 - ago_s
    talk.restart(after_s=ago_s)
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,), started=2))
    talk.now_s = 19.5
    assert talk.load()[-2:] == ["record SKIPPED_COOLDOWN", "learn 1 samples"]

    talk.now_s = 20.0
    assert talk.load()[-1].startswith("solve")


def test_restart_keeps_the_hold_down() -> None:
    """So does the rest after an operator's plan, whatever was decided since."""
    talk = StoredConversation(builders.spec(rollout=rollout(hold_down_s=60.0))).join()
    talk.order(publish((2, 1, 0, 3)))
    talk.finish()
    talk.order(orders.Rebalance())
    talk.now_s = 30.0
    talk.restart(after_s=10.0)

    assert talk.group.hold_down_s(0.0) == 20.0
    assert talk.group.hold_down_s(30.0) == 0.0


def test_clock_that_was_set_back() -> None:
    """A publication that seems to come from the future counts as one of now."""
    talk = StoredConversation(builders.spec(rollout=rollout(hold_down_s=60.0))).join()
    talk.now_s = 500.0
    talk.order(publish((2, 1, 0, 3)))
    talk.restart(after_s=-400.0)

    assert talk.group.hold_down_s(0.0) == 60.0


def test_restart_without_a_publication() -> None:
    """Where nothing was published, nothing rests."""
    talk = StoredConversation(builders.spec(cooldown_s=60.0)).join()
    talk.propose(gain=0.0)
    talk.restart()

    assert talk.group.hold_down_s(0.0) == 0.0
    assert talk.join().load()[-1].startswith("solve")


@pytest.mark.parametrize("is_same_shape", [True, False])
def test_restart_in_a_new_generation(is_same_shape: bool) -> None:
    """A plan of an earlier generation stays in force, uncommitted, where it has the shape."""
    wide = builders.spec(topology=builders.topology(slots_per_rank=4))
    talk = StoredConversation(wide).join()
    talk.roll_out((3, 2, 1, 0, 0, 1, 2, 3))
    topology = builders.topology(slots_per_rank=4 if is_same_shape else 5, masked_ranks=(1,))
    wanted = replace(wide, topology=topology)
    talk.order(orders.Update(wanted, talk.group.deployment.etag))
    before = talk.group.in_force
    talk.restart()

    assert talk.group.committed is None
    assert talk.group.deployment.generation == 2
    assert np.array_equal(talk.group.in_force, before)
    assert talk.tell(builders.hello(5, "a", (0,), applied=talk.ref(1))) == [
        "5 < welcome no_plan_yet elected"
    ]


# A backup.


def test_restored_backup() -> None:
    """After a participant has told of more, the next version and term are new to everybody."""
    talk = pair()
    seen = {"highest_version": 41, "highest_epoch": 7}
    lines = talk.tell(
        builders.hello(3, "b", (1,), applied=PlanRef(version=41, digest="d"), **seen)
    )
    assert lines[1] == "raise for 3: version 41, epoch 7"

    assert talk.group.epoch == 8
    assert talk.propose()[1] == "record PUBLISHED v42"
    assert talk.plan(42).epoch == 8
