"""What operators ask for: carried out or refused, and answered once."""

from __future__ import annotations

import numpy as np
import pytest

from expertplane_server.core import orders
from expertplane_server.core.parameters import PlacementRules
from expertplane_server.core.spec import VLLM_ASCEND, DeploymentSpec, RolloutMode

from .. import builders
from .observed import observe
from .stored import StoredConversation, coordinated, latest, pair, publish, rollout


SWAPPED = (2, 1, 0, 3)
SHADOW = builders.spec(rollout_mode=RolloutMode.SHADOW)
MASKED = builders.spec(topology=builders.topology(slots_per_rank=4, masked_ranks=(1,)))


# Publish.


def test_publish() -> None:
    """An operator's placement becomes a version like any other, and the operator gets the plan."""
    talk = pair()

    assert talk.order(publish(SWAPPED, comment="trial"), request=builders.request("r9")) == [
        "store on v0",
        "record PUBLISHED_BY_OPERATOR v1",
        "answer 1: v1",
        "announce v1",
        "1 < commit v1",
        "2 < commit v1",
    ]
    plan = talk.plan(1)
    assert plan.phy2log.tolist() == [list(SWAPPED)]
    assert plan.draft.comment == "trial"
    assert (plan.draft.solution.policy, plan.draft.solution.moved_slots) == ("operator", 2)
    assert plan.draft.solution.evaluation is None
    assert latest(talk).message == "An operator's own placement: trial."
    answered = talk.store.answered("r9")
    assert answered is not None
    assert answered.answer == 1


def test_publish_is_scored_on_the_latest_window() -> None:
    """Where there was load, the operator's placement is measured on it."""
    talk = pair()
    talk.load((6, 0, 1, 1))
    talk.solved(gain=0.0)
    talk.order(publish((0, 2, 1, 3)))

    decision = latest(talk)
    assert decision.num_samples == 1
    assert (decision.balancedness_before, decision.balancedness_after) == (4 / 6, 4 / 7)
    assert decision.gain == pytest.approx(1 - 7 / 6)


def test_publish_coordinated() -> None:
    """An operator's placement is staged by all like any other; the answer does not wait."""
    talk = pair(coordinated())

    assert talk.order(publish(SWAPPED)) == [
        "store on v0 staging",
        "record PUBLISHED_BY_OPERATOR v1",
        "answer 1: v1",
        "1 < stage v1 within 600 s",
        "2 < stage v1 within 600 s",
    ]


@pytest.mark.parametrize(
    ("wanted", "layers", "reason"),
    [
        (None, ((0, 1, 2),), "INVALID_ARGUMENT"),
        (None, ((0, 1, 2, 3), (0, 1, 2, 3)), "INVALID_ARGUMENT"),
        (None, ((0, 1, 2, 4),), "INVALID_ARGUMENT"),
        (None, ((0, 1, 2, -1),), "INVALID_ARGUMENT"),
        (None, ((0, 1, 2, 2),), "INVALID_ARGUMENT"),
        (MASKED, ((0, 1, 2, 3, 0, -1, -1, -1),), "INVALID_ARGUMENT"),
        (builders.spec(engine=VLLM_ASCEND), ((1, 0, 2, 3),), "ENGINE_RULE"),
        (
            builders.spec(
                topology=builders.topology(slots_per_rank=3),
                rules=PlacementRules(max_replicas=2),
            ),
            ((0, 1, 2, 3, 0, 0),),
            "ENGINE_RULE",
        ),
        (
            builders.spec(
                topology=builders.topology(slots_per_rank=3),
                rules=PlacementRules(forbids_duplicates=True),
            ),
            ((0, 0, 1, 2, 3, 1),),
            "ENGINE_RULE",
        ),
    ],
)
def test_publish_of_what_is_no_placement(
    wanted: DeploymentSpec | None, layers: tuple[tuple[int, ...], ...], reason: str
) -> None:
    """What is no placement, or none that the engine takes, is refused and changes nothing."""
    talk = pair(wanted)
    before = observe(talk.group)

    assert talk.order(publish(*layers)) == [f"answer 1: {reason} phy2log"]
    assert observe(talk.group) == before


# Roll back.


def test_roll_back() -> None:
    """Earlier content comes back under a new version, with its policy; automatics rest."""
    talk = pair()
    talk.roll_out((0, 2, 1, 3))
    talk.roll_out((3, 1, 2, 0))

    assert talk.order(orders.RollBack(talk.plan(1)))[:3] == [
        "store on v2",
        "record ROLLED_BACK v3",
        "answer 1: v3",
    ]
    plan = talk.plan(3)
    assert (plan.digest, plan.draft.solution.policy) == (talk.plan(1).digest, "deepseek")
    assert plan.draft.comment == "Content of version 1."
    assert latest(talk).message == "An operator rolled back to the content of version 1."
    assert talk.group.hold_down_s(talk.now_s) == 600.0


def test_roll_back_to_the_start() -> None:
    """Version 0 is the start placement that the engine told."""
    talk = StoredConversation()
    talk.join(initial_phy2log=np.array([[3, 2, 1, 0]]))
    talk.roll_out((0, 2, 1, 3))

    assert talk.order(orders.RollBack(None))[2] == "answer 1: v2"
    assert talk.plan(2).phy2log.tolist() == [[3, 2, 1, 0]]
    assert talk.plan(2).draft.solution.policy == "start"


def test_roll_back_to_the_start_with_a_masked_rank() -> None:
    """What a masked rank held at the start is left out, and the rest of it comes back."""
    talk = StoredConversation(MASKED)
    talk.join(initial_phy2log=np.array([[3, 2, 1, 0, 0, 1, 2, 3]]))
    talk.roll_out((0, 2, 1, 3, -1, -1, -1, -1))

    assert talk.order(orders.RollBack(None))[2] == "answer 1: v2"
    assert talk.plan(2).phy2log.tolist() == [[3, 2, 1, 0, -1, -1, -1, -1]]


def test_roll_back_to_what_no_longer_fits() -> None:
    """Content for other ranks is refused: it is the state that forbids it, not the request."""
    talk = pair()
    talk.roll_out((0, 2, 1, 3))
    etag = talk.group.deployment.etag
    talk.order(orders.Update(builders.spec(topology=builders.topology(slots_per_rank=3)), etag))

    assert talk.order(orders.RollBack(talk.plan(1))) == ["answer 2: VERSION_UNFIT to_version"]


# Whether.


@pytest.mark.parametrize("action", [publish(SWAPPED), orders.RollBack(None)])
def test_shadow_mode_publishes_nothing(action: orders.Action) -> None:
    """In shadow mode operators publish nothing either."""
    talk = pair(SHADOW)

    assert talk.order(action) == ["answer 1: SHADOW_MODE"]


@pytest.mark.parametrize(
    "action",
    [publish(SWAPPED), orders.RollBack(None), orders.Rebalance(), orders.Pause()],
)
@pytest.mark.parametrize(("head", "is_taken"), [(0, False), (1, True), (2, False), (None, True)])
def test_expected_head(action: orders.Action, head: int | None, is_taken: bool) -> None:
    """Who has another head in mind is refused, whatever it asks for, and changes nothing."""
    talk = pair()
    talk.roll_out((0, 2, 1, 3))
    before = observe(talk.group)

    lines = talk.order(action, expected_head=head)
    assert (lines != ["answer 1: STALE_HEAD expected_head"]) == is_taken
    assert (observe(talk.group) != before) == is_taken


@pytest.mark.parametrize("is_staged", [False, True])
def test_coordinated_roll_out_is_not_pre_empted(is_staged: bool) -> None:
    """While a plan is staged, or not applied by all, no operator publishes another."""
    talk = pair(coordinated())
    talk.propose()
    if is_staged:
        talk.staged(1)
        talk.staged(2)

    assert talk.order(publish(SWAPPED)) == ["answer 1: ROLLOUT_IN_FLIGHT"]
    assert talk.order(orders.Rebalance())[-1] == "answer 2: SKIPPED_ROLLOUT_IN_FLIGHT"


@pytest.mark.parametrize("is_restarted", [False, True])
def test_plan_that_is_given_up_holds_nothing_down(is_restarted: bool) -> None:
    """What rests for the operator's plan in force goes on resting when the next is given up."""
    talk = StoredConversation(coordinated(rollout=rollout(hold_down_s=60.0))).join()
    talk.order(publish((2, 1, 0, 3)))
    talk.finish()
    talk.now_s = 10.0
    talk.order(publish((0, 1, 3, 2)))
    assert talk.group.hold_down_s(10.0) == 60.0
    if is_restarted:
        talk.restart()
        assert talk.group.hold_down_s(0.0) == 50.0
    else:
        talk.tell(builders.nack(2, stream=2))
        assert talk.group.hold_down_s(10.0) == 50.0
    assert talk.group.staging_version == 0


def test_advisory_plans_may_be_skipped() -> None:
    """In advisory mode an operator need not wait for members that have not applied the last."""
    talk = pair()
    talk.propose()
    talk.applied(1)

    assert talk.order(publish(SWAPPED))[2] == "answer 1: v2"


def test_coordinated_with_members_missing() -> None:
    """What cannot be staged by all is refused, naming why."""
    talk = StoredConversation(coordinated())
    talk.tell(builders.hello(1, "a", (0,)))

    assert talk.order(publish(SWAPPED)) == ["answer 1: MEMBERS_MISSING"]
    talk.tell(builders.hello(2, "b", (1,)))
    talk.order(publish(SWAPPED))
    talk.tell(builders.nack(1, stream=2))
    assert talk.order(publish(SWAPPED)) == ["answer 3: PLAN_REFUSED"]
