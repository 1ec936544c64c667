from __future__ import annotations

import pytest
import torch

from expertplane_planner import ExpertLoad, Mode, Plan, solve

from ...support import builders


def test_the_example_of_the_readme_is_reproduced() -> None:
    """The published example gives the published map, in automatic mode."""
    plan = builders.plan()

    assert plan.placement.phy2log.tolist() == [list(layer) for layer in builders.README_PHY2LOG]
    assert plan.mode is Mode.HIERARCHICAL
    assert plan.balance.balancedness == pytest.approx(0.815574, abs=1e-6)


def _solve_global(num_nodes: int) -> Plan:
    topology = builders.topology(num_nodes=num_nodes, num_ranks=8, num_slots=16)
    return solve(
        builders.readme_load(),
        topology,
        num_expert_groups=4,
        mode=Mode.GLOBAL,
        policy="deepseek",
    )


def test_global_mode_ignores_nodes_and_groups() -> None:
    """In global mode the map is the same on two nodes as on one, and unlike the hierarchical."""
    assert _solve_global(2).digest == _solve_global(1).digest
    assert _solve_global(2).digest != builders.plan().digest


def test_one_node_and_one_group_make_hierarchical_mode_global() -> None:
    """Where there is nothing to keep together, both modes are the same algorithm."""
    one_node = builders.topology(num_nodes=1, num_ranks=8, num_slots=16)
    hierarchical = solve(
        builders.readme_load(), one_node, mode=Mode.HIERARCHICAL, policy="deepseek"
    )

    assert hierarchical.digest == _solve_global(1).digest


def test_a_global_plan_can_be_worked_out_by_hand() -> None:
    """Loads 6, 2, 1 in four slots of two ranks: a half of 6 to each, then 2, then 1."""
    plan = solve(builders.load((6, 2, 1)), builders.topology(), policy="deepseek")

    assert plan.placement.phy2log.tolist() == [[0, 1, 0, 2]]
    assert plan.balance.balancedness == pytest.approx(4.5 / 5)


def test_samples_are_planned_by_their_sum() -> None:
    """Two samples give the plan of their total."""
    samples = torch.stack([builders.readme_load().samples[0]] * 2)
    samples[0, 0, 3] += 50
    samples[1, 0, 3] -= 50

    from_samples = solve(
        ExpertLoad(samples), builders.readme_topology(), num_expert_groups=4, policy="deepseek"
    )

    assert from_samples.digest == builders.plan().digest
