"""What the planner does when the store does not say what became of a write, or after a crash."""

from __future__ import annotations

import pytest

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.plan import PlanState, Reason

from .. import builders
from .stored import (
    Mishap,
    StoredConversation,
    coordinated,
    coordinated_pair,
    pair,
    publish,
)


UNKNOWN = [Mishap.LOST, Mishap.DONE]


# A plan that may have been stored.


def test_store_that_refuses_a_plan() -> None:
    """A refusal is a decision; the next window tries again, from the head that is read back."""
    talk = pair()
    talk.mishaps[fx.StorePlan] = [Mishap.REFUSED]

    assert talk.propose() == ["store on v0", "read back", "record FAILED_STORE"]
    assert talk.propose()[:2] == ["store on v0", "record PUBLISHED v1"]


def test_head_that_somebody_else_has_moved() -> None:
    """When the store knows a higher head, it is read back, and the next plan goes above it."""
    talk = pair()
    talk.store.raise_counters(builders.NAME, version=7, epoch=0)
    talk.mishaps[fx.StorePlan] = [Mishap.REFUSED]
    talk.propose()

    assert talk.group.deployment.head == 7
    assert talk.propose()[1] == "record PUBLISHED v8"


def test_plan_whose_storing_was_lost() -> None:
    """A plan that is found not to be stored was seen by nobody, and its window is over."""
    talk = coordinated_pair()
    talk.mishaps[fx.StorePlan] = [Mishap.LOST]

    assert talk.propose() == ["store on v0 staging", "read back", "record FAILED_STORE"]
    assert talk.group.deployment.head == 0


@pytest.mark.parametrize("is_coordinated", [False, True])
def test_plan_that_was_stored_after_all(is_coordinated: bool) -> None:
    """A plan that is found in the store goes on its way as if nothing had happened."""
    talk = coordinated_pair() if is_coordinated else pair()
    talk.mishaps[fx.StorePlan] = [Mishap.DONE]

    lines = talk.propose()
    if is_coordinated:
        assert lines[1:] == [
            "read back",
            "record PUBLISHED v1",
            "1 < stage v1 within 60 s",
            "2 < stage v1 within 60 s",
        ]
    else:
        assert lines[1:4] == ["read back", "record PUBLISHED v1", "announce v1"]
    latest = talk.group.journal.latest
    assert latest is not None
    assert talk.store.decision(builders.NAME, latest.sequence) == latest


@pytest.mark.parametrize("mishap", UNKNOWN)
def test_order_whose_outcome_is_unknown(mishap: Mishap) -> None:
    """An operator is answered when it is known, once; other orders are put off until then."""
    talk = pair()
    talk.mishaps[fx.StorePlan] = [mishap]
    talk.mishaps[fx.ReadBack] = [Mishap.LOST] * 3

    assert talk.order(publish((2, 1, 0, 3))) == ["store on v0", "read back"]
    for action in (orders.Pause(), publish((0, 1, 2, 3)), orders.Rebalance()):
        assert talk.order(action)[-1].endswith("STORE_IN_DOUBT")
    assert talk.load()[-2:] == ["record FAILED_STORE", "learn 1 samples"]
    assert talk.wait(0.25)[0] == "read back"
    assert talk.wait(0.25)[0] == "read back"
    answer = "answer 1: v1" if mishap is Mishap.DONE else "answer 1: UNAVAILABLE"
    assert answer in talk.wait(0.25)
    assert talk.order(publish((0, 1, 2, 3)))[0].startswith("store")


@pytest.mark.parametrize("mishap", UNKNOWN)
def test_member_that_goes_while_a_plan_is_in_doubt(mishap: Mishap) -> None:
    """A plan that turns out to be stored when a member is gone is given up and not staged."""
    talk = coordinated_pair()
    talk.mishaps[fx.StorePlan] = [mishap]
    talk.mishaps[fx.ReadBack] = [Mishap.LOST]
    talk.propose()
    talk.tell(ev.StreamEnded(stream=2, is_goodbye=False))

    lines = talk.wait(0.25)
    if mishap is Mishap.DONE:
        assert lines[:4] == [
            "read back",
            "record PUBLISHED v1",
            "abort v1",
            "record FAILED_ROLLOUT v1",
        ]
        assert talk.plan(1).state is PlanState.ABORTED
    assert not any(line.startswith("1 < ") and "v1" in line for line in lines)


def test_who_refuses_the_content_comes_while_it_is_in_doubt() -> None:
    """Who has refused a placement is not asked to stage it, however late it is found."""
    talk = coordinated_pair()
    talk.propose()
    talk.tell(builders.nack(1, stream=2), ev.StreamEnded(stream=2, is_goodbye=False))
    talk.tell(builders.hello(3, "c", (1,)))
    talk.mishaps[fx.StorePlan] = [Mishap.DONE]
    talk.mishaps[fx.ReadBack] = [Mishap.LOST]
    talk.propose()
    talk.tell(ev.StreamEnded(stream=3, is_goodbye=False), builders.hello(4, "b", (1,)))

    lines = talk.wait(0.25)
    assert "abort v2" in lines
    assert not any("stage" in line for line in lines)


@pytest.mark.parametrize("is_coordinated", [False, True])
def test_counters_that_jump_while_a_plan_is_in_doubt(is_coordinated: bool) -> None:
    """Whatever a participant has seen, the planner knows which plan was its own."""
    wanted = coordinated() if is_coordinated else builders.spec()
    talk = StoredConversation(wanted).join()
    talk.mishaps[fx.StorePlan] = [Mishap.DONE]
    talk.mishaps[fx.ReadBack] = [Mishap.LOST]
    talk.order(publish((2, 1, 0, 3)))
    talk.tell(builders.hello(3, "b", (1,), highest_version=9, highest_epoch=9))

    lines = talk.wait(0.25)
    assert lines[:3] == ["read back", "record PUBLISHED_BY_OPERATOR v1", "answer 1: v1"]
    assert talk.group.deployment.head == 9
    assert (talk.group.staging_version == 1) == is_coordinated


def test_plan_of_somebody_else() -> None:
    """A plan that another planner has committed in the same store is taken over when read."""
    talk = pair()
    other = builders.published(talk.store, builders.draft((3, 2, 1, 0)))
    talk.mishaps[fx.StorePlan] = [Mishap.REFUSED]

    lines = talk.propose()
    assert lines[:4] == ["store on v0", "read back", "record FAILED_STORE", "announce v1"]
    assert talk.group.committed == other


# A commit.


@pytest.mark.parametrize("mishap", list(Mishap))
def test_commit_whose_outcome_is_unknown(mishap: Mishap) -> None:
    """Nobody may switch until the store says that the plan is committed; it is asked again."""
    talk = coordinated_pair()
    talk.propose()
    talk.staged(1)
    talk.mishaps[fx.CommitPlan] = [mishap]
    talk.mishaps[fx.ReadBack] = [Mishap.LOST]

    assert talk.staged(2) == ["commit v1", "read back"]
    lines = talk.wait(0.25)
    commits = ["announce v1", "1 < commit v1 as staged", "2 < commit v1 as staged"]
    if mishap is Mishap.DONE:
        assert lines[:4] == ["read back", *commits]
    else:
        assert lines == ["read back"]
        assert talk.wait(0.25)[:4] == ["commit v1", *commits]
    assert talk.plan(1).state is PlanState.COMMITTED
    assert talk.group.staging_version == 0


@pytest.mark.parametrize("mishap", UNKNOWN)
def test_member_that_goes_while_the_commit_is_in_doubt(mishap: Mishap) -> None:
    """A commit that has happened stands; one that has not is given up, for a member is gone."""
    talk = coordinated_pair()
    talk.propose()
    talk.staged(1)
    talk.mishaps[fx.CommitPlan] = [mishap]
    talk.mishaps[fx.ReadBack] = [Mishap.LOST]
    talk.staged(2)
    assert talk.tell(ev.StreamEnded(stream=2, is_goodbye=False)) == []

    lines = talk.wait(0.25)
    if mishap is Mishap.DONE:
        assert "1 < commit v1 as staged" in lines
        assert talk.tell(builders.hello(3, "b", (1,))) == ["3 < welcome take_this_plan v1"]
    else:
        assert talk.staged(1) == [], "it is over, whoever says again that it has staged it"
        assert talk.wait(0.25)[:3] == ["abort v1", "record FAILED_ROLLOUT v1", "1 < abort v1"]


# The end of a staging.


@pytest.mark.parametrize("mishap", list(Mishap))
def test_abort_whose_outcome_is_unknown(mishap: Mishap) -> None:
    """A plan that is to end ends, and its members are told when that is durable."""
    talk = coordinated_pair()
    talk.propose()
    talk.staged(1)
    talk.mishaps[fx.AbortPlan] = [mishap]
    talk.mishaps[fx.ReadBack] = [Mishap.LOST]
    assert talk.tell(builders.nack(1, stream=2)) == ["park b", "abort v1", "read back"]
    assert talk.staged(2) == [], "a plan that is given up is not committed"

    lines = talk.wait(0.25) + talk.wait(0.25)
    again = ["abort v1"] * (mishap is not Mishap.DONE)
    assert lines[: 4 + len(again)] == [
        "read back",
        *again,
        "record FAILED_ROLLOUT v1",
        "1 < abort v1",
        "2 < abort v1",
    ]
    reasons = [each.reason for each in talk.store.recover(builders.NAME, num_plans=1).decisions]
    assert reasons == [Reason.PUBLISHED, Reason.FAILED_ROLLOUT]


# The deployment.


@pytest.mark.parametrize("mishap", UNKNOWN)
def test_pause_whose_outcome_is_unknown(mishap: Mishap) -> None:
    """The operator is answered with what is read back."""
    talk = coordinated_pair()
    talk.mishaps[fx.StorePause] = [mishap]
    talk.mishaps[fx.ReadBack] = [Mishap.LOST]

    assert talk.order(orders.Pause("night")) == ["store pause", "read back"]
    answer = "generation 1 paused" if mishap is Mishap.DONE else "UNAVAILABLE"
    assert talk.wait(0.25)[:2] == ["read back", f"answer 1: {answer}"]
    assert talk.group.deployment.is_paused == (mishap is Mishap.DONE)


@pytest.mark.parametrize("mishap", UNKNOWN)
def test_spec_whose_outcome_is_unknown(mishap: Mishap) -> None:
    """A new generation that is read back begins like one that was confirmed."""
    talk = pair()
    talk.roll_out((0, 2, 1, 3))
    talk.mishaps[fx.StoreSpec] = [mishap]
    wanted = builders.spec(topology=builders.topology(slots_per_rank=3))

    lines = talk.order(orders.Update(wanted, talk.group.deployment.etag))
    if mishap is Mishap.DONE:
        assert lines == [
            "store spec of a new generation",
            "read back",
            "announce none",
            "1 < welcome no_plan_yet elected",
            "2 < welcome no_plan_yet",
            "answer 1: generation 2",
        ]
        assert talk.group.in_force.shape == (1, 6)
    else:
        assert lines == ["store spec of a new generation", "read back", "answer 1: UNAVAILABLE"]
        assert talk.group.committed is not None
    assert talk.group.deployment == talk.store.deployments()[0]
