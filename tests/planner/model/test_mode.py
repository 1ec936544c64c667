from __future__ import annotations

from typing import cast

import pytest

from expertplane_planner import InvalidInputError, Mode, Topology
from expertplane_planner.model import resolve_mode

from ...support import builders


TWO_NODES = builders.topology(num_nodes=2, num_ranks=4, num_slots=16)
ONE_NODE = builders.topology(num_nodes=1, num_ranks=4, num_slots=16)


def test_auto_is_hierarchical_when_groups_fit_nodes() -> None:
    """Four expert groups on two nodes are planned group by group."""
    assert resolve_mode(Mode.AUTO, TWO_NODES, 12, 4) is Mode.HIERARCHICAL


@pytest.mark.parametrize(
    ("num_experts", "num_expert_groups"),
    [
        pytest.param(12, 1, id="no groups"),
        pytest.param(12, 3, id="groups do not divide over nodes"),
        pytest.param(10, 4, id="experts do not divide into groups"),
    ],
)
def test_auto_is_global_when_groups_do_not_fit(num_experts: int, num_expert_groups: int) -> None:
    """On two nodes, groups that do not divide evenly are ignored."""
    assert resolve_mode(Mode.AUTO, TWO_NODES, num_experts, num_expert_groups) is Mode.GLOBAL


def test_auto_is_global_on_one_node() -> None:
    """With one node there is no boundary that groups could keep to."""
    assert resolve_mode(Mode.AUTO, ONE_NODE, 12, 4) is Mode.GLOBAL


def test_an_explicit_mode_is_kept() -> None:
    """Global on two nodes and hierarchical on one are what the caller asked for."""
    assert resolve_mode(Mode.GLOBAL, TWO_NODES, 12, 4) is Mode.GLOBAL
    assert resolve_mode(Mode.HIERARCHICAL, ONE_NODE, 12, 4) is Mode.HIERARCHICAL


def test_soft_hierarchical_has_to_be_asked_for() -> None:
    """Automatic mode never spills; asked for, soft-hierarchical mode is kept, on one node too."""
    assert resolve_mode(Mode.SOFT_HIERARCHICAL, TWO_NODES, 12, 4) is Mode.SOFT_HIERARCHICAL
    assert resolve_mode(Mode.SOFT_HIERARCHICAL, ONE_NODE, 12, 4) is Mode.SOFT_HIERARCHICAL


def test_in_both_hierarchical_modes_groups_have_a_node() -> None:
    """Global mode knows no homes, and automatic mode is none of them."""
    assert [mode for mode in Mode if mode.is_by_node] == [
        Mode.HIERARCHICAL,
        Mode.SOFT_HIERARCHICAL,
    ]


def _four_nodes(*masked_ranks: int) -> Topology:
    return Topology(num_nodes=4, num_ranks=8, num_slots=16, masked_ranks=masked_ranks)


def test_nodes_that_keep_equally_many_ranks_are_still_nodes() -> None:
    """One rank of each node is lost, or one node of four: groups still divide over the rest."""
    assert resolve_mode(Mode.AUTO, _four_nodes(0, 3, 5, 6), 16, 4) is Mode.HIERARCHICAL
    assert resolve_mode(Mode.AUTO, _four_nodes(2, 3), 12, 3) is Mode.HIERARCHICAL
    assert resolve_mode(Mode.AUTO, _four_nodes(2, 3), 16, 4) is Mode.GLOBAL


def test_nodes_of_different_sizes_are_planned_as_one() -> None:
    """One rank of eight is lost: automatically global, and not by node on demand."""
    topology = _four_nodes(5)

    assert resolve_mode(Mode.AUTO, topology, 16, 4) is Mode.GLOBAL
    assert resolve_mode(Mode.GLOBAL, topology, 16, 4) is Mode.GLOBAL
    for mode in (Mode.HIERARCHICAL, Mode.SOFT_HIERARCHICAL):
        with pytest.raises(InvalidInputError) as caught:
            resolve_mode(mode, topology, 16, 4)
        assert caught.value.field == "topology.masked_ranks"
        assert str(caught.value) == (
            f"Expected nodes to keep equally many active ranks in {mode} mode, "
            "got masked ranks [5] of 8 on 4 nodes."
        )


def test_the_name_of_a_mode_will_do() -> None:
    """The string 'hierarchical' means the member of that name."""
    assert resolve_mode(cast("Mode", "hierarchical"), ONE_NODE, 12, 4) is Mode.HIERARCHICAL


@pytest.mark.parametrize(
    ("mode", "num_experts", "num_expert_groups", "field", "message"),
    [
        pytest.param(
            "hierarchical", 12, 3, "num_expert_groups",
            "Expected num_expert_groups to be a multiple of num_nodes in hierarchical mode, "
            "got 3 and 2.",
            id="groups over nodes",
        ),
        pytest.param(
            "hierarchical", 10, 4, "num_expert_groups",
            "Expected num_logical_experts to be a multiple of num_expert_groups in hierarchical "
            "mode, got 10 and 4.",
            id="experts over groups",
        ),
        pytest.param(
            "soft-hierarchical", 12, 3, "num_expert_groups",
            "Expected num_expert_groups to be a multiple of num_nodes in soft-hierarchical mode, "
            "got 3 and 2.",
            id="groups over nodes, softly",
        ),
        pytest.param(
            "auto", 12, 0, "num_expert_groups",
            "Expected num_expert_groups to be positive, got 0.",
            id="no group at all",
        ),
        pytest.param(
            "soft", 12, 4, "mode",
            "Expected mode to be one of auto, hierarchical, global, soft-hierarchical, "
            "got 'soft'.",
            id="unknown",
        ),
    ],
)  # fmt: skip
def test_an_impossible_mode_is_refused(
    mode: str, num_experts: int, num_expert_groups: int, field: str, message: str
) -> None:
    """An explicit mode that cannot be kept is refused with the rule it breaks."""
    with pytest.raises(InvalidInputError) as caught:
        resolve_mode(cast("Mode", mode), TWO_NODES, num_experts, num_expert_groups)

    assert str(caught.value) == message
    assert caught.value.field == field
