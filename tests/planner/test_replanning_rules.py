"""From a placement in force to a better one: rules of engines are kept, or refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from expertplane_planner import (
    EngineRules,
    InvalidInputError,
    Mode,
    MoveBudget,
    Placement,
    Topology,
    solve,
)
from expertplane_planner.model.masking import compact

from ..support import builders
from .policies.solving import every_row
from .policies.table import ROWS, Row
from .re_plans import Task, budgets, tasks


RULED = [row for row in ROWS if row.name in ("robust", "balanced")]


@pytest.mark.parametrize("row", RULED, ids=str)
def test_rules_are_kept_from_scratch_and_from_what_breaks_them(row: Row) -> None:
    """No rank gets an expert twice, and no expert more replicas than allowed, in two modes."""

    @settings(deadline=None, max_examples=60)
    @given(tasks(), st.booleans(), st.booleans(), st.data(), budgets)
    def check(
        task: Task, forbids: bool, is_free: bool, data: st.DataObject, budget: MoveBudget
    ) -> None:
        assume(task.mode is not Mode.SOFT_HIERARCHICAL)
        left = compact(task.topology)
        num_nodes = left.num_nodes if task.mode.is_by_node else 1
        num_experts = task.load.num_logical_experts // num_nodes
        num_slots = left.num_slots // num_nodes
        assume(left.slots_per_rank <= num_experts or not forbids)
        most = data.draw(st.none() | st.integers(-(-num_slots // num_experts), num_slots))
        # Where both bind, going slot by slot may end in a dead end.
        assume(not forbids or most is None or most >= left.num_ranks)
        rules = EngineRules(forbid_duplicates=forbids, max_replicas_per_expert=most)
        scratch = solve(
            task.load,
            task.topology,
            num_expert_groups=task.num_expert_groups,
            mode=task.mode,
            policy=row.make(),
            rules=rules,
        )
        rules.check(scratch.placement)
        again = task.solve(row, MoveBudget() if is_free else budget, rules=rules)
        rules.check(again.placement)

    check()


@pytest.mark.parametrize("row", RULED, ids=str)
def test_repair_in_a_dead_end_is_no_end(row: Row) -> None:
    """0 1 | - - | 2 2, two replicas each and none twice: slot by slot 2 is left for where it is.

    A plan from scratch then replaces what is in force.
    """
    rules = EngineRules(forbid_duplicates=True, max_replicas_per_expert=2)
    whole = Topology(num_nodes=1, num_ranks=3, num_slots=6)
    before = dataclasses.replace(whole, masked_ranks=(1,))
    old = Placement(torch.tensor([[0, 1, -1, -1, 2, 2]]), 3, before)
    plan = solve(builders.load((5, 5, 5)), whole, policy=row.make(), incumbent=old, rules=rules)

    rules.check(plan.placement)


@pytest.mark.parametrize("row", [row for row in ROWS if row not in RULED], ids=str)
def test_rules_that_a_policy_does_not_know_are_checked(row: Row) -> None:
    """One hot expert, two replicas allowed: the plan keeps to that, or there is none."""
    try:
        plan = solve(
            builders.load((1000, 1, 1, 1)),
            Topology(num_nodes=1, num_ranks=4, num_slots=8),
            policy=row.make(),
            rules=EngineRules(max_replicas_per_expert=2),
        )
    except InvalidInputError:
        return
    assert int(plan.placement.logcnt().max()) <= 2


def test_some_policy_does_not_keep_to_rules_and_is_refused() -> None:
    """DeepSeek's algorithm puts replicas of the hot expert on one rank, which is not passed on."""
    with pytest.raises(InvalidInputError, match="Expected policy 'deepseek' in global mode to"):
        solve(
            builders.load((1000, 1, 1, 1)),
            Topology(num_nodes=1, num_ranks=4, num_slots=8),
            policy="deepseek",
            rules=EngineRules(max_replicas_per_expert=2),
        )


@every_row
def test_rules_that_nothing_can_keep_are_refused(row: Row) -> None:
    """Four slots for three experts of one replica each; three slots a rank for two experts."""
    topology = Topology(num_nodes=1, num_ranks=2, num_slots=6)
    one_each = EngineRules(max_replicas_per_expert=1)
    with pytest.raises(InvalidInputError) as caught:
        solve(builders.load((1, 2, 3)), topology, policy=row.make(), rules=one_each)
    assert caught.value.field == "rules.max_replicas_per_expert"

    distinct = EngineRules(forbid_duplicates=True)
    old = Placement(torch.tensor([[0, 1, 0, 1, 0, 1]]), 2, topology)
    for incumbent in (None, old):
        with pytest.raises(InvalidInputError) as caught:
            solve(
                builders.load((1, 2)),
                topology,
                policy=row.make(),
                rules=distinct,
                incumbent=incumbent,
            )
        assert caught.value.field.startswith("rules")
