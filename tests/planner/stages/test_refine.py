"""Searches make the swaps that trying every pair in turn finds, and never make things worse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner.stages import (
    Packing,
    pack_lpt,
    refine_gap,
    refine_half_gap,
    refine_peak,
    refine_squares,
)

from ...support import instances, reference_refine as reference


if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ...support.reference_refine import Packs


Refine = Any  # the four searches differ in their keywords

# What one step of each search does to one row, tried out swap by swap.
FIRST_OF_EQUALS: dict[Refine, Callable[..., Any]] = {
    refine_squares: reference.squares_swap,
    refine_gap: reference.gap_swap,
    refine_peak: reference.peak_swap,
}
SEARCHES: dict[Refine, dict[str, int]] = {
    refine_half_gap: {"num_heaviest": 3},
    refine_squares: {},
    refine_gap: {},
    refine_peak: {},
}
every_search = pytest.mark.parametrize("refine", SEARCHES, ids=lambda refine: refine.__name__)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
small = settings(deadline=None, max_examples=60)


def _packs(packing: Packing, num_packs: int) -> list[Packs]:
    contents = packing.contents(num_packs)
    packs: list[Packs] = contents.view(len(contents), num_packs, -1).tolist()
    return packs


def _refined(
    refine: Refine, weight: Tensor, packs: list[Packs], num_steps: int, **extra: int
) -> list[Packs]:
    """Return the packs after some steps of a search."""
    num_packs = len(packs[0])
    start = Packing.from_contents(torch.tensor(packs).flatten(1), num_packs)
    extra = extra or SEARCHES[refine]
    return _packs(refine(weight, start, num_packs, num_steps=num_steps, **extra), num_packs)


def _scalars(weight: Tensor) -> list[list[Any]]:
    """Return the weights as numbers that round like the tensor's."""
    return [list(row) for row in weight.numpy()]


def _sets(packs: Packs) -> list[list[int]]:
    return [sorted(pack) for pack in packs]


def _loads(weight: Tensor, packs: Packs) -> list[float]:
    return [float(load) for load in reference.loads(weight[0].tolist(), packs)]


def test_half_gap_helps_the_lightest_pack_that_a_swap_can_help() -> None:
    """Loads 10 1 | 6 0 | 1 2, gaps 5 and 8: with the lightest a difference is 0 or too large.

    With the other one 10 for 6 is not, and neither is 1 for 0: it gets 10 | 7 or 7 | 10.
    """
    weight = torch.tensor([[10.0, 1.0, 6.0, 0.0, 1.0, 2.0]])

    (packs,) = _refined(refine_half_gap, weight, [[[0, 1], [2, 3], [4, 5]]], 1, num_heaviest=1)

    assert _loads(weight, packs) in ([10.0, 7.0, 3.0], [7.0, 10.0, 3.0])


def test_half_gap_takes_the_difference_nearest_to_half() -> None:
    """Loads 8 7 6 | 5 3 1, gap 12: 7 for 1 and nothing else makes a difference of 6."""
    weight = torch.tensor([[8.0, 7.0, 6.0, 5.0, 3.0, 1.0]])

    (packs,) = _refined(refine_half_gap, weight, [[[0, 1, 2], [3, 4, 5]]], 1)

    assert _sets(packs) == [[0, 2, 5], [1, 3, 4]]


def test_half_gap_relieves_the_second_heaviest_where_the_heaviest_is_stuck() -> None:
    """Loads 9 1 | 5 3 | 3 1: no 9 fits anywhere, but 5 for 3 or 3 for 1 evens the others out."""
    weight = torch.tensor([[9.0, 1.0, 5.0, 3.0, 3.0, 1.0]])
    start = [[[0, 1], [2, 3], [4, 5]]]

    (stuck,) = _refined(refine_half_gap, weight, start, 1, num_heaviest=1)
    (relieved,) = _refined(refine_half_gap, weight, start, 1, num_heaviest=2)

    assert _loads(weight, stuck) == [10.0, 8.0, 4.0]
    assert _loads(weight, relieved) == [10.0, 6.0, 6.0]


def test_squares_and_gap_swap_heaviest_and_lightest() -> None:
    """Loads 8 7 6 | 4 4 4 | 5 3 1, gap 12: both searches give 7 for 1."""
    weight = torch.tensor([[8.0, 7.0, 6.0, 4.0, 4.0, 4.0, 5.0, 3.0, 1.0]])
    start = [[[0, 1, 2], [3, 4, 5], [6, 7, 8]]]

    for refine in (refine_squares, refine_gap):
        assert _refined(refine, weight, start, 1) == [[[0, 8, 2], [3, 4, 5], [6, 7, 1]]]


def test_peak_swaps_with_whichever_pack_gains_most() -> None:
    """Loads 8 7 | 5 4 | 6 1: with the second 8 for 5 gains 3; with the third 7 for 1 only 2."""
    weight = torch.tensor([[8.0, 7.0, 5.0, 4.0, 6.0, 1.0]])

    assert _refined(refine_peak, weight, [[[0, 1], [2, 3], [4, 5]]], 1) == [
        [[1, 2], [0, 3], [4, 5]]
    ]


def test_peak_puts_heaviest_items_first() -> None:
    """Without any step, items are in order of weight inside each pack, ties by index."""
    weight = torch.tensor([[1.0, 5.0, 5.0, 2.0]])

    assert _refined(refine_peak, weight, [[[0, 2], [3, 1]]], 0) == [[[2, 0], [1, 3]]]


@every_dtype
@pytest.mark.parametrize("refine", FIRST_OF_EQUALS, ids=lambda refine: refine.__name__)
def test_each_search_equals_trying_every_swap(refine: Refine, dtype: torch.dtype) -> None:
    """Item for item, ties included, for whatever weights have exact sums."""

    @small
    @given(instances.packings(), st.sampled_from([1, 2, 9]))
    def check(case: tuple[list[list[float]], list[list[int]], int], num_steps: int) -> None:
        rows, contents, num_packs = case
        weight = torch.tensor(rows, dtype=dtype)
        start: list[Packs] = torch.tensor(contents).view(len(rows), num_packs, -1).tolist()
        expected = []
        for scalars, packs in zip(_scalars(weight), start, strict=True):
            for _ in range(num_steps):
                packs = reference.swapped(packs, FIRST_OF_EQUALS[refine](scalars, packs))
            if refine is refine_peak:
                packs = reference.heaviest_first(scalars, packs)
            expected.append(packs)

        assert expected == _refined(refine, weight, start, num_steps)

    check()


@every_dtype
def test_half_gap_makes_one_of_the_best_swaps(dtype: torch.dtype) -> None:
    """A step swaps the packs and a pair that the rule names; of equally near pairs any will do."""

    @small
    @given(instances.packings(), st.integers(1, 3))
    def check(case: tuple[list[list[float]], list[list[int]], int], num_heaviest: int) -> None:
        rows, contents, num_packs = case
        weight = torch.tensor(rows, dtype=dtype)
        start: list[Packs] = torch.tensor(contents).view(len(rows), num_packs, -1).tolist()

        after = _refined(refine_half_gap, weight, start, 1, num_heaviest=num_heaviest)

        for scalars, before, packs in zip(_scalars(weight), start, after, strict=True):
            choices = reference.half_gap_choices(scalars, before, num_heaviest)
            allowed = [reference.swapped(before, swap) for swap in choices] or [before]
            assert _sets(packs) in [_sets(choice) for choice in allowed]

    check()


def _log_normal(num_rows: int, num_items: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(num_items)
    return torch.randn(num_rows, num_items, generator=generator).mul(5).exp().to(dtype)


@pytest.mark.parametrize("num_heaviest", [1, 3])
def test_half_gap_to_its_end_equals_trying_every_swap(num_heaviest: int) -> None:
    """Without ties the packs are the same after every one of 12 steps."""
    weight = _log_normal(3, 40, torch.float64)
    packs = _packs(pack_lpt(weight, 8), 8)
    for _ in range(12):
        after = _refined(refine_half_gap, weight, packs, 1, num_heaviest=num_heaviest)
        for row, scalars in enumerate(_scalars(weight)):
            choices = reference.half_gap_choices(scalars, packs[row], num_heaviest)
            assert len(choices) <= 1
            swap = choices[0] if choices else None
            assert _sets(after[row]) == _sets(reference.swapped(packs[row], swap))
        packs = after


# Torch adds a pack's weights in an order of its own, so loads may differ in the last bits; on
# log-normal weights no two swaps are that close, and the searches make the same ones.
@every_dtype
@pytest.mark.parametrize("refine", FIRST_OF_EQUALS, ids=lambda refine: refine.__name__)
def test_rounding_of_sums_does_not_change_the_swaps(refine: Refine, dtype: torch.dtype) -> None:
    """On real-valued loads of many packs the packs are the same as by trying every swap."""
    weight = _log_normal(2, 72, dtype)
    start = _packs(pack_lpt(weight, 8), 8)

    after = _refined(refine, weight, start, 6)

    for scalars, packs, refined in zip(_scalars(weight), start, after, strict=True):
        for _ in range(6):
            packs = reference.swapped(packs, FIRST_OF_EQUALS[refine](scalars, packs))
        assert _sets(packs) == _sets(refined)


def _objective(refine: Refine, scalars: list[Any], packs: Packs) -> float:
    """Return what a search lowers; for the gap search that of the two packs it swaps between."""
    load = [float(pack_load) for pack_load in reference.loads(scalars, packs)]
    return max(load) if refine is refine_peak else sum(x * x for x in load)


@every_search
def test_no_step_raises_the_objective(refine: Refine) -> None:
    """Step by step, squared loads and, for all searches, the heaviest pack never grow."""

    @small
    @given(instances.packings())
    def check(case: tuple[list[list[float]], list[list[int]], int]) -> None:
        rows, contents, num_packs = case
        weight = torch.tensor(rows, dtype=torch.float64)
        packs: list[Packs] = torch.tensor(contents).view(len(rows), num_packs, -1).tolist()
        for _ in range(4):
            after = _refined(refine, weight, packs, 1)
            for scalars, old, new in zip(_scalars(weight), packs, after, strict=True):
                assert _objective(refine, scalars, new) <= _objective(refine, scalars, old)
                assert max(reference.loads(scalars, new)) <= max(reference.loads(scalars, old))
            packs = after

    check()


@every_search
def test_a_search_that_is_done_stays_where_it_is(refine: Refine) -> None:
    """Once a step changes nothing, no later one does; equal packs are left alone at once."""
    weight = _log_normal(1, 24, torch.float64)
    done = _refined(refine, weight, _packs(pack_lpt(weight, 4), 4), 300)
    even = [[[0, 3], [1, 2]]]

    assert _refined(refine, weight, done, 1) == done
    (packs,) = _refined(refine, torch.tensor([[1.0, 2.0, 3.0, 4.0]]), even, 3)
    assert _sets(packs) == [[0, 3], [1, 2]]


@every_search
@pytest.mark.parametrize("num_packs", [1, 6])
def test_one_pack_and_one_place_a_pack_change_no_load(refine: Refine, num_packs: int) -> None:
    """With nothing to swap with, or with nothing to gain by it, each pack keeps its load."""
    weight = _log_normal(2, 6, torch.float64)
    start = _packs(pack_lpt(weight, num_packs), num_packs)

    after = _refined(refine, weight, start, 5)

    assert [_sets(packs) for packs in after] == [_sets(packs) for packs in start]


@every_search
def test_the_input_is_not_mutated(refine: Refine) -> None:
    """Weights and packing are the same after as before."""
    weight = _log_normal(2, 12, torch.float64)
    start = pack_lpt(weight, 3)
    before = weight.clone(), start.pack.clone(), start.place.clone()

    refine(weight, start, 3, num_steps=4, **SEARCHES[refine])

    for old, new in zip(before, (weight, *start), strict=True):
        assert torch.equal(old, new)
