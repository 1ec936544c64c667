"""Planning instances that are hard to get right: ties, zeros, extremes, odd shapes."""

from __future__ import annotations

from dataclasses import dataclass

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
) -> Instance:
    return Instance(
        load=ExpertLoad.from_weight(weight),
        topology=Topology(num_nodes=num_nodes, num_ranks=num_ranks, num_slots=num_slots),
        num_expert_groups=num_expert_groups,
        mode=mode,
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
    return _instance(
        torch.tensor(draw(st.lists(layer, min_size=num_layers, max_size=num_layers))),
        num_nodes=num_nodes,
        num_ranks=num_ranks,
        num_slots=num_slots,
        num_expert_groups=num_nodes * groups_per_node,
        mode=draw(st.sampled_from([Mode.HIERARCHICAL, Mode.GLOBAL])),
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
