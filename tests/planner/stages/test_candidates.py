from __future__ import annotations

import torch

from expertplane_planner.stages import Packing, keep_best, noisy_keys, pack_best_start


def _keys(weight: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
    keys = noisy_keys(weight, num_candidates=3, seed=seed, low=0.5, high=1.5)
    return keys.view(len(weight), 3, -1)


def test_the_first_candidate_is_without_noise() -> None:
    """Candidates of a row lie side by side, and the first of each is the row itself."""
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])

    assert torch.equal(_keys(weight)[:, 0], weight)


def test_noise_is_a_factor_within_bounds() -> None:
    """Every other candidate is the row times factors between low and high, all drawn apart."""
    factor = _keys(torch.full((4, 50), 8.0))[:, 1:] / 8.0

    assert factor.min() >= 0.5
    assert factor.max() <= 1.5
    assert factor.min() < 0.6
    assert factor.max() > 1.4
    assert len(set(factor.flatten().tolist())) > 390


def test_a_seed_means_the_same_noise_in_every_dtype() -> None:
    """One seed gives one noise, rounded to the type of the weight; another seed another."""
    weight = torch.ones(2, 5, dtype=torch.float64)

    assert torch.equal(_keys(weight), _keys(weight))
    assert torch.equal(_keys(weight), _keys(weight.float()).double())
    assert not torch.equal(_keys(weight), _keys(weight, seed=1))


def test_the_best_candidate_is_kept_the_first_of_equals() -> None:
    """Scores 2 1 1 | 5 7 6 keep candidates 1 and 0, pack and place of each."""
    packing = Packing(torch.arange(6).view(6, 1), torch.arange(10, 16).view(6, 1))

    best = keep_best(packing, torch.tensor([2.0, 1.0, 1.0, 5.0, 7.0, 6.0]), 3)

    assert (best.pack.tolist(), best.place.tolist()) == ([[1], [3]], [[11], [13]])


def test_the_start_of_the_best_score_is_kept() -> None:
    """Loads 4 3 2 1 make 5 | 5 in order, 6 | 4 as 2 3 4 1: the score decides which is best."""
    weight = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    keys = torch.tensor([[1.0, 2.0, 3.0, 0.0], [4.0, 3.0, 2.0, 1.0]])

    def even(load: torch.Tensor) -> torch.Tensor:
        return load.amax(dim=1)

    def uneven(load: torch.Tensor) -> torch.Tensor:
        return -load.amax(dim=1)

    def as_it_is(weight: torch.Tensor, packing: Packing, num_packs: int) -> Packing:
        assert weight.shape == packing.pack.shape == (2, 4)
        assert num_packs == 2
        return packing

    best, worst = (
        pack_best_start(weight, 2, keys=keys, refine=as_it_is, score=score)
        for score in (even, uneven)
    )

    assert best.pack.tolist() == [[0, 1, 1, 0]]
    assert worst.pack.tolist() == [[0, 1, 0, 1]]
