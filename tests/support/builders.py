"""Small valid objects; every argument has a default that makes the rest fit."""

from __future__ import annotations

import torch

from expertplane_planner import ExpertLoad, Mode, Placement, Plan, Topology, solve


# The example in the README of DeepSeek's EPLB: 2 layers of 12 experts, 16 slots, 4 expert groups.
README_WEIGHT = (
    (90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86),
    (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27),
)
README_PHY2LOG = (
    (5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1),
    (7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1),
)
README_NUM_EXPERT_GROUPS = 4


def topology(*, num_nodes: int = 1, num_ranks: int = 2, num_slots: int = 4) -> Topology:
    """Return a topology, two ranks of two slots by default."""
    return Topology(num_nodes=num_nodes, num_ranks=num_ranks, num_slots=num_slots)


def load(*layers: tuple[int, ...]) -> ExpertLoad:
    """Return a load of one sample, one tuple of token counts per layer."""
    return ExpertLoad.from_weight(torch.tensor(layers or ((4, 3, 2, 1),)))


def placement(*layers: tuple[int, ...], num_ranks: int = 2, num_nodes: int = 1) -> Placement:
    """Return a placement, one tuple of experts per layer."""
    phy2log = torch.tensor(layers or ((0, 1, 2, 3),))
    where = topology(num_nodes=num_nodes, num_ranks=num_ranks, num_slots=phy2log.shape[1])
    return Placement(phy2log, int(phy2log.max()) + 1, where)


def readme_load() -> ExpertLoad:
    """Return the load of DeepSeek's README example."""
    return load(*README_WEIGHT)


def readme_topology() -> Topology:
    """Return the topology of DeepSeek's README example."""
    return topology(num_nodes=2, num_ranks=8, num_slots=16)


def plan(*, mode: Mode = Mode.AUTO, seed: int = 0) -> Plan:
    """Return a solved plan for the README example."""
    return solve(
        readme_load(),
        readme_topology(),
        num_expert_groups=README_NUM_EXPERT_GROUPS,
        mode=mode,
        policy="deepseek",
        seed=seed,
    )
