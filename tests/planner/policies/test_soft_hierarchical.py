"""What soft-hierarchical mode adds to hierarchical mode, policy by policy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch

from expertplane_planner import ExpertLoad, Mode, Topology

from ...support.instances import Instance
from .solving import every_row, place, plan
from .table import ROWS, Row


if TYPE_CHECKING:
    from torch import Tensor


def _instance(weight: Tensor, spill: int) -> Instance:
    return Instance(
        load=ExpertLoad.from_weight(weight),
        topology=Topology(num_nodes=2, num_ranks=8, num_slots=40),
        num_expert_groups=4,
        mode=Mode.SOFT_HIERARCHICAL,
        spill=spill,
    )


def _tie_free() -> Tensor:
    """Return loads of 24 experts, none of which needs more replicas than its node has ranks."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(3, 24, generator=generator, dtype=torch.float64).mul(0.4).exp() * 1000


def _hot_node() -> Tensor:
    weight = _tie_free()
    weight[:, :12] *= 3  # two of four expert groups
    return weight


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.replicates_greedily and not r.is_random], ids=str
)
def test_without_spill_the_map_is_the_hierarchical_one(row: Row) -> None:
    """A policy that replicates greedily plans the same in both modes, ties aside."""
    soft = _instance(_tie_free(), spill=0)
    hard = dataclasses.replace(soft, mode=Mode.HIERARCHICAL)

    assert place(row, soft).digest() == place(row, hard).digest()


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.replicates_greedily and r.is_random], ids=str
)
def test_without_spill_random_policies_replicate_alike(row: Row) -> None:
    """Noise falls on other positions, but every expert has as many replicas as in hard mode."""
    soft = _instance(_tie_free(), spill=0)
    hard = dataclasses.replace(soft, mode=Mode.HIERARCHICAL)

    assert torch.equal(place(row, soft).logcnt(), place(row, hard).logcnt())


def test_spill_takes_the_place_of_hybrid_replication() -> None:
    """Loads 10 4 in four slots a node: hybrid makes that 2 and 2 of each, greedy 3 and 1."""
    (row,) = [row for row in ROWS if row.name == "hybrid"]
    soft = Instance(
        load=ExpertLoad.from_weight(torch.tensor([[10, 4, 10, 4]])),
        topology=Topology(num_nodes=2, num_ranks=8, num_slots=8),
        num_expert_groups=2,
        mode=Mode.SOFT_HIERARCHICAL,
    )
    hard = dataclasses.replace(soft, mode=Mode.HIERARCHICAL)

    assert place(row, soft).logcnt().tolist() == [[3, 1, 3, 1]]
    assert place(row, hard).logcnt().tolist() == [[2, 2, 2, 2]]


def test_without_spill_an_expert_still_gets_one_replica_a_rank_at_most() -> None:
    """One hot expert on a node of two ranks: three replicas in hierarchical mode, two in soft."""
    soft = Instance(
        load=ExpertLoad.from_weight(torch.tensor([[90, 1, 1, 1, 1, 1, 1, 1]])),
        topology=Topology(num_nodes=2, num_ranks=4, num_slots=12),
        num_expert_groups=2,
        mode=Mode.SOFT_HIERARCHICAL,
    )
    hard = dataclasses.replace(soft, mode=Mode.HIERARCHICAL)

    assert place(ROWS[0], soft).logcnt()[0, 0] == 2
    assert place(ROWS[0], hard).logcnt()[0, 0] == 3


@every_row
def test_a_hot_node_is_relieved(row: Row) -> None:
    """With half the groups three times as hot, four foreign replicas a layer beat none."""
    hard = plan(row, _instance(_hot_node(), spill=0))
    soft = plan(row, _instance(_hot_node(), spill=4))

    assert hard.foreign_replicas == (0, 0, 0)
    assert soft.foreign_replicas is not None
    assert all(1 <= num_foreign <= 4 for num_foreign in soft.foreign_replicas)
    assert soft.balance.balancedness > hard.balance.balancedness + 0.02


@every_row
def test_more_spill_than_slots_is_bounded_by_redundancy(row: Row) -> None:
    """Each foreign replica takes the place of a redundant one: 16 here, whatever is allowed."""
    most = plan(row, _instance(_hot_node(), spill=16))

    assert most.foreign_replicas is not None
    assert max(most.foreign_replicas) <= 16
    assert plan(row, _instance(_hot_node(), spill=1000)).digest == most.digest
