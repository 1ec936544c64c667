"""Operators ask for a plan now, and what comes between a solve and its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.spec import DeploymentSpec, RolloutMode

from .. import builders
from .stored import latest, pair, publish, rollout


SWAPPED = (2, 1, 0, 3)
SHADOW = builders.spec(rollout_mode=RolloutMode.SHADOW)


def changed(before: DeploymentSpec, **changes: Any) -> DeploymentSpec:
    """Return a spec with another trigger."""
    return replace(before, trigger=replace(before.trigger, **changes))


# Rebalance.


def test_rebalance_the_window_so_far() -> None:
    """Rebalance plans for the samples since the last decision, and is answered after the solve."""
    talk = pair(builders.spec(window_samples=4))
    talk.load((4, 3, 2, 1), (1, 2, 3, 4))

    assert talk.order(orders.Rebalance(), request=builders.request("r9")) == [
        "solve 1 of 2 samples"
    ]
    lines = talk.solved()
    assert lines[:3] == ["store on v0", "record PUBLISHED v1", "answer 1: PUBLISHED"]
    answered = talk.store.answered("r9")
    assert answered is not None


def test_rebalance_the_last_window() -> None:
    """With no sample since the last decision its window is planned for, and not learned, again."""
    talk = pair()
    talk.load((1, 1, 1, 5))
    talk.solved(gain=0.0)

    talk.order(orders.Rebalance())
    solves = [effect for effect in talk.effects if isinstance(effect, fx.Solve)]
    assert [solve.is_new for solve in solves] == [True, False]
    assert np.array_equal(solves[1].samples, solves[0].samples)


def test_rebalance_without_load() -> None:
    """Without any sample there is nothing to plan for."""
    talk = pair()

    assert talk.order(orders.Rebalance(), request=builders.request("r9")) == [
        "record SKIPPED_FEW_SAMPLES",
        "answer 1: SKIPPED_FEW_SAMPLES",
    ]
    answered = talk.store.answered("r9")
    assert answered is not None
    assert answered.answer == latest(talk).sequence


def test_rebalance_during_a_solve() -> None:
    """While a plan is being solved another is not begun."""
    talk = pair()
    talk.load()

    assert talk.order(orders.Rebalance())[-1] == "answer 1: SKIPPED_ROLLOUT_IN_FLIGHT"


def test_rebalance_that_finds_nothing() -> None:
    """The answer is the decision, also when nothing is published or the solver fails."""
    talk = pair()
    talk.load()
    talk.solved(gain=0.0)
    talk.order(orders.Rebalance())
    assert talk.solved(gain=0.0)[-1] == "answer 1: SKIPPED_GAIN_TOO_SMALL"
    talk.order(orders.Rebalance())

    lines = talk.tell(ev.SolveFailed(solve=3, message="lost"))
    assert lines == ["record FAILED_SOLVE", "answer 2: FAILED_SOLVE"]


def test_rebalance_whatever_holds_automatics_back() -> None:
    """Neither pause nor cool-down nor hold-down keeps an operator from planning now."""
    talk = pair(builders.spec(cooldown_s=600.0))
    talk.order(publish(SWAPPED))
    talk.finish()
    talk.order(orders.Pause("night"))
    assert talk.load()[-2:] == ["record SKIPPED_COOLDOWN", "learn 1 samples"]

    assert talk.order(orders.Rebalance()) == ["solve 1 of 1 samples"]
    assert talk.solved()[:3] == ["store on v1", "record PUBLISHED v2", "answer 3: PUBLISHED"]


def test_rebalance_in_shadow_mode() -> None:
    """In shadow mode the answer is what would have been gained."""
    talk = pair(SHADOW)
    talk.load()
    talk.solved(gain=0.0)
    talk.order(orders.Rebalance())

    assert talk.solved() == ["record SHADOW", "answer 1: SHADOW"]


def test_rebalance_while_the_spec_changes() -> None:
    """What is being solved for a spec that is over ends in a decision, and is dropped."""
    talk = pair()
    talk.load()
    talk.solved(gain=0.0)
    talk.order(orders.Rebalance())

    wanted = changed(talk.group.deployment.spec, min_gain=0.1)
    lines = talk.order(orders.Update(wanted, talk.group.deployment.etag))
    assert lines == [
        "store spec",
        "record FAILED_SOLVE",
        "answer 1: FAILED_SOLVE",
        "answer 2: generation 1",
    ]
    assert talk.solved() == []


# What an order does to a solve under way.


def test_solve_is_for_the_placement_that_was_in_force() -> None:
    """A candidate that was compared with a placement no longer in force is not published."""
    talk = pair(builders.spec(rollout=rollout(hold_down_s=0.0)))
    talk.load()
    talk.order(publish(SWAPPED))
    talk.finish()

    assert talk.solved() == ["record SKIPPED_ROLLOUT_IN_FLIGHT"]
    assert talk.load()[-1] == "solve 2 of 1 samples"


def test_hold_down_that_begins_during_a_solve() -> None:
    """What was being solved when an operator published the same as before waits for the rest."""
    talk = pair()
    talk.load()
    talk.order(publish((0, 1, 2, 3)))
    talk.finish()

    assert talk.solved() == ["record SKIPPED_HOLD_DOWN"]
