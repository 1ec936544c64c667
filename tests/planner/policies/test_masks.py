"""Lost and slow ranks, with every policy."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import (
    ExpertLoad,
    InvalidInputError,
    Mode,
    Topology,
    rank_load,
    solve,
)
from expertplane_planner.model.masking import compact, expand, has_even_nodes
from expertplane_planner.policies.balanced import BalancedPolicy

from ...support import builders, instances
from .solving import every_row, plan
from .table import ROWS, Row


@st.composite
def _masked(draw: st.DrawFn) -> tuple[instances.Instance, tuple[int, ...]]:
    """Draw an instance and ranks that can be masked in it."""
    instance = draw(instances.instances())
    topology, num_experts = instance.topology, instance.load.num_logical_experts
    fewest = -(-num_experts // topology.slots_per_rank)
    ranks = st.sets(
        st.integers(0, topology.num_ranks - 1), max_size=topology.num_ranks - max(fewest, 1)
    )
    return instance, tuple(sorted(draw(ranks)))


@every_row
def test_a_plan_without_some_ranks_is_the_plan_of_the_others(row: Row) -> None:
    """Masked slots hold -1; the rest is what the policy plans on the ranks that are left."""

    @settings(deadline=None, max_examples=30)
    @given(_masked())
    def check(drawn: tuple[instances.Instance, tuple[int, ...]]) -> None:
        instance, masked = drawn
        topology = dataclasses.replace(instance.topology, masked_ranks=masked)
        left = compact(topology)
        mode = instance.mode
        if not has_even_nodes(topology) or instance.num_expert_groups % left.num_nodes:
            mode = Mode.GLOBAL
        spill = instance.spill if mode is Mode.SOFT_HIERARCHICAL else 0
        instance = dataclasses.replace(instance, topology=topology, mode=mode, spill=spill)
        solved = plan(row, instance)
        small = plan(row, dataclasses.replace(instance, topology=left))

        assert solved.placement.topology == topology
        expected = expand(small.placement.phy2log, topology)
        assert torch.equal(solved.placement.phy2log, expected)
        assert solved.foreign_replicas == small.foreign_replicas
        assert solved.balance == small.balance

    check()


def test_too_few_slots_are_left() -> None:
    """Four experts do not fit into the two slots of the last rank."""
    topology = Topology(num_nodes=1, num_ranks=3, num_slots=6, masked_ranks=(0, 2))

    with pytest.raises(InvalidInputError, match="got 2 slots and 4 experts"):
        solve(builders.load(), topology)


def test_expert_groups_do_not_stay_on_nodes_of_different_sizes() -> None:
    """On demand they are refused, naming the mask; left to itself the plan is global."""
    topology = Topology(num_nodes=2, num_ranks=4, num_slots=16, masked_ranks=(3,))

    assert solve(builders.load(), topology, num_expert_groups=2).mode is Mode.GLOBAL
    with pytest.raises(InvalidInputError) as caught:
        solve(builders.load(), topology, num_expert_groups=2, mode=Mode.HIERARCHICAL)
    assert caught.value.field == "topology.masked_ranks"


def _uneven(*capacities: float, num_nodes: int = 1, slots_per_rank: int = 9) -> Topology:
    return Topology(
        num_nodes=num_nodes,
        num_ranks=len(capacities),
        num_slots=len(capacities) * slots_per_rank,
        rank_capacities=capacities,
    )


def _skewed(seed: int, num_experts: int = 64, num_samples: int = 32) -> ExpertLoad:
    generator = torch.Generator().manual_seed(seed)
    mean = 2000 * torch.randn(1, 3, num_experts, generator=generator).exp()
    return ExpertLoad(torch.poisson(mean.expand(num_samples, -1, -1), generator=generator).long())


@every_row
def test_slow_ranks_are_for_policies_that_weigh_them(row: Row) -> None:
    """Others refuse unequal capacities; a masked rank may have any."""
    topology = _uneven(1.0, 0.5, slots_per_rank=6)
    load = builders.load(tuple(range(1, 13)))
    if getattr(row.make(), "weighs_ranks", False):
        assert solve(load, topology, policy=row.make()).balance.balancedness > 0.9
    else:
        with pytest.raises(InvalidInputError) as caught:
            solve(load, topology, policy=row.make())
        assert caught.value.field == "topology.rank_capacities"
        assert str(caught.value) == (
            "Expected equal capacities of all active ranks for a policy that does not weigh "
            f"ranks, got 0.5 to 1 for '{row.name}'."
        )
    masked = dataclasses.replace(_uneven(1.0, 0.5, 1.0), masked_ranks=(1,))
    assert solve(load, masked, policy=row.make()).placement.topology == masked


def test_robust_alone_weighs_ranks() -> None:
    """The attribute is the policy's own."""
    assert [row.name for row in ROWS if getattr(row.make(), "weighs_ranks", False)] == ["robust"]


@pytest.mark.parametrize("seed", range(4))
def test_a_rank_half_as_fast_gets_half_as_much(seed: int) -> None:
    """Expected tokens of each rank are in proportion to its capacity, to within a tenth."""
    topology = _uneven(1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.5, 1.0)
    load = _skewed(seed)
    placement = solve(load, topology, policy="robust").placement

    by_capacity = rank_load(placement, load.total())
    expected = load.total().sum(dim=1, keepdim=True) / 7.0
    assert ((by_capacity / expected - 1).abs() < 0.1).all()


def test_a_slow_node_gets_the_lighter_groups() -> None:
    """Two nodes, one half as fast, four groups of 5, 4, 2, 1: it gets 2 + 1 or so, not 5 + 1."""
    topology = _uneven(1.0, 1.0, 0.5, 0.5, num_nodes=2, slots_per_rank=4)
    load = builders.load(tuple(1000 * tokens for tokens in (5, 5, 4, 4, 2, 2, 1, 1)))
    solved = solve(load, topology, num_expert_groups=4, policy="robust", mode=Mode.HIERARCHICAL)

    (row,) = solved.placement.phy2log.tolist()
    assert {*row[8:]} == {4, 5, 6, 7}


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_only_the_ratios_of_capacities_matter(factor: float) -> None:
    """All capacities times a power of two, the same map; all equal, the map without any."""
    load = _skewed(5)
    uneven = (1.0, 0.7, 1.3, 1.0)
    scaled = tuple(factor * capacity for capacity in uneven)
    even = _uneven(*(factor * 0.3 for _ in uneven), slots_per_rank=18)
    plain = dataclasses.replace(even, rank_capacities=None)

    digests = [
        solve(load, topology, policy="robust").digest
        for topology in (
            _uneven(*uneven, slots_per_rank=18),
            _uneven(*scaled, slots_per_rank=18),
            even,
            plain,
        )
    ]
    assert digests[0] == digests[1]
    assert digests[2] == digests[3]
    # Policies that do not weigh ranks take equal ones of any capacity.
    assert solve(load, even, policy=BalancedPolicy()).digest == (
        solve(load, plain, policy=BalancedPolicy()).digest
    )
