"""After a switch: a plan that does worse than its predecessor on the same load is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.plan import Necessity, PlanState, Reason

from .. import builders
from .stored import StoredConversation, coordinated, publish, rollout


if TYPE_CHECKING:
    from expertplane_server.core.spec import DeploymentSpec


PLAN = (0, 2, 1, 3)
GOOD = (9.0, 9.0, 0.0, 0.0)
"""Twice as much waits for the start placement as for `PLAN`."""
BAD = (9.0, 0.0, 9.0, 0.0)
"""The other way round."""
EVEN = (9.0, 0.0, 0.0, 0.0)
"""As bad for both."""


def talk_of_two(wanted: DeploymentSpec | None = None) -> StoredConversation:
    """Return a conversation in which all serve with `PLAN`, version 1, above the start."""
    talk = StoredConversation(wanted).join()
    talk.roll_out(PLAN)
    return talk


def test_regression() -> None:
    """What does worse than the tolerance is reported and taken back; automatics rest."""
    talk = talk_of_two()

    assert talk.load(BAD)[2:] == [
        "regressed v1 by 1.00",
        "store on v1",
        "record ROLLED_BACK_REGRESSION v2",
        "announce v2",
        "1 < commit v2",
        "2 < commit v2",
        "learn 1 samples",
    ]
    assert talk.plan(2).phy2log.tolist() == [[0, 1, 2, 3]]
    assert talk.plan(2).draft.solution.policy == "start"
    latest = talk.group.journal.latest
    assert latest is not None
    assert latest.gain == pytest.approx(0.5)
    assert latest.message == (
        "Version 1 waits 100.00% longer for its most loaded ranks than its predecessor would on "
        "the same load, beyond the tolerance of 2.00%."
    )
    talk.finish()
    assert talk.group.hold_down_s(talk.now_s) == 600.0
    assert talk.load(GOOD)[-2:] == ["record SKIPPED_HOLD_DOWN", "learn 1 samples"]


def test_regression_to_an_earlier_plan() -> None:
    """What comes back is the content of the plan before, with its policy; it is not watched."""
    talk = talk_of_two(builders.spec(rollout=rollout(hold_down_s=0.0)))
    talk.roll_out((0, 1, 3, 2))

    assert "record ROLLED_BACK_REGRESSION v3" in talk.load(GOOD)
    assert talk.plan(3).digest == talk.plan(1).digest
    assert talk.plan(3).draft.solution.policy == "deepseek"
    talk.finish()
    assert talk.load(BAD)[-1].startswith("solve")


def test_regression_coordinated() -> None:
    """What comes back is staged and committed like any other plan."""
    talk = talk_of_two(coordinated())

    assert talk.load(BAD)[2:] == [
        "regressed v1 by 1.00",
        "store on v1 staging",
        "record ROLLED_BACK_REGRESSION v2",
        "1 < stage v2 within 600 s",
        "2 < stage v2 within 600 s",
        "learn 1 samples",
    ]
    talk.finish()
    assert talk.plan(2).state is PlanState.APPLIED


@pytest.mark.parametrize(("tolerance", "is_kept"), [(1.0, True), (0.99, False)])
def test_tolerance(tolerance: float, is_kept: bool) -> None:
    """A loss up to the tolerance is put up with."""
    talk = talk_of_two(builders.spec(rollout=rollout(regression_tolerance=tolerance)))

    assert talk.load(BAD)[-1].startswith("solve") == is_kept


def test_not_before_all_have_applied() -> None:
    """Windows count from the moment that every member serves with the plan."""
    talk = StoredConversation().join()
    talk.propose(PLAN)
    talk.applied(1)

    for _ in range(5):
        assert talk.load(BAD)[-2:] == ["record SKIPPED_ROLLOUT_IN_FLIGHT", "learn 1 samples"]
    talk.applied(2)
    assert "regressed v1 by 1.00" in talk.load(BAD)


def test_shift_that_hurts_both() -> None:
    """A load that neither placement was made for is no regression."""
    talk = talk_of_two()

    assert talk.load(EVEN)[-1].startswith("solve")


def test_windows_are_judged_together() -> None:
    """A good window outweighs a bad one of the same size: the loss is over all so far."""
    talk = talk_of_two()
    talk.load(GOOD)
    talk.solved(gain=0.0)

    assert not any("regressed" in line for line in talk.load(BAD))
    talk.solved(gain=0.0)
    assert "regressed v1 by 0.25" in talk.load(BAD)


def test_three_windows() -> None:
    """After three windows without a regression the plan is not watched any more."""
    talk = talk_of_two()
    for _ in range(3):
        talk.load(EVEN)
        talk.solved(gain=0.0)

    assert talk.load(BAD)[-1].startswith("solve")


def test_third_window_counts() -> None:
    """The third window is still one of them."""
    talk = talk_of_two()
    for _ in range(2):
        talk.load(EVEN)
        talk.solved(gain=0.0)

    assert any("regressed" in line for line in talk.load(BAD))


def test_operators_plan_is_not_watched() -> None:
    """An operator's word stands."""
    talk = StoredConversation(builders.spec(rollout=rollout(hold_down_s=0.0))).join()
    talk.order(publish(PLAN))
    talk.finish()

    assert talk.load(BAD)[-1].startswith("solve")


def test_necessity_is_not_watched() -> None:
    """What replaces a placement that could not stay has no predecessor to go back to."""
    talk = StoredConversation().join()
    talk.roll_out(PLAN, necessity=Necessity.ENGINE_RULES)

    assert talk.load(BAD)[-1].startswith("solve")


def test_operator_ends_the_watch() -> None:
    """Once an operator has published, the plan before is judged no more."""
    talk = talk_of_two(builders.spec(rollout=rollout(hold_down_s=0.0)))
    talk.order(publish(PLAN))
    talk.finish()

    assert talk.load(BAD)[-1].startswith("solve")


def test_paused() -> None:
    """In a pause a regression is told, once, and taken back when the pause is over."""
    talk = talk_of_two()
    talk.order(orders.Pause("night"))

    skipped = ["record SKIPPED_PAUSED", "learn 1 samples"]
    assert talk.load(BAD)[2:] == ["regressed v1 by 1.00", *skipped]
    assert talk.load(BAD)[2:] == skipped
    latest = talk.group.journal.latest
    assert latest is not None
    assert "paused the deployment: night. Version 1 waits 100.00% longer" in latest.message
    talk.order(orders.Resume())
    assert "record ROLLED_BACK_REGRESSION v2" in talk.load(BAD)


def test_neither_cooldown_nor_few_samples_protect_a_regression() -> None:
    """A plan that does badly is taken back as soon as it is known to."""
    talk = talk_of_two(builders.spec(cooldown_s=3600.0))

    assert "record ROLLED_BACK_REGRESSION v2" in talk.load(BAD)


def test_members_missing() -> None:
    """A regression that cannot be staged by all is told, and taken back when they are there."""
    talk = talk_of_two(coordinated(deadline_s=1.0, min_coverage=0.5))
    talk.tell(ev.StreamEnded(stream=2, is_goodbye=False))
    talk.load(BAD)
    lines = talk.wait(1.0)
    assert lines[1:3] == ["regressed v1 by 1.00", "record SKIPPED_MEMBERS_MISSING"]

    talk.tell(builders.hello(3, "b", (1,), applied=talk.ref(1)))
    assert "record ROLLED_BACK_REGRESSION v2" in talk.load(BAD)


def test_hold_down_of_an_earlier_roll_back_does_not_bind() -> None:
    """The rest of automatics keeps no plan in force that does badly."""
    talk = talk_of_two()
    talk.group._state.held_until_s = 1e9

    assert "record ROLLED_BACK_REGRESSION v2" in talk.load(BAD)


def test_masked_rank_ends_the_watch() -> None:
    """On other ranks there is no predecessor to compare with."""
    talk = StoredConversation(builders.spec(topology=builders.topology(slots_per_rank=4))).join()
    talk.roll_out((0, 2, 0, 2, 1, 3, 1, 3))
    masked = builders.spec(topology=builders.topology(slots_per_rank=4, masked_ranks=(1,)))
    # Ranks that are back have the same shape as those before the mask.
    for wanted in (masked, talk.group.deployment.spec):
        talk.order(orders.Update(wanted, talk.group.deployment.etag))

    assert talk.load(BAD)[-1].startswith("solve")


def test_reasons_of_regressions_hold_down() -> None:
    """A roll-back is a publication of its own reason, so that a restart knows of the rest."""
    talk = talk_of_two()
    talk.load(BAD)

    assert talk.plan(2).draft.reason is Reason.ROLLED_BACK_REGRESSION
    regressed = [effect for effect in talk.effects if isinstance(effect, fx.Regressed)]
    assert regressed == [fx.Regressed(1, 1.0)]
