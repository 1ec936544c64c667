"""What engines accept."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from expertplane_planner import (
    EngineRules,
    InvalidInputError,
    InvalidPlacementError,
    Placement,
    Topology,
)

from ...support import builders


def test_without_rules_everything_goes() -> None:
    """Three replicas on one rank are accepted."""
    EngineRules().check(builders.placement((0, 0, 0, 1)))


def test_duplicates_are_found_in_the_first_layer_that_has_some() -> None:
    """0 1 | 0 1, then 0 0 | 0 1: one slot in layer 1."""
    placement = builders.placement((0, 1, 0, 1), (0, 0, 0, 1))

    with pytest.raises(InvalidPlacementError, match="got 1 such slots in layer 1"):
        EngineRules(forbid_duplicates=True).check(placement)
    EngineRules(forbid_duplicates=True).check(builders.placement((0, 1, 0, 1)))


def test_replicas_are_counted() -> None:
    """0 1 | 0 2 with one replica at most: expert 0 has two."""
    placement = builders.placement((0, 1, 0, 2))

    with pytest.raises(InvalidPlacementError, match="got 2 of expert 0 in layer 0"):
        EngineRules(max_replicas_per_expert=1).check(placement)
    EngineRules(max_replicas_per_expert=2).check(placement)


def test_masked_ranks_hold_no_duplicates() -> None:
    """0 1 | - - | 0 1: what holds nothing breaks no rule."""
    topology = Topology(num_nodes=1, num_ranks=3, num_slots=6, masked_ranks=(1,))
    placement = Placement(torch.tensor([[0, 1, -1, -1, 0, 1]]), 2, topology)

    EngineRules(forbid_duplicates=True, max_replicas_per_expert=2).check(placement)


@pytest.mark.parametrize("most", [0, -1])
def test_at_least_one_replica(most: int) -> None:
    """No replica at all is no placement."""
    with pytest.raises(InvalidInputError) as caught:
        EngineRules(max_replicas_per_expert=most)

    assert caught.value.field == "rules.max_replicas_per_expert"


@pytest.mark.parametrize("most", [1.5, float("nan")])
def test_replicas_are_a_whole_number(most: Any) -> None:
    """What is no whole number is refused by name."""
    with pytest.raises(InvalidInputError) as caught:
        EngineRules(max_replicas_per_expert=most)

    assert caught.value.field == "rules.max_replicas_per_expert"
