"""Balancedness as the commands show it."""

from __future__ import annotations

import numpy as np

from expertplane_client.balance import balance, initial_phy2log


def test_a_hand_computed_balance() -> None:
    """Expert 0 has two replicas of 2 tokens each: ranks carry 5 and 4, then 2 and 9."""
    weight = np.array([[4, 3, 2], [4, 0, 7]])
    found = balance(weight, np.array([[0, 1, 0, 2], [0, 1, 0, 2]], dtype=np.int32), 2)

    assert found.per_layer == (4.5 / 5, 5.5 / 9)
    assert found.balancedness == (4.5 + 5.5) / (5 + 9)
    assert (found.minimum, found.mean) == (5.5 / 9, (4.5 / 5 + 5.5 / 9) / 2)


def test_samples_are_judged_step_by_step() -> None:
    """Two opposite samples that cancel out in their sum are as bad as each of them."""
    samples = np.array([[[3, 1]], [[1, 3]]])
    found = balance(samples, initial_phy2log(1, 2, 2), 2)

    assert found.balancedness == (2 + 2) / (3 + 3)
    assert balance(samples.sum(axis=0), initial_phy2log(1, 2, 2), 2).balancedness == 1.0


def test_a_layer_without_load_is_perfect() -> None:
    """Nothing to carry is carried evenly, and does not weigh on the rest."""
    found = balance(np.array([[0, 0], [1, 1]]), initial_phy2log(2, 2, 4), 2)

    assert (found.balancedness, found.per_layer) == (1.0, (1.0, 1.0))
    assert balance(np.zeros((1, 2)), initial_phy2log(1, 2, 2), 2).balancedness == 1.0


def test_masked_ranks_carry_nothing_and_capacities_count() -> None:
    """0 1 | - - | 0 2 under 8, 2, 4: 6 tokens on rank 0, 8 on rank 2, which is half as fast."""
    phy2log = np.array([[0, 1, -1, -1, 0, 2]])
    found = balance(np.array([[8, 2, 4]]), phy2log, 3, rank_capacities=(1.0, 1.0, 0.5))

    assert balance(np.array([[8, 2, 4]]), phy2log, 3).balancedness == 7 / 8
    assert found.balancedness == 11 / 16


def test_the_start_placement_leaves_masked_ranks_out() -> None:
    """Experts go on in the next rank that is there."""
    found = initial_phy2log(2, 3, 6, num_ranks=3, masked_ranks=(1,))

    np.testing.assert_array_equal([[0, 1, -1, -1, 2, 0]] * 2, found)


def test_the_start_placement_goes_round() -> None:
    """Slot p holds expert p mod the number of experts, in every layer."""
    np.testing.assert_array_equal([[0, 1, 2, 0, 1]] * 2, initial_phy2log(2, 3, 5))
