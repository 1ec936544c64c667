"""What must hold for every policy on every instance, whatever the policy does."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings

from expertplane_planner import ExpertLoad, Mode, Placement, policy_names, solve

from ...support import instances
from .table import ROWS, Row


if TYPE_CHECKING:
    from ...support.instances import Instance


NAMES = sorted(instances.adversarial())
every_row = pytest.mark.parametrize("row", ROWS, ids=str)
every_instance = pytest.mark.parametrize("name", NAMES)


def _place(row: Row, instance: Instance, load: ExpertLoad | None = None) -> Placement:
    plan = solve(
        load or instance.load,
        instance.topology,
        num_expert_groups=instance.num_expert_groups,
        mode=instance.mode,
        policy=row.make(),
        seed=1,
    )
    assert plan.mode is instance.mode
    return plan.placement


def _assert_valid(placement: Placement, instance: Instance) -> None:
    num_experts, topology = instance.load.num_logical_experts, instance.topology
    for phy2log in placement.phy2log.tolist():
        assert len(phy2log) == topology.num_slots
        assert set(phy2log) == set(range(num_experts))
        if instance.mode is Mode.HIERARCHICAL:
            group_size = num_experts // instance.num_expert_groups
            homes = {
                (expert // group_size, slot // topology.slots_per_node)
                for slot, expert in enumerate(phy2log)
            }
            assert len(homes) == instance.num_expert_groups


def test_every_built_in_policy_has_a_row() -> None:
    """No built-in policy escapes these tests."""
    assert [row.name for row in ROWS] == [row.make().name for row in ROWS]
    assert {row.name for row in ROWS} == set(policy_names())


@every_row
@every_instance
def test_every_expert_is_placed_and_groups_stay_at_home(row: Row, name: str) -> None:
    """All slots are full, every expert has one, and in hierarchical mode no group is split."""
    instance = instances.adversarial()[name]

    _assert_valid(_place(row, instance), instance)


@every_row
def test_any_small_instance_is_placed(row: Row) -> None:
    """The same holds for whatever hypothesis comes up with."""

    @settings(deadline=None, max_examples=60)
    @given(instances.instances())
    def check(instance: Instance) -> None:
        _assert_valid(_place(row, instance), instance)

    check()


@every_row
@every_instance
def test_maps_agree(row: Row, name: str) -> None:
    """log2phy lists logcnt slots of each expert, and phy2log holds the expert there."""
    placement = _place(row, instances.adversarial()[name])
    log2phy = placement.log2phy()

    assert torch.equal((log2phy >= 0).sum(dim=2), placement.logcnt())
    for layer, experts in enumerate(log2phy.tolist()):
        for expert, slots in enumerate(experts):
            used = [slot for slot in slots if slot >= 0]
            assert used == sorted(used)
            assert {placement.phy2log[layer, slot].item() for slot in used} == {expert}


@every_row
@every_instance
def test_the_same_request_gives_the_same_map(row: Row, name: str) -> None:
    """Two solves with one seed agree to the last slot."""
    instance = instances.adversarial()[name]

    assert _place(row, instance).digest() == _place(row, instance).digest()


@every_row
@every_instance
def test_the_load_is_not_mutated(row: Row, name: str) -> None:
    """The samples are the same after a solve as before."""
    instance = instances.adversarial()[name]
    before = instance.load.samples.clone()

    _place(row, instance)

    assert torch.equal(before, instance.load.samples)


@every_row
@every_instance
@pytest.mark.parametrize("factor", [2.0**-10, 2.0**6])
def test_a_power_of_two_changes_nothing(row: Row, name: str, factor: float) -> None:
    """Counting in other units leaves the map as it is."""
    instance = instances.adversarial()[name]
    scaled = ExpertLoad(instance.load.samples.to(torch.float64) * factor)

    assert _place(row, instance).digest() == _place(row, instance, scaled).digest()


@every_row
@every_instance
def test_layers_do_not_know_each_other(row: Row, name: str) -> None:
    """A layer planned alone gets the same slots as among the others."""
    instance = instances.adversarial()[name]
    together = _place(row, instance).phy2log

    alone = [
        _place(row, instance, ExpertLoad(instance.load.samples[:, [layer]])).phy2log
        for layer in range(instance.load.num_layers)
    ]

    assert torch.equal(torch.cat(alone), together)


@every_row
def test_renaming_experts_renames_them_in_the_map(row: Row) -> None:
    """Without ties, permuting the experts of a load permutes the ids in a global map."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 16, generator=generator, dtype=torch.float64).exp()
    new_name = torch.randperm(16, generator=generator)
    instance = dataclasses.replace(
        instances.adversarial()["skewed"], load=ExpertLoad.from_weight(weight)
    )
    renamed = ExpertLoad.from_weight(weight[:, torch.argsort(new_name)])

    assert torch.equal(
        new_name[_place(row, instance).phy2log], _place(row, instance, renamed).phy2log
    )
