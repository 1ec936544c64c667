"""Pause, hold-down, and a new spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from expertplane_server.core import effects as fx, orders
from expertplane_server.core.plan import PlanState, Reason
from expertplane_server.core.spec import DeploymentSpec, RolloutMode

from .. import builders
from .observed import observe
from .stored import (
    Mishap,
    StoredConversation,
    coordinated,
    coordinated_pair,
    latest,
    pair,
    publish,
    rollout,
    staging,
)


SWAPPED = (2, 1, 0, 3)
SHADOW = builders.spec(rollout_mode=RolloutMode.SHADOW)


def changed(before: DeploymentSpec, **changes: Any) -> DeploymentSpec:
    """Return a spec with another trigger."""
    return replace(before, trigger=replace(before.trigger, **changes))


# Pause and resume.


def test_pause() -> None:
    """A pause keeps automatics from solving and publishing until it is lifted."""
    talk = pair()

    assert talk.order(orders.Pause("night")) == ["store pause", "answer 1: generation 1 paused"]
    assert talk.load()[-2:] == ["record SKIPPED_PAUSED", "learn 1 samples"]
    assert latest(talk).message == "An operator has paused the deployment: night."
    assert talk.order(orders.Resume()) == ["store resume", "answer 2: generation 1"]
    assert talk.load()[-1] == "solve 1 of 1 samples"


def test_pause_during_a_solve() -> None:
    """A candidate that was solved while an operator paused is not published."""
    talk = pair()
    talk.load()
    talk.order(orders.Pause())

    assert talk.solved() == ["record SKIPPED_PAUSED"]


def test_operator_publishes_in_a_pause() -> None:
    """A pause is about automatics alone."""
    talk = pair()
    talk.order(orders.Pause())

    assert talk.order(publish(SWAPPED))[2] == "answer 2: v1"


@pytest.mark.parametrize("action", [orders.Pause("x"), orders.Resume()])
def test_pause_that_is_refused(action: orders.Action) -> None:
    """A refusal of the store is the answer, and nothing has changed."""
    talk = pair()
    talk.mishaps[fx.StorePause] = [Mishap.REFUSED]

    assert talk.order(action)[-1] == "answer 1: CONFLICT"
    assert not talk.group.deployment.is_paused
    assert talk.order(orders.Pause())[-1] == "answer 2: generation 1 paused"


# Hold-down.


@pytest.mark.parametrize("action", [publish(SWAPPED), orders.RollBack(None)])
def test_hold_down(action: orders.Action) -> None:
    """After an operator's plan automatic publication rests for the hold-down, and no longer."""
    talk = pair(builders.spec(rollout=rollout(hold_down_s=30.0)))
    talk.order(action)
    talk.finish()
    talk.now_s = 29.5
    assert talk.load()[-2:] == ["record SKIPPED_HOLD_DOWN", "learn 1 samples"]

    talk.now_s = 30.0
    assert talk.load()[-1] == "solve 1 of 1 samples"


# Update.


def test_update_of_the_trigger() -> None:
    """A change that leaves the ranks alone keeps generation, plan, members and their load."""
    talk = pair(builders.spec(window_samples=2))
    talk.load()
    talk.roll_out((0, 2, 1, 3))
    talk.load()
    etag = talk.group.deployment.etag
    wanted = changed(talk.group.deployment.spec, window_samples=3)

    lines = talk.order(orders.Update(wanted, etag))
    assert lines == ["store spec", "answer 1: generation 1"]
    assert talk.group.deployment.etag != etag
    assert talk.load()[-1] == "sample accepted"
    assert talk.load()[-1].endswith("of 3 samples")


def test_update_with_an_old_etag() -> None:
    """A spec that was written against another one is refused, and changes nothing."""
    talk = pair()
    before = observe(talk.group)

    lines = talk.order(orders.Update(changed(builders.spec(), min_gain=0.5), "old"))
    assert lines == ["answer 1: STALE_ETAG etag"]
    assert observe(talk.group) == before


def test_update_to_the_same_spec() -> None:
    """The spec that is in force already is stored under no new etag."""
    talk = pair()
    etag = talk.group.deployment.etag

    assert talk.order(orders.Update(builders.spec(), etag)) == ["answer 1: generation 1"]
    assert talk.group.deployment.etag == etag


def test_update_that_masks_a_rank() -> None:
    """A masked rank begins a generation; what the other ranks serve with stays in force."""
    wide = builders.spec(topology=builders.topology(slots_per_rank=4))
    talk = pair(wide)
    talk.roll_out((3, 2, 1, 0, 0, 1, 2, 3))

    wanted = replace(wide, topology=builders.topology(slots_per_rank=4, masked_ranks=(1,)))
    lines = talk.order(orders.Update(wanted, talk.group.deployment.etag))
    assert lines == [
        "store spec of a new generation",
        "announce none",
        "1 < welcome no_plan_yet elected",
        "2 < welcome no_plan_yet",
        "answer 1: generation 2",
    ]
    assert talk.group.in_force.tolist() == [[3, 2, 1, 0, -1, -1, -1, -1]]
    assert talk.propose((0, 2, 1, 3, -1, -1, -1, -1))[0] == "store on v0"
    assert talk.plan(2).draft.generation == 2


def test_member_that_comes_back_after_a_rank_was_masked() -> None:
    """Who reconnects does not take back what an earlier generation has left in force."""
    wide = builders.spec(topology=builders.topology(slots_per_rank=4))
    talk = pair(wide)
    talk.roll_out((3, 2, 1, 0, 0, 1, 2, 3))
    wanted = replace(wide, topology=builders.topology(slots_per_rank=4, masked_ranks=(1,)))
    talk.order(orders.Update(wanted, talk.group.deployment.etag))

    start = np.array([[0, 1, 2, 3, 0, 1, 2, 3]])
    talk.tell(builders.hello(3, "a", (0,), initial_phy2log=start, applied=talk.ref(1)))
    assert talk.group.in_force.tolist() == [[3, 2, 1, 0, -1, -1, -1, -1]]


def test_update_to_another_shape() -> None:
    """Other slots begin anew from the start placement; members whose ranks are gone are ended."""
    talk = pair()
    talk.roll_out((0, 2, 1, 3))

    wanted = builders.spec(topology=builders.topology(ranks_per_node=1, slots_per_rank=5))
    lines = talk.order(orders.Update(wanted, talk.group.deployment.etag))
    assert lines == [
        "store spec of a new generation",
        "announce none",
        "2 ends: INVALID_ARGUMENT",
        "1 < welcome no_plan_yet elected",
        "answer 1: generation 2",
    ]
    assert talk.group.in_force.tolist() == [[0, 1, 2, 3, 0]]
    assert talk.load()[-1].startswith("solve")


def test_update_ends_members_of_the_old_generation() -> None:
    """Who has named its generation belongs to that one alone."""
    talk = StoredConversation().join(generation=1)

    wanted = builders.spec(topology=builders.topology(slots_per_rank=3))
    lines = talk.order(orders.Update(wanted, talk.group.deployment.etag))
    assert lines[2:] == [
        "1 ends: STALE_GENERATION",
        "2 ends: STALE_GENERATION",
        "answer 1: generation 2",
    ]


def test_update_of_the_ranks_ends_a_staging() -> None:
    """A plan for other ranks is given up, once the new ones are durable."""
    wide = coordinated(topology=builders.topology(slots_per_rank=4))
    talk = pair(wide)
    talk.propose((3, 2, 1, 0, 0, 1, 2, 3))
    talk.staged(1)

    wanted = replace(wide, topology=builders.topology(slots_per_rank=4, masked_ranks=(1,)))
    lines = talk.order(orders.Update(wanted, talk.group.deployment.etag))
    assert lines == [
        "store spec of a new generation",
        "abort v1",
        "record FAILED_ROLLOUT v1",
        "1 < abort v1",
        "2 < abort v1",
        "announce none",
        "1 < welcome no_plan_yet elected",
        "2 < welcome no_plan_yet",
        "answer 1: generation 2",
    ]
    assert talk.staged(2) == []


def test_update_that_is_refused_ends_no_staging() -> None:
    """Ranks that were not changed after all do not disturb a staging."""
    talk = pair(coordinated())
    talk.propose()
    talk.staged(1)
    talk.mishaps[fx.StoreSpec] = [Mishap.REFUSED]

    wanted = coordinated(topology=builders.topology(slots_per_rank=3))
    lines = talk.order(orders.Update(wanted, talk.group.deployment.etag))
    assert lines == ["store spec of a new generation", "answer 1: CONFLICT"]
    assert talk.staged(2)[0] == "commit v1"


@pytest.mark.parametrize("mishap", list(Mishap))
def test_update_of_the_ranks_when_the_abort_goes_wrong(mishap: Mishap) -> None:
    """The order is answered with the new generation, and the old plan ends in its own time."""
    talk = pair(coordinated())
    talk.propose()
    talk.mishaps[fx.AbortPlan] = [mishap]

    wanted = coordinated(topology=builders.topology(slots_per_rank=3))
    lines = talk.order(orders.Update(wanted, talk.group.deployment.etag))
    assert lines[-1] == "answer 1: generation 2"
    talk.wait(1.0)
    assert talk.plan(1).state is PlanState.ABORTED
    assert talk.group.staging_version == 0


def test_switch_to_shadow_mode_ends_the_watch() -> None:
    """From then on nothing is published, also not to take back what does badly."""
    talk = pair()
    talk.roll_out((0, 2, 1, 3))
    wanted = replace(talk.group.deployment.spec, rollout_mode=RolloutMode.SHADOW)
    talk.order(orders.Update(wanted, talk.group.deployment.etag))

    assert talk.load((9, 0, 9, 0))[-1].startswith("solve")


@pytest.mark.parametrize("mode", [RolloutMode.SHADOW, RolloutMode.ADVISORY])
def test_another_mode_ends_a_staging(mode: RolloutMode) -> None:
    """What the members were to commit together is given up when they are to no longer."""
    talk = staging(by=(1,))
    wanted = replace(talk.group.deployment.spec, rollout_mode=mode)

    talk.order(orders.Update(wanted, talk.group.deployment.etag))
    assert latest(talk).reason is Reason.FAILED_ROLLOUT
    assert talk.group.staging_version == 0
    assert not any("commit" in line for line in talk.staged(2))


def test_aborted_order_holds_nothing_down() -> None:
    """An operator's plan that never came into force does not hold the planner's back."""
    talk = coordinated_pair()
    talk.order(publish(SWAPPED))
    assert talk.group.hold_down_s(talk.now_s) > 0.0

    talk.tell(builders.nack(1, stream=1))
    assert talk.group.hold_down_s(talk.now_s) == 0.0
