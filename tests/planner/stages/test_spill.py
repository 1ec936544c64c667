"""Spill moves what the slow, obvious search moves, and never makes the hottest node hotter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner.stages import max_copies, spill_replicas

from ...support import reference_spill as reference


if TYPE_CHECKING:
    from ...support.reference_spill import Counts


TOKENS = 2520.0  # divides evenly by up to ten replicas, so that no share is rounded


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[list[float]], list[list[int]], dict[str, int]]:
    """Draw (weights, homes, arguments) of one or two layers, up to ten replicas an expert."""
    num_nodes, experts_per_node = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    slots_per_node = experts_per_node + draw(st.integers(0, 6))
    ranks_per_node = draw(st.integers(1, 5))
    num_experts = num_nodes * experts_per_node
    weight = st.one_of(st.integers(0, 3), st.integers(0, 999)).map(lambda count: count * TOKENS)
    layers = draw(st.integers(1, 2))
    rows = st.lists(weight, min_size=num_experts, max_size=num_experts)
    homes = st.permutations([e % num_nodes for e in range(num_experts)])
    return (
        draw(st.lists(rows, min_size=layers, max_size=layers)),
        draw(st.lists(homes, min_size=layers, max_size=layers)),
        {
            "num_nodes": num_nodes,
            "num_slots": slots_per_node * num_nodes,
            "max_copies": max_copies(experts_per_node, slots_per_node, ranks_per_node),
        },
    )


def _spilled(
    weight: list[list[float]], home: list[list[int]], spill: int, **arguments: Any
) -> list[Counts]:
    """Return the replicas of each expert on each node, layer by layer."""
    held, load = spill_replicas(
        torch.tensor(weight, dtype=torch.float64),
        torch.tensor(home),
        spill=spill,
        **arguments,
    )
    assert held.shape == load.shape
    assert (held.diff(dim=2) >= 0).all()
    layers = []
    for nodes, loads, tokens in zip(held.tolist(), load.tolist(), weight, strict=True):
        counts = [[node.count(expert) for node in nodes] for expert in range(len(tokens))]
        for node, shares in zip(nodes, loads, strict=True):
            assert shares == [tokens[expert] / sum(counts[expert]) for expert in node]
        layers.append(counts)
    return layers


def test_the_hot_node_sends_a_replica_to_the_cold_one() -> None:
    """Loads 8 4 | 2 1 in three slots a node: a half of 8 goes, for the second replica of the 2.

    The free slot on the hot node goes to the 4: 4 2 2 | 4 2 1, seven against eight.
    """
    (before,) = _spilled([[8.0, 4.0, 2.0, 1.0]], [[0, 0, 1, 1]], 0, **_two_nodes(6))
    (after,) = _spilled([[8.0, 4.0, 2.0, 1.0]], [[0, 0, 1, 1]], 1, **_two_nodes(6))

    assert before == [[2, 0], [1, 0], [0, 2], [0, 1]]
    assert after == [[1, 1], [2, 0], [0, 1], [0, 1]]


def _two_nodes(num_slots: int) -> dict[str, int]:
    return {"num_nodes": 2, "num_slots": num_slots, "max_copies": 2}


def test_without_a_gain_nothing_is_sent() -> None:
    """Loads 3 1 | 2 2: a half of 3 would leave 2.5 and 5.5."""
    weight, home = [[3.0, 1.0, 2.0, 2.0]], [[0, 0, 1, 1]]
    before = _spilled(weight, home, 0, **_two_nodes(6))

    assert _spilled(weight, home, 4, **_two_nodes(6)) == before


def test_without_redundancy_nothing_is_sent() -> None:
    """Where every slot holds the only replica of its expert, none can give way."""
    weight, home = [[9.0, 9.0, 1.0, 1.0]], [[0, 0, 1, 1]]

    assert _spilled(weight, home, 4, **_two_nodes(4)) == [[[1, 0], [1, 0], [0, 1], [0, 1]]]


def test_an_expert_with_foreign_replicas_does_not_draw_its_tokens_back() -> None:
    """Loads 110 4 | 306 3 in four slots a node: a third step once made the hottest node hotter.

    It dropped a replica at home of an expert that had a foreign one, whose share thereby rose.
    """
    weight, home = [[3.0, 4.0, 110.0, 306.0]], [[1, 0, 0, 1]]
    peaks = []
    for spill in range(5):
        (counts,) = _spilled(weight, home, spill, **_two_nodes(8))
        peaks.append(max(reference.node_load(weight[0], counts)))

    assert peaks == sorted(peaks, reverse=True)


@settings(deadline=None, max_examples=100)
@given(_cases(), st.integers(0, 5))
def test_all_layers_at_once_equal_one_step_at_a_time(
    case: tuple[list[list[float]], list[list[int]], dict[str, int]], spill: int
) -> None:
    """The batched stage gives exactly what trying every step on a copy gives for each layer."""
    weight, home, arguments = case

    assert _spilled(weight, home, spill, **arguments) == [
        reference.spill_replicas(tokens, nodes, spill=spill, **arguments)
        for tokens, nodes in zip(weight, home, strict=True)
    ]


@settings(deadline=None, max_examples=60)
@given(_cases())
def test_what_every_spill_keeps_to(
    case: tuple[list[list[float]], list[list[int]], dict[str, int]],
) -> None:
    """At most N foreign replicas, one at home, no pile on a node, and no hotter hottest node."""
    weight, home, arguments = case
    peak = [float("inf")] * len(weight)
    for spill in range(6):
        layers = _spilled(weight, home, spill, **arguments)
        for layer, counts in enumerate(layers):
            assert reference.num_foreign(counts, home[layer]) <= spill
            assert all(row[n] >= 1 for row, n in zip(counts, home[layer], strict=True))
            assert max(max(row) for row in counts) <= arguments["max_copies"]
            highest = max(reference.node_load(weight[layer], counts))
            assert highest <= peak[layer] * (1 + 1e-12)
            peak[layer] = highest


def test_the_input_is_not_mutated() -> None:
    """Weights and homes are the same after as before."""
    weight, home = torch.tensor([[8.0, 4.0, 2.0, 1.0]]), torch.tensor([[0, 0, 1, 1]])

    spill_replicas(weight, home, spill=2, **_two_nodes(6))

    assert (weight.tolist(), home.tolist()) == ([[8.0, 4.0, 2.0, 1.0]], [[0, 0, 1, 1]])
