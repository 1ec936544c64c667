"""What must be put right is, whatever it costs, and the plan says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from expertplane_planner import (
    Basis,
    EngineRules,
    ExpertLoad,
    Incumbent,
    InvalidInputError,
    InvalidPlacementError,
    Mode,
    MoveBudget,
    Necessity,
    Placement,
    Plan,
    Topology,
    solve,
)


TOPOLOGY = Topology(num_nodes=2, num_ranks=4, num_slots=12)
SAMPLES = torch.tensor([[[90, 40, 70, 20, 60, 10, 30, 50]], [[80, 50, 60, 30, 70, 20, 20, 60]]])
NO_MOVES = MoveBudget(slots_per_layer=0)


def re_plan(
    in_force: list[int], topology: Topology = TOPOLOGY, *, before: Topology = TOPOLOGY, **more: Any
) -> Plan:
    """Returns the plan that follows a placement of one layer."""
    placement = Placement(torch.tensor([in_force]), 8, before)
    incumbent = Incumbent(placement=placement, budget=more.pop("budget", NO_MOVES))
    return solve(ExpertLoad(SAMPLES), topology, incumbent=incumbent, **more)


def necessity(plan: Plan) -> Necessity | None:
    """Returns why the placement before the plan could not stay."""
    assert plan.benefit is not None
    assert plan.benefit.is_worthwhile or plan.benefit.necessity is None
    return plan.benefit.necessity


EVERYWHERE = [0, 1, 2, 3, 4, 5, 6, 7, 0, 2, 4, 6]


def test_what_can_stay_is_not_necessary() -> None:
    """Without a reason there is none, and no move is made without a budget."""
    plan = re_plan(EVERYWHERE, mode=Mode.GLOBAL)

    assert necessity(plan) is None
    assert plan.moved_slots == (0,)


def test_a_start_map_of_an_engine_is_replaced_in_hierarchical_mode() -> None:
    """Slot p with expert p mod 8 splits groups: a plan from scratch is measured against it."""
    in_force = [slot % 8 for slot in range(12)]
    plan = re_plan(in_force, mode=Mode.HIERARCHICAL, num_expert_groups=4)

    assert necessity(plan) is Necessity.MODE
    assert plan.benefit is not None
    placement = Placement(torch.tensor([in_force]), 8, TOPOLOGY)
    again = solve(
        ExpertLoad(SAMPLES),
        TOPOLOGY,
        mode=Mode.GLOBAL,
        incumbent=Incumbent(placement=placement, budget=NO_MOVES),
    )
    assert again.benefit is not None
    assert plan.benefit.maximum_before == pytest.approx(again.benefit.maximum_before)
    assert plan.benefit.maximum_after != plan.benefit.maximum_before


def test_lost_experts_come_back() -> None:
    """Rank 1 held the only replicas of 3 and 5: they get slots elsewhere, and no other moves."""
    lost = replace(TOPOLOGY, masked_ranks=(1,))
    plan = re_plan([0, 1, 2, 3, 5, 0, 4, 6, 7, 0, 1, 2], lost, mode=Mode.GLOBAL)

    assert necessity(plan) is Necessity.LOST_EXPERTS
    assert plan.moved_slots == (2,)


def test_a_lost_rank_of_spare_replicas_forces_nothing() -> None:
    """All that rank 3 held is elsewhere too: the gain is told against what is left."""
    lost = replace(TOPOLOGY, masked_ranks=(3,))
    plan = re_plan([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3], lost, mode=Mode.GLOBAL)

    assert necessity(plan) is None
    assert plan.moved_slots == (0,)
    assert plan.benefit is not None
    assert plan.benefit.gain == pytest.approx(0.0)


def test_a_rank_that_is_back_is_filled_whatever_the_budget() -> None:
    """Its three slots are taken, the others stay, and that is measured against three ranks."""
    lost = replace(TOPOLOGY, masked_ranks=(1,))
    in_force = [0, 1, 2, -1, -1, -1, 3, 4, 5, 6, 7, 0]
    plan = re_plan(in_force, before=lost, mode=Mode.GLOBAL)

    assert necessity(plan) is None
    assert plan.moved_slots == (3,)
    assert plan.benefit is not None
    assert plan.benefit.gain > 0.1
    kept = [slot for slot in range(12) if slot // 3 != 1]
    assert plan.placement.phy2log[0, kept].tolist() == [in_force[slot] for slot in kept]


def test_what_the_engine_refuses_goes() -> None:
    """Two replicas of expert 0 on rank 0 are one too many for an engine that forbids them."""
    plan = re_plan(
        [0, 0, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3],
        mode=Mode.GLOBAL,
        rules=EngineRules(forbid_duplicates=True),
    )

    assert necessity(plan) is Necessity.ENGINE_RULES
    assert plan.moved_slots == (1,)


@pytest.mark.parametrize("is_held_out", [False, True])
def test_capacities_count_alike_before_and_after(is_held_out: bool) -> None:
    """Where nothing changes but that a slow rank is lost, both maxima are in the same tokens."""
    slow = replace(TOPOLOGY, rank_capacities=(0.5, 0.5, 0.5, 0.25))
    lost = replace(slow, masked_ranks=(3,))
    placement = Placement(torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]]), 8, slow)
    incumbent = Incumbent(
        placement=placement,
        budget=NO_MOVES,
        held_out=ExpertLoad(SAMPLES) if is_held_out else None,
    )

    plan = solve(ExpertLoad(SAMPLES), lost, mode=Mode.GLOBAL, incumbent=incumbent)

    assert plan.benefit is not None
    assert plan.benefit.basis is (Basis.HELD_OUT if is_held_out else Basis.PREDICTED)
    assert plan.benefit.gain == pytest.approx(0.0)
    mean = float(SAMPLES.sum() / 2 / (3 * 0.5))
    assert mean < plan.benefit.maximum_after < 2 * mean


def test_slow_ranks_and_spill_do_not_go_together() -> None:
    """The spill does not weigh ranks, so unequal ones are refused in soft-hierarchical mode."""
    slow = replace(TOPOLOGY, rank_capacities=(1.0, 1.0, 0.5, 0.5))

    with pytest.raises(InvalidInputError, match="equal capacities .* in soft-hierarchical mode"):
        solve(ExpertLoad(SAMPLES), slow, mode=Mode.SOFT_HIERARCHICAL, num_expert_groups=2, spill=1)


def test_an_incumbent_of_another_machine_is_refused_by_name() -> None:
    """The machine of the plan is what is expected."""
    other = Topology(num_nodes=1, num_ranks=2, num_slots=12)

    with pytest.raises(InvalidPlacementError, match="Expected incumbent to have .* 4 ranks"):
        re_plan(EVERYWHERE, before=other, mode=Mode.GLOBAL)


@pytest.mark.parametrize(
    ("name", "value"), [("placement", 3), ("budget", 4), ("held_out", SAMPLES), ("terms", {})]
)
def test_parts_of_another_type_are_refused_by_name(name: str, value: Any) -> None:
    """An incumbent is checked where it is born."""
    placement = Placement(torch.tensor([EVERYWHERE]), 8, TOPOLOGY)

    with pytest.raises(InvalidInputError) as caught:
        Incumbent(**{"placement": placement, name: value})

    assert caught.value.field == f"incumbent.{name}"
