from __future__ import annotations

import numpy as np
import pytest
import torch

from expertplane_planner import ExpertLoad, Mode, Plan, Topology, solve

from ...support import builders
from ...support.fixtures import fixtures_dir


GOLDEN = (
    "dsv3_ep72",
    "dsv3_global",
    "dsv3_hierarchical",
    "glm_domain_books",
    "glm_global_ep64",
    "kimi_like",
    "no_redundancy",
    "one_slot_per_gpu",
    "qwen3_like",
    "readme",
)


@pytest.mark.parametrize("case", GOLDEN)
def test_all_three_maps_equal_the_source_element_by_element(case: str) -> None:
    """On recorded and log-normal loads the maps are those of DeepSeek's EPLB."""
    golden = np.load(fixtures_dir() / "golden" / f"{case}.npz")

    placement = solve(
        ExpertLoad.from_weight(torch.from_numpy(golden["weight"])),
        Topology(
            num_nodes=int(golden["num_nodes"]),
            num_ranks=int(golden["num_gpus"]),
            num_slots=int(golden["num_replicas"]),
        ),
        num_expert_groups=int(golden["num_groups"]),
        mode=Mode.HIERARCHICAL,  # as in the source, whose global mode has one group on one node
    ).placement

    np.testing.assert_array_equal(golden["deepseek_phy2log"], placement.phy2log.numpy())
    np.testing.assert_array_equal(golden["deepseek_log2phy"], placement.log2phy().numpy())
    np.testing.assert_array_equal(golden["deepseek_logcnt"], placement.logcnt().numpy())


def test_the_example_of_the_readme_is_reproduced() -> None:
    """The published example gives the published map, in automatic mode."""
    plan = builders.plan()

    assert plan.placement.phy2log.tolist() == [list(layer) for layer in builders.README_PHY2LOG]
    assert plan.mode is Mode.HIERARCHICAL
    assert plan.balance.balancedness == pytest.approx(0.815574, abs=1e-6)


def _solve_global(num_nodes: int) -> Plan:
    topology = builders.topology(num_nodes=num_nodes, num_ranks=8, num_slots=16)
    return solve(builders.readme_load(), topology, num_expert_groups=4, mode=Mode.GLOBAL)


def test_global_mode_ignores_nodes_and_groups() -> None:
    """In global mode the map is the same on two nodes as on one, and unlike the hierarchical."""
    assert _solve_global(2).digest == _solve_global(1).digest
    assert _solve_global(2).digest != builders.plan().digest


def test_one_node_and_one_group_make_hierarchical_mode_global() -> None:
    """Where there is nothing to keep together, both modes are the same algorithm."""
    one_node = builders.topology(num_nodes=1, num_ranks=8, num_slots=16)
    hierarchical = solve(builders.readme_load(), one_node, mode=Mode.HIERARCHICAL)

    assert hierarchical.digest == _solve_global(1).digest


def test_a_global_plan_can_be_worked_out_by_hand() -> None:
    """Loads 6, 2, 1 in four slots of two ranks: a half of 6 to each, then 2, then 1."""
    plan = solve(builders.load((6, 2, 1)), builders.topology())

    assert plan.placement.phy2log.tolist() == [[0, 1, 0, 2]]
    assert plan.balance.balancedness == pytest.approx(4.5 / 5)


def test_samples_are_planned_by_their_sum() -> None:
    """Two samples give the plan of their total."""
    samples = torch.stack([builders.readme_load().samples[0]] * 2)
    samples[0, 0, 3] += 50
    samples[1, 0, 3] -= 50

    from_samples = solve(ExpertLoad(samples), builders.readme_topology(), num_expert_groups=4)

    assert from_samples.digest == builders.plan().digest
