from __future__ import annotations

import pytest

from expertplane_planner import InvalidTopologyError, Topology


def test_counts_per_rank_and_node_follow() -> None:
    """16 slots on 8 ranks of 2 nodes are 2 slots a rank, 4 ranks and 8 slots a node."""
    topology = Topology(num_nodes=2, num_ranks=8, num_slots=16)

    assert topology.slots_per_rank == 2
    assert topology.ranks_per_node == 4
    assert topology.slots_per_node == 8


@pytest.mark.parametrize(
    ("num_nodes", "num_ranks", "num_slots", "field", "message"),
    [
        pytest.param(
            1, 8, 30, "num_slots",
            "Expected num_slots to be a multiple of num_ranks, got 30 and 8.",
            id="slots",
        ),
        pytest.param(
            3, 8, 32, "num_ranks",
            "Expected num_ranks to be a multiple of num_nodes, got 8 and 3.",
            id="ranks",
        ),
        pytest.param(
            0, 8, 32, "num_nodes", "Expected num_nodes to be positive, got 0.", id="zero"
        ),
        pytest.param(
            1, -8, 32, "num_ranks", "Expected num_ranks to be positive, got -8.", id="negative"
        ),
        pytest.param(
            1, 4097, 4097, "num_ranks",
            "Expected num_ranks of at most 4096, got 4097.",
            id="too many ranks",
        ),
        pytest.param(
            1, 1, 65537, "num_slots",
            "Expected num_slots of at most 65536, got 65537.",
            id="too many slots",
        ),
    ],
)  # fmt: skip
def test_an_impossible_topology_is_refused(
    num_nodes: int, num_ranks: int, num_slots: int, field: str, message: str
) -> None:
    """Counts that are not positive, too large or do not divide are refused by name and value."""
    with pytest.raises(InvalidTopologyError) as caught:
        Topology(num_nodes=num_nodes, num_ranks=num_ranks, num_slots=num_slots)

    assert str(caught.value) == message
    assert caught.value.field == f"topology.{field}"


def test_the_largest_topology_is_accepted() -> None:
    """4096 ranks with 16 slots each are still allowed."""
    assert Topology(num_nodes=512, num_ranks=4096, num_slots=65536).slots_per_rank == 16
