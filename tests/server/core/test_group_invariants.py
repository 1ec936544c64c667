"""Any order of events, with a store that fails now and then: what must hold after each of them."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from expertplane_server.core import effects as fx
from expertplane_server.core.plan import PlanState, Reason

from .machine import GroupMachine


NUM_SEEDS = 50
NUM_STEPS = 300
ACTIONS = {
    GroupMachine.hello: 6,
    GroupMachine.both_come: 6,
    GroupMachine.all_report: 12,
    GroupMachine.report: 6,
    GroupMachine.some_stage: 8,
    GroupMachine.all_apply: 8,
    GroupMachine.answer: 10,
    GroupMachine.pass_time: 8,
    GroupMachine.nack: 3,
    GroupMachine.ack: 2,
    GroupMachine.ask_for_time: 2,
    GroupMachine.lose: 2,
    GroupMachine.operate: 5,
    GroupMachine.stray_answer: 1,
    GroupMachine.crash: 1,
}
RARE = {
    Reason.SHADOW,
    Reason.SKIPPED_FEW_SAMPLES,
    Reason.SKIPPED_MIGRATION_TOO_DEAR,
    Reason.SKIPPED_PLAN_REFUSED,
    Reason.SKIPPED_BUFFERS_TOO_SMALL,
    Reason.ROLLED_BACK_REGRESSION,
}


@cache
def walk(seed: int) -> Counter[str]:
    """How often each thing happened in the random walk of `seed`; the invariants hold all along.

    The same in every process: tests that run side by side each walk where they must.
    """
    machine = GroupMachine(seed)
    for action in machine.rng.choices(list(ACTIONS), list(ACTIONS.values()), k=NUM_STEPS):
        action(machine)
        machine.check()
    machine.come_to_rest()

    group = machine.group
    assert set(machine.answered) == set(range(1, machine.asked + 1))
    assert group.staging_version == 0
    assert group.committed is None or group.committed.state is PlanState.APPLIED
    return machine.reached


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_any_order_of_events(seed: int) -> None:
    """Whatever happens in whatever order, the invariants hold after every event.

    Once nothing goes wrong any more, every order is answered, no plan is left under way, and every
    member serves with the committed one.
    """
    walk(seed)


def test_the_interesting_happens() -> None:
    """The random walks do get to plans, refusals, failures of the store, retries and so on."""
    reached = sum((walk(seed) for seed in range(NUM_SEEDS)), start=Counter())

    wanted = {
        "commit",
        "applied",
        "refused for good",
        "Stage again",
        "Commit again",
        "raised",
        "order taken",
        "order refused",
        *(
            f"{effect} {mishap}"
            for effect in ("StorePlan", "CommitPlan", "AbortPlan", "StorePause", "StoreSpec")
            for mishap in ("refused", "lost", "done")
        ),
        *fx.SampleFate,
        *Reason,
    }
    # These take more than two layers, two members and a few hundred steps.
    wanted -= {fx.SampleFate.DROPPED_OVERFLOW, *RARE}
    assert {what for what in wanted if not reached[what]} == set()
