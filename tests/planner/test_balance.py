from __future__ import annotations

import pytest
import torch

from expertplane_planner import (
    ExpertLoad,
    InvalidLoadError,
    Placement,
    Topology,
    balancedness,
    layer_balancedness,
    rank_load,
    report,
)

from ..support import builders, instances, reference


def test_a_replica_carries_its_share() -> None:
    """Slots (0, 1 | 0, 2) under load 8, 2, 4: ranks carry 4 + 2 and 4 + 4."""
    placement = builders.placement((0, 1, 0, 2))

    assert rank_load(placement, torch.tensor([[8, 2, 4]])).tolist() == [[6.0, 8.0]]


def test_two_replicas_on_one_rank_count_twice() -> None:
    """Slots (0, 0 | 1, 2) under load 8, 2, 4: rank 0 carries all of expert 0."""
    placement = builders.placement((0, 0, 1, 2))

    assert rank_load(placement, torch.tensor([[8, 2, 4]])).tolist() == [[8.0, 6.0]]


def test_masked_ranks_have_no_load_and_the_load_of_a_slow_rank_counts_more() -> None:
    """Slots (0, 1 | - - | 0, 2) under load 8, 2, 4: 6 tokens, and 8 on a rank half as fast."""
    topology = Topology(
        num_nodes=1,
        num_ranks=3,
        num_slots=6,
        masked_ranks=(1,),
        rank_capacities=(1.0, 1.0, 0.5),
    )
    placement = Placement(torch.tensor([[0, 1, -1, -1, 0, 2]]), 3, topology)
    load = torch.tensor([[8, 2, 4]])

    assert rank_load(placement, load).tolist() == [[6.0, 16.0]]
    assert report(placement, load).balancedness == 11 / 16


def test_rank_load_keeps_samples_apart() -> None:
    """Samples [K, L, E] give [K, L, R], each as if it were alone."""
    placement = builders.placement((0, 1, 0, 2), (2, 2, 1, 0))
    samples = torch.arange(18).reshape(3, 2, 3)

    together = rank_load(placement, samples)

    assert torch.equal(torch.stack([rank_load(placement, sample) for sample in samples]), together)


@pytest.mark.parametrize("name", sorted(instances.adversarial()))
def test_rank_load_agrees_with_the_obvious_sum(name: str) -> None:
    """Adding up slot by slot in plain Python gives the same rank loads."""
    instance = instances.adversarial()[name]
    topology, total = instance.topology, instance.load.total()
    placement = Placement.initial(
        instance.load.num_layers, instance.load.num_logical_experts, topology
    )

    expected = [
        reference.rank_load(phy2log, weight, topology.num_ranks)
        for phy2log, weight in zip(placement.phy2log.tolist(), total.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        torch.tensor(expected, dtype=torch.float64), rank_load(placement, total)
    )


def test_balancedness_is_a_ratio_of_sums() -> None:
    """Ranks (6, 8) and (10, 20) have means 7 + 15 over maxima 8 + 20."""
    tokens = torch.tensor([[6.0, 8.0], [10.0, 20.0]])

    assert float(balancedness(tokens)) == pytest.approx(22 / 28)
    assert layer_balancedness(tokens).tolist() == pytest.approx([7 / 8, 15 / 20])


def test_layers_without_load_count_one_and_stay_out_of_the_sums() -> None:
    """An empty layer has balancedness 1.0 and does not change that of the plan."""
    placement = builders.placement((0, 1, 0, 2), (0, 1, 0, 2))

    score = report(placement, builders.load((8, 2, 4), (0, 0, 0)))

    assert score.balancedness == pytest.approx(7 / 8)
    assert score.per_layer == pytest.approx((7 / 8, 1.0))
    assert score.mean == pytest.approx(15 / 16)
    assert score.minimum == pytest.approx(7 / 8)


def test_no_load_at_all_is_perfectly_balanced() -> None:
    """With no load in any layer every number of the report is 1.0."""
    score = report(builders.placement((0, 1, 0, 2)), builders.load((0, 0, 0)))

    assert (
        score.balancedness, score.per_layer, score.mean, score.minimum
    ) == (1.0, (1.0,), 1.0, 1.0)  # fmt: skip


def test_equal_ranks_are_never_better_than_perfect() -> None:
    """Rounding in the mean of equal loads does not lift balancedness above 1."""
    tokens = torch.full((1, 3), 0.1, dtype=torch.float64)
    assert float(tokens.mean()) > 0.1  # 0.30000000000000004 / 3

    assert float(balancedness(tokens)) == 1.0
    assert layer_balancedness(tokens).tolist() == [1.0]


def test_a_report_scores_the_sum_of_samples() -> None:
    """Samples that are skewed in opposite directions balance out in the sum."""
    placement = builders.placement((0, 1), num_ranks=2)
    load = ExpertLoad(torch.tensor([[[9, 1]], [[1, 9]]]))

    assert report(placement, load).balancedness == pytest.approx(1.0)
    assert balancedness(rank_load(placement, load.samples)).tolist() == pytest.approx([5 / 9] * 2)


@pytest.mark.parametrize("shape", [(1, 4), (2, 3), (3,)])
def test_a_load_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """A load must have the layers and experts of the placement."""
    with pytest.raises(InvalidLoadError, match=r"Expected load of shape \[\.\.\., 1, 3\]"):
        rank_load(builders.placement((0, 1, 0, 2)), torch.ones(shape))


def test_a_report_wants_a_load_or_a_matrix() -> None:
    """A bare tensor of samples is refused: nothing says how to fold them."""
    with pytest.raises(InvalidLoadError, match=r"got \[2, 1, 3\]\.$"):
        report(builders.placement((0, 1, 0, 2)), torch.ones(2, 1, 3))
