"""What must hold for every policy on every instance, whatever the policy does."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings

from expertplane_planner import ExpertLoad, Mode, Plan, policy_names

from ...support import instances, reference
from .solving import every_instance, every_row, place, plan
from .table import ROWS, Row


if TYPE_CHECKING:
    from ...support.instances import Instance


def _assert_valid(solved: Plan, instance: Instance) -> None:
    placement = solved.placement
    num_experts, topology = instance.load.num_logical_experts, instance.topology
    assert solved.mode is instance.mode
    assert placement.num_layers == instance.load.num_layers
    for layer, phy2log in enumerate(placement.phy2log.tolist()):
        assert len(phy2log) == topology.num_slots
        assert set(phy2log) == set(range(num_experts))
        if instance.mode is Mode.GLOBAL:
            assert solved.foreign_replicas is None
            continue
        assert solved.foreign_replicas is not None
        group_size = num_experts // instance.num_expert_groups
        num_foreign = _num_foreign(phy2log, group_size, topology.slots_per_node)
        assert num_foreign == solved.foreign_replicas[layer]
        assert num_foreign <= instance.spill


def _num_foreign(phy2log: list[int], group_size: int, slots_per_node: int) -> int:
    """Return the replicas away from home, and check that every expert has one at home.

    A group's home is the node with all its experts and most of its replicas.
    """
    held = Counter((slot // slots_per_node, expert) for slot, expert in enumerate(phy2log))
    num_nodes, num_experts = len(phy2log) // slots_per_node, max(phy2log) + 1
    at_home = 0
    for first in range(0, num_experts, group_size):
        group = range(first, first + group_size)
        per_node = [[held[node, expert] for expert in group] for node in range(num_nodes)]
        assert any(all(counts) for counts in per_node)
        at_home += max(sum(counts) for counts in per_node if all(counts))
    return len(phy2log) - at_home


def test_every_built_in_policy_has_a_row() -> None:
    """No built-in policy escapes these tests."""
    assert [row.name for row in ROWS] == [row.make().name for row in ROWS]
    assert {row.name for row in ROWS} == set(policy_names())


@every_row
@every_instance
def test_every_expert_is_placed_and_groups_stay_at_home(row: Row, name: str) -> None:
    """All slots are full, every expert has one, and no more replicas are foreign than allowed."""
    instance = instances.adversarial()[name]

    _assert_valid(plan(row, instance), instance)


@every_row
def test_any_small_instance_is_placed(row: Row) -> None:
    """The same holds for whatever hypothesis comes up with."""

    @settings(deadline=None, max_examples=30)
    @given(instances.instances())
    def check(instance: Instance) -> None:
        _assert_valid(plan(row, instance), instance)

    check()


@every_row
@every_instance
def test_maps_agree(row: Row, name: str) -> None:
    """log2phy lists logcnt slots of each expert, ascending, and phy2log holds the expert there."""
    instance = instances.adversarial()[name]
    placement = place(row, instance)

    logcnt, log2phy = placement.logcnt().tolist(), placement.log2phy().tolist()

    for layer, phy2log in enumerate(placement.phy2log.tolist()):
        slots = reference.log2phy(phy2log, instance.load.num_logical_experts)
        assert logcnt[layer] == [len(used) for used in slots]
        assert [[s for s in padded if s >= 0] for padded in log2phy[layer]] == slots


@every_row
@every_instance
def test_the_same_request_gives_the_same_map_and_is_not_mutated(row: Row, name: str) -> None:
    """Two solves with one seed agree to the last slot and leave the samples as they were."""
    instance = instances.adversarial()[name]
    before = instance.load.samples.clone()

    assert place(row, instance).digest() == place(row, instance).digest()
    assert torch.equal(before, instance.load.samples)


@every_row
def test_the_seed_decides_where_it_should(row: Row) -> None:
    """Five seeds give several maps where a policy draws numbers, and one where it does not."""
    instance = instances.adversarial()["skewed"]

    digests = {place(row, instance, seed=seed).digest() for seed in range(5)}

    assert (len(digests) > 1) == row.is_random


@pytest.mark.parametrize("row", [r for r in ROWS if r.is_scale_invariant], ids=str)
@every_instance
@pytest.mark.parametrize("factor", [2.0**-30, 2.0**-3, 2.0**6])
def test_a_power_of_two_changes_nothing(row: Row, name: str, factor: float) -> None:
    """Counting in other units leaves the map as it is."""
    instance = instances.adversarial()[name]
    scaled = ExpertLoad(instance.load.samples.to(torch.float64) * factor)

    assert place(row, instance).digest() == place(row, instance, scaled).digest()


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.is_unit_free and not r.is_scale_invariant], ids=str
)
def test_thresholds_in_tokens_do_not_show_at_token_counts(row: Row) -> None:
    """Where a policy takes loads a hair apart for equal, thousands of tokens are far apart."""
    instance = instances.adversarial()["skewed"]
    scaled = ExpertLoad(instance.load.samples * 2**6)

    assert place(row, instance).digest() == place(row, instance, scaled).digest()


@pytest.mark.parametrize("row", [r for r in ROWS if not r.is_random], ids=str)
@every_instance
def test_layers_do_not_know_each_other(row: Row, name: str) -> None:
    """A layer planned alone gets the same slots as among the others."""
    instance = instances.adversarial()[name]
    together = place(row, instance).phy2log

    alone = [
        place(row, instance, ExpertLoad(instance.load.samples[:, [layer]])).phy2log
        for layer in range(instance.load.num_layers)
    ]

    assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("row", [r for r in ROWS if not r.is_random], ids=str)
@pytest.mark.parametrize("num_ranks", [1, 4, 8])
def test_renaming_experts_renames_them_in_the_map(row: Row, num_ranks: int) -> None:
    """Without ties, permuting the experts of a load permutes the ids in a global map."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 16, generator=generator, dtype=torch.float64).exp()
    new_name = torch.randperm(16, generator=generator)
    instance = dataclasses.replace(
        instances.adversarial()["skewed"],
        load=ExpertLoad.from_weight(weight),
        topology=dataclasses.replace(
            instances.adversarial()["skewed"].topology, num_ranks=num_ranks
        ),
    )
    renamed = ExpertLoad.from_weight(weight[:, torch.argsort(new_name)])

    assert torch.equal(
        new_name[place(row, instance).phy2log], place(row, instance, renamed).phy2log
    )


@every_row
def test_the_layout_of_a_load_does_not_matter(row: Row) -> None:
    """Transposed, strided and repeated samples are planned like a plain copy of them."""
    instance = instances.adversarial()["two nodes of four groups"]
    weight = instance.load.samples[0]
    transposed = weight.T.contiguous().T.unsqueeze(0)
    strided = torch.stack([weight, weight], dim=2).unsqueeze(0)[..., 0]

    for samples in (transposed, strided):
        assert not samples.is_contiguous()
        assert place(row, instance, ExpertLoad(samples)).digest() == place(row, instance).digest()
    if not row.plans_on_the_sum:
        return
    repeated = ExpertLoad(instance.load.samples.expand(4, -1, -1))
    fourfold = ExpertLoad(instance.load.samples * 4)
    assert place(row, instance, repeated).digest() == place(row, instance, fourfold).digest()
