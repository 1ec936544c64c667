"""Planning instances that are hard to get right: ties, zeros, extremes, odd shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from expertplane_planner import ExpertLoad, Mode, Topology


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Arguments of one solve."""

    load: ExpertLoad
    topology: Topology
    num_expert_groups: int = 1
    mode: Mode = Mode.GLOBAL
    spill: int = 0


def _weights(seed: int, num_layers: int, num_experts: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    skew = torch.randn(num_layers, num_experts, generator=generator).mul(1.2).exp()
    return (1000 * skew).to(torch.int64)


def _instance(
    weight: torch.Tensor,
    *,
    num_nodes: int = 1,
    num_ranks: int,
    num_slots: int,
    num_expert_groups: int = 1,
    mode: Mode = Mode.GLOBAL,
    spill: int = 0,
) -> Instance:
    return Instance(
        load=ExpertLoad.from_weight(weight),
        topology=Topology(num_nodes=num_nodes, num_ranks=num_ranks, num_slots=num_slots),
        num_expert_groups=num_expert_groups,
        mode=mode,
        spill=spill,
    )


def adversarial() -> dict[str, Instance]:
    """Return named instances, freshly made."""
    skewed = _weights(0, 3, 16)
    one_hot = torch.zeros(2, 8, dtype=torch.int64)
    one_hot[:, 5] = 1_000_000
    half_empty = skewed.clone()
    half_empty[1] = 0
    return {
        "skewed": _instance(skewed, num_ranks=4, num_slots=24),
        "no redundancy": _instance(skewed, num_ranks=4, num_slots=16),
        "three nodes of one group each": _instance(
            _weights(1, 2, 12),
            num_nodes=3,
            num_ranks=6,
            num_slots=18,
            num_expert_groups=3,
            mode=Mode.HIERARCHICAL,
        ),
        "two nodes of four groups": _instance(
            _weights(2, 3, 32),
            num_nodes=2,
            num_ranks=4,
            num_slots=40,
            num_expert_groups=8,
            mode=Mode.HIERARCHICAL,
        ),
        "hierarchical on one node": _instance(
            skewed, num_ranks=4, num_slots=20, num_expert_groups=4, mode=Mode.HIERARCHICAL
        ),
        "hierarchical ties": _instance(
            torch.full((2, 8), 7),
            num_nodes=2,
            num_ranks=4,
            num_slots=12,
            num_expert_groups=4,
            mode=Mode.HIERARCHICAL,
        ),
        "zero load": _instance(torch.zeros(2, 8, dtype=torch.int64), num_ranks=4, num_slots=12),
        "a layer without load": _instance(half_empty, num_ranks=4, num_slots=20),
        "all equal": _instance(torch.full((2, 8), 7), num_ranks=4, num_slots=12),
        "one hot expert": _instance(one_hot, num_ranks=4, num_slots=16),
        "one expert": _instance(torch.tensor([[5]]), num_ranks=4, num_slots=8),
        "one rank": _instance(skewed, num_ranks=1, num_slots=20),
        "one slot": _instance(torch.tensor([[3]]), num_ranks=1, num_slots=1),
        "one slot per rank": _instance(skewed, num_ranks=20, num_slots=20),
        "huge counts": _instance(skewed * 2**31, num_ranks=4, num_slots=20),
        "2^31 tokens a thousand times": _instance(
            torch.full((1, 6), 2**31 * 1000), num_ranks=3, num_slots=9
        ),
        "more slots per rank than experts": _instance(
            _weights(3, 2, 3), num_ranks=2, num_slots=14
        ),
        **_softly_hierarchical(),
    }


def _softly_hierarchical() -> dict[str, Instance]:
    by_node: dict[str, Any] = {"num_nodes": 2, "num_ranks": 4, "mode": Mode.SOFT_HIERARCHICAL}
    hot_node = _weights(4, 2, 8)
    hot_node[:, :4] *= 10
    return {
        "a node hands load over": _instance(
            hot_node, **by_node, num_slots=12, num_expert_groups=2, spill=3
        ),
        "soft without spill": _instance(hot_node, **by_node, num_slots=16, num_expert_groups=4),
        "soft ties": _instance(
            torch.full((2, 8), 7), **by_node, num_slots=12, num_expert_groups=4, spill=4
        ),
        "soft zero load": _instance(
            torch.zeros(2, 8, dtype=torch.int64),
            **by_node,
            num_slots=12,
            num_expert_groups=2,
            spill=2,
        ),
        "soft without redundancy": _instance(
            hot_node, **by_node, num_slots=8, num_expert_groups=2, spill=8
        ),
        "more spill than redundancy": _instance(
            hot_node, **by_node, num_slots=12, num_expert_groups=4, spill=12
        ),
        "soft on one node": _instance(
            hot_node, num_ranks=2, num_slots=12, mode=Mode.SOFT_HIERARCHICAL, spill=3
        ),
    }


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    """Draw any small valid instance, with many ties among its counts."""
    num_nodes = draw(st.integers(1, 3))
    groups_per_node = draw(st.integers(1, 3))
    num_experts = num_nodes * groups_per_node * draw(st.integers(1, 3))
    num_ranks = num_nodes * draw(st.integers(1, 3))
    fewest = -(-num_experts // num_ranks)
    num_slots = num_ranks * draw(st.integers(fewest, fewest + 3))
    num_layers = draw(st.integers(1, 3))
    count = st.one_of(st.integers(0, 3), st.integers(0, 10_000))
    layer = st.lists(count, min_size=num_experts, max_size=num_experts)
    mode = draw(st.sampled_from([Mode.HIERARCHICAL, Mode.GLOBAL, Mode.SOFT_HIERARCHICAL]))
    return _instance(
        torch.tensor(draw(st.lists(layer, min_size=num_layers, max_size=num_layers))),
        num_nodes=num_nodes,
        num_ranks=num_ranks,
        num_slots=num_slots,
        num_expert_groups=num_nodes * groups_per_node,
        mode=mode,
        spill=draw(st.integers(0, 5)) if mode is Mode.SOFT_HIERARCHICAL else 0,
    )


@st.composite
def rows(draw: st.DrawFn, *, multiple_of: int = 1) -> list[list[float]]:
    """Draw rows of weights for a stage, all equally long, a multiple of `multiple_of`."""
    num_items = multiple_of * draw(st.integers(1, max(1, 12 // multiple_of)))
    weight = st.one_of(
        st.integers(0, 3).map(float),
        st.integers(0, 2**24).map(float),
        st.floats(0, 2.0**80, width=32),
    )
    row = st.lists(weight, min_size=num_items, max_size=num_items)
    return draw(st.lists(row, min_size=1, max_size=3))


@st.composite
def kinds(draw: st.DrawFn, num_rows: int, num_items: int) -> list[list[int]]:
    """Draw what the items of each row are copies of, from all alike to all different."""
    kind = st.integers(0, draw(st.integers(0, num_items)))
    row = st.lists(kind, min_size=num_items, max_size=num_items)
    return draw(st.lists(row, min_size=num_rows, max_size=num_rows))


@st.composite
def packings(draw: st.DrawFn) -> tuple[list[list[float]], list[list[int]], int]:
    """Draw (weights, contents, num_packs) of rows, packed anyhow, all sums of weights exact."""
    num_packs, capacity = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    num_items, num_rows = num_packs * capacity, draw(st.integers(1, 3))
    weight = st.one_of(st.integers(0, 3), st.integers(0, 2000))
    row = st.lists(weight.map(float), min_size=num_items, max_size=num_items)
    contents = st.permutations(range(num_items))
    return (
        draw(st.lists(row, min_size=num_rows, max_size=num_rows)),
        draw(st.lists(contents, min_size=num_rows, max_size=num_rows)),
        num_packs,
    )
