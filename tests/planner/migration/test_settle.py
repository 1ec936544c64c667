"""Settling: packs stay on their ranks, and kept experts in their slots."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from expertplane_planner import InvalidPlacementError, Placement
from expertplane_planner.migration import relabel, settle
from expertplane_planner.model.masking import has_even_nodes

from ...support import builders, reference_migration as reference


def test_kept_experts_go_back_to_their_slots() -> None:
    """Old 0 1 2 | 3 4 5, new 2 3 0 | 5 1 4: 3 takes the slot of 1, and 1 that of 3."""
    old, new = (builders.placement(row) for row in ((0, 1, 2, 3, 4, 5), (2, 3, 0, 5, 1, 4)))

    assert settle(new, old).phy2log.tolist() == [[0, 3, 2, 1, 4, 5]]


def test_packs_stay_on_their_ranks() -> None:
    """Old 0 1 | 2 3, new 3 2 | 1 0: relabelling moves nothing, settling hands nothing over."""
    old, new = (builders.placement(row) for row in ((0, 1, 2, 3), (3, 2, 1, 0)))

    assert settle(new, old).phy2log.tolist() == [[2, 3, 0, 1]]
    assert relabel(new, old, by_node=False).digest() == old.digest()


@settings(deadline=None, max_examples=150)
@given(reference.pairs(max_ranks=8))
def test_what_every_settling_keeps_to(pair: tuple[Placement, Placement]) -> None:
    """Ranks hold what they held, no expert changes its slot inside a rank, and once is enough."""
    new, old = pair
    result = settle(new, old)

    for row, start in zip(result.phy2log.tolist(), new.phy2log.tolist(), strict=True):
        assert reference.contents(row, new.topology) == reference.contents(start, new.topology)
    changed = (result.phy2log != old.phy2log_on(new.topology)).sum(dim=1)
    assert torch.equal(changed, new.moved_slots(old))
    assert result.topology == new.topology
    assert settle(result, old).digest() == result.digest()


@settings(deadline=None, max_examples=60)
@given(reference.pairs(max_ranks=8))
def test_a_relabelled_placement_is_settled(pair: tuple[Placement, Placement]) -> None:
    """Relabelling leaves nothing to settle, by node or not."""
    new, old = pair

    for by_node in (False, True):
        if not by_node or has_even_nodes(new.topology):
            result = relabel(new, old, by_node=by_node)
            assert settle(result, old).digest() == result.digest()


def test_placements_of_different_things_are_refused() -> None:
    """Layers, experts, nodes, ranks and slots have to be the same."""
    with pytest.raises(InvalidPlacementError, match="incumbent to be a placement of") as caught:
        settle(builders.placement(), builders.placement(num_ranks=4))

    assert caught.value.field == "incumbent"
