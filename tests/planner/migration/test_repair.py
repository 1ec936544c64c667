"""Repair gives every expert a slot again, and changes no more than it must."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import EngineRules, InvalidPlacementError, Placement, Topology
from expertplane_planner.migration.repair import repair


def _repaired(
    row: tuple[int, ...],
    mean: tuple[float, ...],
    *,
    num_ranks: int = 2,
    num_nodes: int = 1,
    rules: EngineRules | None = None,
    home: tuple[int, ...] | None = None,
    capacities: tuple[float, ...] | None = None,
) -> list[int]:
    topology = Topology(
        num_nodes=num_nodes, num_ranks=num_ranks, num_slots=len(row), rank_capacities=capacities
    )
    result = repair(
        torch.tensor([row]),
        torch.tensor([mean], dtype=torch.float64),
        topology,
        rules or EngineRules(),
        None if home is None else torch.tensor([home]),
    )
    (repaired,) = result.tolist()
    return list(repaired)


def test_a_placement_that_keeps_the_rules_comes_back_as_it_is() -> None:
    """Duplicates and many replicas are nobody's fault where no rule forbids them."""
    assert _repaired((0, 0, 0, 1), (1.0, 9.0)) == [0, 0, 0, 1]


def test_a_missing_expert_takes_the_free_slot() -> None:
    """Expert 2 of 0 1 | - 3 goes to the slot that holds nothing."""
    assert _repaired((0, 1, -1, 3), (4.0, 3.0, 2.0, 1.0)) == [0, 1, 2, 3]


def test_the_heaviest_missing_expert_chooses_first() -> None:
    """0 0 | - 1 | - 2 of 8 9 1 5 3: expert 3 goes to rank 2, the lighter; 4 to what is left."""
    row = (0, 0, -1, 1, -1, 2)

    assert _repaired(row, (8.0, 9.0, 1.0, 5.0, 3.0), num_ranks=3) == [0, 0, 4, 1, 3, 2]


def test_without_a_free_slot_the_lightest_replica_gives_way() -> None:
    """0 1 | 0 1 | 2 2 of 8 6 5 1: replicas carry 4, 3 and 2.5, so expert 3 takes one of 2.5."""
    row = (0, 1, 0, 1, 2, 2)

    assert _repaired(row, (8.0, 6.0, 5.0, 1.0), num_ranks=3) == [0, 1, 0, 1, 3, 2]


def test_what_is_free_goes_to_the_expert_with_most_tokens_per_replica() -> None:
    """0 1 | - - of 9 5: two replicas of 9 first carry 4.5 each, so that 5 gets the other slot."""
    assert _repaired((0, 1, -1, -1), (9.0, 5.0)) == [0, 1, 0, 1]


def test_a_slow_rank_counts_as_loaded_sooner() -> None:
    """0 - | 1 - of 3 2 4 1: expert 2 goes to rank 1, unless that is half as fast."""
    row, mean = (0, -1, 1, -1), (3.0, 2.0, 4.0, 1.0)

    assert _repaired(row, mean) == [0, 3, 1, 2]
    assert _repaired(row, mean, capacities=(1.0, 0.5)) == [0, 2, 1, 3]


def test_an_expert_goes_to_its_home_only() -> None:
    """0 - || 1 1 of 1 9 5 5 3, expert 2 at home on node 1: a replica of 1 has to give way."""
    free = _repaired((0, -1, 1, 1), (1.0, 9.0, 5.0), num_nodes=2)
    tied = _repaired((0, -1, 1, 1), (1.0, 9.0, 5.0), num_nodes=2, home=(0, 1, 1))

    assert free[1] == 2
    assert sorted(tied[2:]) == [1, 2]
    assert tied[:2] == [0, 0]


def test_a_home_without_room_is_refused() -> None:
    """Experts 1 2 3 do not fit into the two slots of their home."""
    with pytest.raises(InvalidPlacementError) as caught:
        _repaired((0, -1, 1, 2), (1.0, 1.0, 1.0, 1.0), num_nodes=2, home=(0, 1, 1, 1))

    assert caught.value.field == "incumbent"


def test_duplicates_give_way_where_they_are_forbidden() -> None:
    """0 0 | 1 2 of 8 2 1: the higher slot of the full rank gets the lightest of the others."""
    rules = EngineRules(forbid_duplicates=True)
    result = _repaired((0, 0, 1, 2), (8.0, 2.0, 1.0), rules=rules)

    assert result == [0, 2, 1, 2]


def test_an_idle_rank_is_filled_up_to_its_part() -> None:
    """0 1 | 2 3 | - - of 4 3 2 1: a half of 4 leaves room for a half of 2, not for one of 3."""
    assert _repaired((0, 1, 2, 3, -1, -1), (4.0, 3.0, 2.0, 1.0), num_ranks=3) == [
        0, 1, 2, 3, 0, 2,
    ]  # fmt: skip


def test_replicas_beyond_the_rule_give_way_the_highest_first() -> None:
    """0 1 | 0 2 | 0 1 with two replicas at most: the third 0 goes, and 2 gets its slot."""
    rules = EngineRules(max_replicas_per_expert=2)

    assert _repaired((0, 1, 0, 2, 0, 1), (9.0, 8.0, 1.0), num_ranks=3, rules=rules) == [
        0, 1, 0, 2, 2, 1,
    ]  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """A map after ranks were lost, the rules it has to keep, and a placement that keeps them."""

    row: list[int]
    mean: list[float]
    topology: Topology
    rules: EngineRules


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Draw a placement of which some slots hold nothing any more."""
    num_ranks, per_rank = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    num_slots = num_ranks * per_rank
    num_experts = draw(st.integers(1, num_slots))
    extra = st.integers(0, num_experts - 1)
    more = draw(st.lists(extra, min_size=num_slots, max_size=num_slots))
    row = draw(st.permutations([*range(num_experts), *more][:num_slots]))
    lost = draw(st.sets(st.integers(0, num_slots - 1)))
    most = None
    if draw(st.booleans()):
        most = draw(st.integers(-(-num_slots // num_experts), num_slots))
    # With both rules, some experts must be able to fill every rank: at most one replica a rank.
    forbids = (
        per_rank <= num_experts and (most is None or most >= num_ranks) and draw(st.booleans())
    )
    return Damage(
        row=[-1 if slot in lost else e for slot, e in enumerate(row)],
        mean=[float(draw(st.integers(0, 9))) for _ in range(num_experts)],
        topology=Topology(num_nodes=1, num_ranks=num_ranks, num_slots=num_slots),
        rules=EngineRules(forbid_duplicates=forbids, max_replicas_per_expert=most),
    )


@settings(deadline=None, max_examples=400)
@given(damages())
def test_any_damage_is_repaired(damage: Damage) -> None:
    """The result is a placement that keeps the rules, wherever some placement does."""
    result = _result(damage)

    damage.rules.check(Placement(result, len(damage.mean), damage.topology))


@settings(deadline=None, max_examples=200)
@given(damages())
def test_no_more_is_changed_than_must_be(damage: Damage) -> None:
    """Without rules, kept slots change for missing experts only, once no slot is free."""
    damage = Damage(damage.row, damage.mean, damage.topology, EngineRules())
    (after,) = _result(damage).tolist()

    missing = len(damage.mean) - len({*damage.row} - {-1})
    free = damage.row.count(-1)
    changed = sum(a != b for a, b in zip(after, damage.row, strict=True) if b >= 0)
    assert changed == max(0, missing - free)


@settings(deadline=None, max_examples=100)
@given(damages())
def test_repairing_twice_changes_nothing_more(damage: Damage) -> None:
    """What is whole stays as it is, and the input is not written to."""
    row = torch.tensor([damage.row])
    once = _result(damage)

    assert row.tolist() == [damage.row]
    again = Damage(once[0].tolist(), damage.mean, damage.topology, damage.rules)
    assert torch.equal(_result(again), once)


@st.composite
def crowded(draw: st.DrawFn) -> Damage:
    """Draw damage under both rules, where one placement that keeps them is known."""
    num_ranks, per_rank = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    num_experts = draw(st.integers(per_rank, num_ranks * per_rank))
    # Experts in turn: no rank has one twice while it has no more slots than there are experts.
    row = [slot % num_experts for slot in range(num_ranks * per_rank)]
    most = -(-len(row) // num_experts)
    lost = draw(st.sets(st.integers(0, len(row) - 1)))
    return Damage(
        row=[-1 if slot in lost else e for slot, e in enumerate(row)],
        mean=[float(draw(st.integers(0, 9))) for _ in range(num_experts)],
        topology=Topology(num_nodes=1, num_ranks=num_ranks, num_slots=len(row)),
        rules=EngineRules(forbid_duplicates=True, max_replicas_per_expert=most),
    )


@settings(deadline=None, max_examples=300)
@given(crowded())
def test_both_rules_at_once_are_kept_or_nothing_is(damage: Damage) -> None:
    """Where going slot by slot ends in a dead end, that is said, and no rule is broken."""
    with contextlib.suppress(InvalidPlacementError):
        result = _result(damage)
        placement = Placement(result, len(damage.mean), damage.topology)
        assert not placement.num_duplicates().any()
        assert int(placement.logcnt().max()) <= (damage.rules.max_replicas_per_expert or 0)


def _result(damage: Damage) -> torch.Tensor:
    return repair(
        torch.tensor([damage.row]),
        torch.tensor([damage.mean], dtype=torch.float64),
        damage.topology,
        damage.rules,
        None,
    )
