"""What is left of a topology without its masked ranks, and the way back."""

from __future__ import annotations

import pytest
import torch

from expertplane_planner import InvalidPlacementError, Topology
from expertplane_planner.model.masking import active_slots, compact, expand


def _topology(*masked_ranks: int, num_nodes: int = 2, num_ranks: int = 4) -> Topology:
    return Topology(
        num_nodes=num_nodes,
        num_ranks=num_ranks,
        num_slots=2 * num_ranks,
        masked_ranks=masked_ranks,
        rank_capacities=tuple(1.0 + rank for rank in range(num_ranks)),
    )


def test_without_a_mask_everything_is_left() -> None:
    """The topology itself, its slots and its maps."""
    topology = _topology()
    phy2log = torch.arange(8).view(1, 8)

    assert compact(topology) is topology
    assert active_slots(topology).tolist() == list(range(8))
    assert expand(phy2log, topology) is phy2log


@pytest.mark.parametrize(
    ("masked", "num_nodes", "capacities"),
    [
        pytest.param((1, 2), 2, (1.0, 4.0), id="one rank of each node"),
        pytest.param((2,), 1, (1.0, 2.0, 4.0), id="one rank of one node"),
        pytest.param((2, 3), 1, (1.0, 2.0), id="one node of two"),
    ],
)
def test_nodes_are_kept_where_they_keep_equally_many_ranks(
    masked: tuple[int, ...], num_nodes: int, capacities: tuple[float, ...]
) -> None:
    """Otherwise all ranks left count as one node; capacities stay with their ranks."""
    left = compact(_topology(*masked))

    assert (left.num_nodes, left.num_ranks) == (num_nodes, len(capacities))
    assert (left.num_slots, left.slots_per_rank) == (2 * len(capacities), 2)
    assert (left.masked_ranks, left.rank_capacities) == ((), capacities)


def test_a_lost_node_leaves_the_others_as_nodes() -> None:
    """Node 1 of three is gone: two nodes of two ranks are left."""
    left = compact(_topology(2, 3, num_nodes=3, num_ranks=6))

    assert (left.num_nodes, left.num_ranks) == (2, 4)


def test_masked_slots_hold_nobody() -> None:
    """Ranks 1 and 2 of two slots each are masked: what is planned lies in slots 0 1 6 7."""
    topology = _topology(1, 2)

    assert active_slots(topology).tolist() == [0, 1, 6, 7]
    full = expand(torch.tensor([[5, 6, 7, 8]], dtype=torch.int32), topology)
    assert full.tolist() == [[5, 6, -1, -1, -1, -1, 7, 8]]
    assert full.dtype == torch.int32


@pytest.mark.parametrize("shape", [(1, 8), (4,)])
def test_a_map_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    """Four slots are left, so a map has four."""
    with pytest.raises(InvalidPlacementError, match=r"shape \[num_layers, 4\], got"):
        expand(torch.zeros(shape, dtype=torch.int64), _topology(1, 2))
