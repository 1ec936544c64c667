from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import (
    InvalidInputError,
    InvalidPlacementError,
    Placement,
    Topology,
    foreign_replicas,
    home_nodes,
)

from ...support import builders


def _on_two_nodes(*layers: tuple[int, ...]) -> Placement:
    return builders.placement(*layers, num_ranks=2, num_nodes=2)


def test_the_home_of_a_group_has_all_its_experts() -> None:
    """0 1 2 | 0 2 3: groups {0, 1} and {2, 3} live where they are whole; two replicas are away."""
    placement = _on_two_nodes((0, 1, 2, 0, 2, 3), (2, 3, 3, 0, 0, 1))

    assert home_nodes(placement, 2).tolist() == [[0, 1], [1, 0]]
    assert foreign_replicas(placement, 2).tolist() == [2, 0]


def test_of_several_nodes_most_replicas_make_the_home_then_the_lowest_index() -> None:
    """Group {0, 1} is whole on both nodes: 0 1 2 3 | 0 1 1 1 live on the second, equals first."""
    more, equal = _on_two_nodes((0, 1, 2, 3, 0, 1, 1, 1)), _on_two_nodes((0, 1, 2, 3, 0, 1, 2, 3))

    assert home_nodes(more, 2).tolist() == [[1, 0]]
    assert foreign_replicas(more, 2).tolist() == [2]
    assert home_nodes(equal, 2).tolist() == [[0, 0]]
    assert foreign_replicas(equal, 2).tolist() == [4]


def test_masked_slots_are_nobodys_and_a_lost_node_is_no_home() -> None:
    """0 1 - - || - - - - || 0 2 3 2: group {2, 3} lives on node 2, and a 0 is away."""
    topology = Topology(num_nodes=3, num_ranks=6, num_slots=12, masked_ranks=(1, 2, 3))
    phy2log = torch.tensor([[0, 1, -1, -1, -1, -1, -1, -1, 0, 2, 3, 2]])
    placement = Placement(phy2log, 4, topology)

    assert home_nodes(placement, 2).tolist() == [[0, 2]]
    assert foreign_replicas(placement, 2).tolist() == [1]


def test_one_group_may_live_on_one_node_only() -> None:
    """Without expert groups everything belongs together."""
    assert foreign_replicas(_on_two_nodes((0, 1, 2, 0, 1, 0)), 1).tolist() == [3]


def test_a_group_without_a_home_is_named() -> None:
    """0 2 | 1 3 splits both groups; the first layer is fine."""
    with pytest.raises(InvalidPlacementError) as caught:
        home_nodes(_on_two_nodes((0, 1, 2, 3), (0, 2, 1, 3)), 2)

    assert str(caught.value) == (
        "Expected a node with a replica of every expert of each group, "
        "got none for expert group 0 in layer 1."
    )
    assert caught.value.field == "placement.phy2log"


@pytest.mark.parametrize("num_expert_groups", [0, 3])
def test_groups_must_divide_the_experts(num_expert_groups: int) -> None:
    """Four experts make neither no group nor three."""
    with pytest.raises(InvalidInputError, match=f"got 4 and {num_expert_groups}") as caught:
        foreign_replicas(_on_two_nodes((0, 1, 2, 3)), num_expert_groups)

    assert caught.value.field == "num_expert_groups"


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_homes_equal_a_count_slot_by_slot(
    data: st.DataObject, num_nodes: int, groups_per_node: int, group_size: int
) -> None:
    """On any map with all groups at home and some replicas anywhere, both counts agree."""
    num_groups = num_nodes * groups_per_node
    extra = data.draw(st.integers(0, 4))
    slots_per_node = groups_per_node * group_size + extra
    experts = st.integers(0, num_groups * group_size - 1)
    phy2log: list[int] = []
    for node in range(num_nodes):
        first = node * groups_per_node * group_size
        anything = data.draw(st.lists(experts, min_size=extra, max_size=extra))
        phy2log += [*range(first, first + groups_per_node * group_size), *anything]
    topology = Topology(num_nodes=num_nodes, num_ranks=num_nodes, num_slots=len(phy2log))
    placement = Placement(torch.tensor([phy2log]), num_groups * group_size, topology)

    homes = []
    for group in range(num_groups):
        counts = []
        for node in range(num_nodes):
            here = phy2log[node * slots_per_node : (node + 1) * slots_per_node]
            members = [here.count(group * group_size + member) for member in range(group_size)]
            counts.append(sum(members) if all(members) else 0)
        homes.append((counts.index(max(counts)), max(counts)))

    assert home_nodes(placement, num_groups).tolist() == [[home for home, _ in homes]]
    at_home = sum(count for _, count in homes)
    assert foreign_replicas(placement, num_groups).tolist() == [len(phy2log) - at_home]
