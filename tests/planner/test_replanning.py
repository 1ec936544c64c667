"""From a placement in force to a better one: what every policy's plan keeps to."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from expertplane_planner import (
    Basis,
    BenefitTerms,
    ExpertLoad,
    Incumbent,
    InvalidInputError,
    InvalidPlacementError,
    Mode,
    MoveBudget,
    Placement,
    Prediction,
    Topology,
    foreign_replicas,
    solve,
)
from expertplane_planner.policies.base import ImprovingPolicy

from ..support import builders, instances
from .policies.solving import every_row
from .policies.table import ROWS, Row
from .re_plans import Task, budgets, tasks


IMPROVING = [row for row in ROWS if isinstance(row.make(), ImprovingPolicy)]


@every_row
def test_what_every_plan_from_a_placement_in_force_keeps_to(row: Row) -> None:
    """Never worse by the policy's own objective, within the budget, and no needless change.

    Moved slots are counted right, the transfers lead from the old to the new map, no expert
    changes its slot inside a rank, and foreign replicas stay as few as the mode allows.
    """

    @settings(deadline=None, max_examples=40)
    @given(tasks(weighs=getattr(row.make(), "weighs_ranks", False)), budgets)
    def check(task: Task, budget: MoveBudget) -> None:
        plan, old = task.solve(row, budget), task.incumbent
        new = plan.placement

        before, after = (task.objective(row, placement) for placement in (old, new))
        assert (after <= before * (1 + 1e-9)).all()
        moved = new.moved_slots(old)
        assert plan.moved_slots == tuple(moved.tolist())
        assert budget.slots_per_layer is None or int(moved.max()) <= budget.slots_per_layer
        assert budget.total_slots is None or int(moved.sum()) <= budget.total_slots
        assert torch.equal((new.phy2log != old.phy2log).sum(dim=1), moved)
        assert plan.transfers is not None
        assert plan.transfers.apply(old).digest() == new.digest()
        if row.avoids_duplicates and task.has_experts_for_every_slot_of_a_rank():
            assert not new.num_duplicates()[old.num_duplicates() == 0].any()
        if task.mode.is_by_node:
            assert int(foreign_replicas(new, task.num_expert_groups).max()) <= task.spill

    check()


@every_row
def test_without_a_budget_nothing_moves(row: Row) -> None:
    """With budget 0 of either kind the plan is the placement in force, byte for byte."""

    @settings(deadline=None, max_examples=20)
    @given(tasks(weighs=getattr(row.make(), "weighs_ranks", False)), st.booleans())
    def check(task: Task, is_total: bool) -> None:
        budget = MoveBudget(total_slots=0) if is_total else MoveBudget(slots_per_layer=0)
        plan = task.solve(row, budget)

        assert plan.digest == task.incumbent.digest()
        assert plan.benefit is not None
        assert (plan.benefit.gain, plan.benefit.moved_slots) == (0.0, 0)
        assert not plan.benefit.is_worthwhile

    check()


@every_row
def test_ranks_that_are_lost_or_found_are_coped_with(row: Row) -> None:
    """Whatever the mask was before, every expert has a slot on the ranks that are active now.

    With budget 0, only what repair needs is moved: each missing expert once, and all slots of
    ranks that are back.
    """

    @settings(deadline=None, max_examples=40)
    @given(tasks(is_whole=False), st.booleans())
    def check(task: Task, is_free: bool) -> None:
        assume(task.mode is Mode.GLOBAL)
        plan = task.solve(row, MoveBudget() if is_free else MoveBudget(slots_per_layer=0))
        old, new = task.incumbent, plan.placement

        assert new.topology == task.topology
        left = old.phy2log_on(task.topology)
        assert torch.equal((new.phy2log != left).sum(dim=1), new.moved_slots(old))
        assert plan.transfers is not None
        assert plan.transfers.apply(old).digest() == new.digest()
        if is_free:
            return
        num_experts = task.load.num_logical_experts
        active = [r for r in task.topology.active_ranks if r in old.topology.masked_ranks]
        num_free = len(active) * task.topology.slots_per_rank
        needed = [max(num_free, num_experts - len({*r} - {-1})) for r in left.tolist()]
        assert list(plan.moved_slots or ()) == needed

    check()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_lost_rank_costs_one_move_per_lost_expert(row: Row) -> None:
    """0 1 | 2 3 | 0 4 | 2 5, the rank of 0 4 is lost: 4 takes a slot of 2, and nothing else."""
    old = Placement(
        torch.tensor([[0, 1, 2, 3, 0, 4, 2, 5]]),
        6,
        Topology(num_nodes=1, num_ranks=4, num_slots=8),
    )
    topology = dataclasses.replace(old.topology, masked_ranks=(2,))
    plan = solve(
        builders.load((9, 8, 4, 3, 2, 1)),
        topology,
        policy=row.make(),
        incumbent=Incumbent(placement=old, budget=MoveBudget(slots_per_layer=0)),
    )

    assert plan.moved_slots == (1,)
    assert plan.placement.phy2log.tolist()[0][4:6] == [-1, -1]
    assert 4 in plan.placement.phy2log.tolist()[0]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_lost_node_leaves_its_groups_to_the_others(row: Row) -> None:
    """Three nodes of two groups each, the last is lost: the others take one of its groups each."""
    slots = [0, 1, 2, 3, 0, 1, 4, 5, 6, 7, 4, 5, 8, 9, 10, 11, 8, 9]
    whole = Topology(num_nodes=3, num_ranks=6, num_slots=18)
    old = Placement(torch.tensor([slots]), 12, whole)
    plan = solve(
        builders.load(tuple(range(5, 17))),
        dataclasses.replace(whole, masked_ranks=(4, 5)),
        num_expert_groups=6,
        mode=Mode.HIERARCHICAL,
        policy=row.make(),
        incumbent=Incumbent(placement=old, budget=MoveBudget(slots_per_layer=0)),
    )

    assert plan.moved_slots == (4,)
    assert plan.foreign_replicas == (0,)


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("mode", [Mode.GLOBAL, Mode.HIERARCHICAL, Mode.SOFT_HIERARCHICAL])
def test_what_is_gained_is_what_is_measured(row: Row, mode: Mode) -> None:
    """Held-out samples are scored one by one; without them it is mean and risk of every rank."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.poisson(
        (torch.randn(1, 2, 12, generator=generator).exp() * 500).expand(10, -1, -1),
        generator=generator,
    )
    load, held_out = ExpertLoad(tokens[:6]), ExpertLoad(tokens[6:])
    topology = Topology(num_nodes=2, num_ranks=4, num_slots=20)
    arguments: dict[str, Any] = {"num_expert_groups": 4, "mode": mode, "policy": row.make()}
    old = solve(ExpertLoad(tokens[:1].flip(2)), topology, num_expert_groups=4, mode=mode).placement
    terms = BenefitTerms(bytes_per_expert=10**9, horizon_s=1000.0)
    scored, predicted = (
        solve(
            load,
            topology,
            **arguments,
            incumbent=Incumbent(placement=old, held_out=samples, terms=terms),
        )
        for samples in (held_out, None)
    )

    for plan, measure in ((scored, _on_samples), (predicted, _on_prediction)):
        benefit = plan.benefit
        assert benefit is not None
        assert benefit.basis is (Basis.HELD_OUT if plan is scored else Basis.PREDICTED)
        assert benefit.maximum_before == pytest.approx(measure(old, load, held_out), rel=1e-6)
        assert benefit.maximum_after == pytest.approx(
            measure(plan.placement, load, held_out), rel=1e-6
        )
        assert benefit.moved_slots == int(plan.placement.moved_slots(old).sum())
        assert plan.transfers is not None
        assert benefit.migration_s == plan.transfers.estimated_s(10**9)
        assert benefit.terms == terms


def _on_samples(placement: Placement, _: ExpertLoad, held_out: ExpertLoad) -> float:
    counts = placement.logcnt().tolist()
    size, total = placement.topology.slots_per_rank, 0.0
    for sample in held_out.samples.tolist():
        for tokens, row, count in zip(sample, placement.phy2log.tolist(), counts, strict=True):
            share = [tokens[e] / count[e] for e in row]
            total += max(math.fsum(share[at : at + size]) for at in range(0, len(row), size))
    return total / held_out.num_samples


def _on_prediction(placement: Placement, load: ExpertLoad, _: ExpertLoad) -> float:
    prediction = Prediction.of_window(load)
    counts, size = placement.logcnt().tolist(), placement.topology.slots_per_rank
    num_ranks = placement.topology.num_ranks
    risk = NormalDist().inv_cdf((num_ranks - 0.375) / (num_ranks + 0.25))
    total = 0.0
    for layer, row in enumerate(placement.phy2log.tolist()):
        mean = prediction.mean[layer].tolist()
        covariance = prediction.dense_covariance()[layer].tolist()
        values = []
        for at in range(0, len(row), size):
            pack = [(e, 1 / counts[layer][e]) for e in row[at : at + size]]
            variance = math.fsum(covariance[e][f] * a * b for e, a in pack for f, b in pack)
            values.append(math.fsum(mean[e] * a for e, a in pack) + risk * math.sqrt(variance))
        total += max(values) * float(prediction.scale[layer])
    return total


@every_row
@pytest.mark.parametrize("name", sorted(instances.adversarial()))
def test_odd_loads_are_replanned(row: Row, name: str) -> None:
    """Zeros, ties, one expert, rank or slot, huge counts: a plan no worse, twice the same."""
    instance = instances.adversarial()[name]
    task = Task(
        load=instance.load,
        topology=instance.topology,
        incumbent=solve(
            ExpertLoad(instance.load.samples.flip(2)),
            instance.topology,
            num_expert_groups=instance.num_expert_groups,
            mode=instance.mode,
            spill=instance.spill,
        ).placement,
        num_expert_groups=instance.num_expert_groups,
        mode=instance.mode,
        spill=instance.spill,
    )
    plan, again = task.solve(row), task.solve(row)

    assert plan.digest == again.digest
    before, after = (task.objective(row, p) for p in (task.incumbent, plan.placement))
    assert (after <= before * (1 + 1e-9)).all()
    assert plan.benefit is not None
    assert math.isfinite(plan.benefit.net_s)


@pytest.mark.parametrize(
    "tokens",
    [[0] * 8, [7] * 8, [0, 0, 2**53, 0, 0, 0, 0, 0], [2**53] * 8, [1, 0, 0, 0, 0, 0, 0, 0]],
)
@every_row
def test_extreme_tokens_are_replanned(row: Row, tokens: list[int]) -> None:
    """No load, equal load, all on one expert, as many tokens as there can be."""
    topology = Topology(num_nodes=2, num_ranks=4, num_slots=12)
    old = Placement.initial(1, 8, topology)
    task = Task(load=builders.load(tuple(tokens)), topology=topology, incumbent=old)

    plan = task.solve(row)
    before, after = (task.objective(row, p) for p in (old, plan.placement))
    assert (after <= before * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("num_layers", "num_experts", "num_slots", "num_nodes"),
    [(2, 12, 16, 2), (1, 12, 16, 2), (3, 12, 16, 2), (2, 8, 16, 2), (2, 16, 16, 2),
     (2, 12, 24, 2), (2, 12, 16, 1)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["robust", "balanced"])
@pytest.mark.parametrize("mode", [Mode.GLOBAL, Mode.HIERARCHICAL])
def test_a_placement_of_other_things_is_refused(
    name: str, mode: Mode, num_layers: int, num_experts: int, num_slots: int, num_nodes: int
) -> None:
    """Layers, experts, slots and nodes of what is in force have to be those of the plan."""
    old = Placement.initial(
        num_layers, num_experts, Topology(num_nodes=num_nodes, num_ranks=8, num_slots=num_slots)
    )
    arguments: dict[str, Any] = {"num_expert_groups": 4, "mode": mode, "policy": name}
    if (num_layers, num_experts, num_slots, num_nodes) == (2, 12, 16, 2):
        if mode is Mode.GLOBAL:
            solve(builders.readme_load(), builders.readme_topology(), incumbent=old, **arguments)
        return
    with pytest.raises(InvalidPlacementError):
        solve(builders.readme_load(), builders.readme_topology(), incumbent=old, **arguments)


def test_samples_held_out_of_something_else_are_refused() -> None:
    """They have to be of the same layers and experts; the field says that it is them."""
    old = Placement.initial(2, 12, builders.readme_topology())

    with pytest.raises(InvalidInputError) as caught:
        solve(
            builders.readme_load(),
            builders.readme_topology(),
            incumbent=Incumbent(placement=old, held_out=builders.load()),
        )
    assert "held_out" in caught.value.field


def test_a_placement_that_the_mode_forbids_is_replaced() -> None:
    """Groups spread over nodes: a plan from scratch takes their place, whatever the budget."""
    old = Placement.initial(2, 12, builders.readme_topology())
    for limit in (None, 0):
        plan = solve(
            builders.readme_load(),
            builders.readme_topology(),
            num_expert_groups=4,
            mode=Mode.HIERARCHICAL,
            incumbent=Incumbent(placement=old, budget=MoveBudget(slots_per_layer=limit)),
        )

        assert plan.foreign_replicas == (0, 0)
        assert plan.moved_slots == tuple(plan.placement.moved_slots(old).tolist())


def test_the_placement_in_force_may_be_given_alone() -> None:
    """That is the same as no budget, nothing held out and the usual terms."""
    old = Placement.initial(2, 12, builders.readme_topology())
    alone, said = (
        solve(builders.readme_load(), builders.readme_topology(), incumbent=incumbent)
        for incumbent in (old, Incumbent(placement=old))
    )

    assert alone.digest == said.digest
    assert alone.benefit == said.benefit


def test_from_scratch_nothing_is_said_about_moves() -> None:
    """Without a placement in force there are no moves, no transfers and no benefit."""
    plan = solve(builders.readme_load(), builders.readme_topology())

    assert (plan.moved_slots, plan.transfers, plan.benefit) == (None, None, None)


def test_dear_moves_are_made_only_where_they_pay() -> None:
    """At a price beyond any gain nothing moves; at no price the search goes as far as it can."""
    old = Placement.initial(2, 12, builders.readme_topology())
    moved = []
    for bytes_per_expert in (10**18, 10**9, 0):
        terms = BenefitTerms(bytes_per_expert=bytes_per_expert)
        plan = solve(
            builders.readme_load(),
            builders.readme_topology(),
            incumbent=Incumbent(placement=old, budget=MoveBudget(slots_per_layer=6), terms=terms),
        )
        moved.append(sum(plan.moved_slots or ()))

    assert moved[0] == 0
    assert moved[-1] > 0


def test_what_serves_no_time_is_left_alone() -> None:
    """A plan that is to be in force for no time at all pays for no move."""
    old = Placement.initial(2, 12, builders.readme_topology())
    for terms in (BenefitTerms(horizon_s=0.0), BenefitTerms(moe_time_fraction=0.0)):
        plan = solve(
            builders.readme_load(),
            builders.readme_topology(),
            incumbent=Incumbent(placement=old, terms=terms),
        )

        assert plan.moved_slots == (0, 0)
