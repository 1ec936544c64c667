"""Gain and cost, by hand."""

from __future__ import annotations

import pytest
import torch

from expertplane_planner import Basis, BenefitTerms, ExpertLoad, LinkSpeed, Placement, Topology
from expertplane_planner.migration import schedule_transfers
from expertplane_planner.migration.benefit import held_out_maximum, net_benefit

from ...support import builders


def test_the_maximum_is_the_mean_over_samples_of_the_sum_over_layers() -> None:
    """Ranks 0 1 | 2 3; samples of 4 3 2 1 and 0 1 6 6, and a layer of 1 1 1 1: 7, 12, and 2."""
    placement = builders.placement((0, 1, 2, 3), (0, 1, 2, 3))
    samples = torch.tensor([[[4, 3, 2, 1], [1, 1, 1, 1]], [[0, 1, 6, 6], [1, 1, 1, 1]]])

    assert held_out_maximum(placement, ExpertLoad(samples)) == (7 + 2 + 12 + 2) / 2


def test_slow_ranks_count_for_more() -> None:
    """4 3 on a rank half as fast is worth 14."""
    topology = Topology(num_nodes=1, num_ranks=2, num_slots=4, rank_capacities=(0.5, 1.0))
    placement = Placement(torch.tensor([[0, 1, 2, 3]]), 4, topology)

    assert held_out_maximum(placement, builders.load()) == 14.0


@pytest.mark.parametrize(("bytes_per_expert", "migration_s"), [(50, 5.0), (0, 0.0)])
def test_the_cost_is_the_time_of_the_transfers(bytes_per_expert: int, migration_s: float) -> None:
    """Two ranks swap an expert of 50 bytes at 10 bytes per second at the same time: 5 seconds."""
    old, new = (builders.placement(row) for row in ((0, 1, 2, 3), (0, 2, 1, 3)))
    terms = BenefitTerms(
        bytes_per_expert=bytes_per_expert, link_speed=LinkSpeed(same_node_bytes_per_s=10)
    )
    benefit = net_benefit(
        10.0,
        8.0,
        schedule_transfers(new, old),
        moved_slots=2,
        basis=Basis.HELD_OUT,
        terms=terms,
    )

    assert benefit.migration_s == migration_s
    assert benefit.moved_bytes == 2 * bytes_per_expert
    assert (benefit.maximum_before, benefit.maximum_after) == (10.0, 8.0)
    assert (benefit.basis, benefit.terms) == (Basis.HELD_OUT, terms)
