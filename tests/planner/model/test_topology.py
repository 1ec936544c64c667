from __future__ import annotations

import dataclasses
import math
from typing import cast

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


def test_masked_ranks_are_left_out_and_capacities_go_with_the_others() -> None:
    """Of ranks 0 to 3 with capacities 1, 2, 3, 4, ranks 1 and 2 are lost: 1 and 4 are left."""
    topology = Topology(
        num_nodes=2,
        num_ranks=4,
        num_slots=12,
        masked_ranks=(1, 2),
        rank_capacities=(1.0, 2.0, 3.0, 4.0),
    )

    assert topology.active_ranks == (0, 3)
    assert (topology.num_active_ranks, topology.num_active_slots) == (2, 6)
    assert topology.capacities == (1.0, 4.0)
    assert not topology.has_equal_capacities


def test_without_capacities_all_ranks_have_one() -> None:
    """None is 1 for each; any other number for all of them is as equal."""
    plain = Topology(num_nodes=1, num_ranks=2, num_slots=4)
    slow = dataclasses.replace(plain, rank_capacities=(0.5, 0.5))
    lost = dataclasses.replace(plain, masked_ranks=(1,), rank_capacities=(0.5, 1.0))

    assert plain.capacities == (1.0, 1.0)
    assert all(topology.has_equal_capacities for topology in (plain, slow, lost))


def test_lists_become_tuples() -> None:
    """So that a topology can be hashed, and not changed."""
    topology = Topology(
        num_nodes=1,
        num_ranks=2,
        num_slots=4,
        masked_ranks=cast("tuple[int, ...]", [1]),
        rank_capacities=cast("tuple[float, ...]", [1, 2]),
    )
    same = Topology(
        num_nodes=1, num_ranks=2, num_slots=4, masked_ranks=(1,), rank_capacities=(1.0, 2.0)
    )

    assert hash(topology) == hash(same)
    assert topology == same


@pytest.mark.parametrize(
    ("masked_ranks", "message"),
    [
        ((4,), "Expected masked ranks in [0, 3], got 4."),
        ((-1,), "Expected masked ranks in [0, 3], got -1."),
        ((1.0,), "Expected masked ranks in [0, 3], got 1.0."),
        ((2, 1), "Expected masked ranks to ascend, got 1 after 2."),
        ((1, 1), "Expected masked ranks to ascend, got 1 after 1."),
        ((0, 1, 2, 3), "Expected a rank that is not masked, got all 4 masked."),
    ],
)
def test_impossible_masks_are_refused(masked_ranks: tuple[int, ...], message: str) -> None:
    """Masked ranks exist, ascend, and leave one."""
    with pytest.raises(InvalidTopologyError) as caught:
        Topology(num_nodes=1, num_ranks=4, num_slots=4, masked_ranks=masked_ranks)

    assert (caught.value.field, str(caught.value)) == ("topology.masked_ranks", message)


@pytest.mark.parametrize(
    ("capacities", "message"),
    [
        ((1.0,), "Expected a capacity for each of 2 ranks, got 1."),
        ((), "Expected a capacity for each of 2 ranks, got 0."),
        ((1.0, 0.0), "Expected capacities in [1e-06, 1e+06], got 0.0 for rank 1."),
        ((-1.0, 1.0), "Expected capacities in [1e-06, 1e+06], got -1.0 for rank 0."),
        ((1.0, math.inf), "Expected capacities in [1e-06, 1e+06], got inf for rank 1."),
        ((math.nan, 1.0), "Expected capacities in [1e-06, 1e+06], got nan for rank 0."),
        ((1.0, "2"), "Expected capacities in [1e-06, 1e+06], got '2' for rank 1."),
    ],
)
def test_impossible_capacities_are_refused(capacities: tuple[float, ...], message: str) -> None:
    """There is one for every rank, a number far from zero and from infinity."""
    with pytest.raises(InvalidTopologyError) as caught:
        Topology(num_nodes=1, num_ranks=2, num_slots=2, rank_capacities=capacities)

    assert (caught.value.field, str(caught.value)) == ("topology.rank_capacities", message)
