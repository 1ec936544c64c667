"""Items are packed without copies as the obvious loop does it, on every leg."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import kernels

from ...support import instances, reference
from .legs import LEGS, every_packing_leg, packing_leg


if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from torch import Tensor


@pytest.fixture
def leg(leg_name: str) -> Iterator[ModuleType]:
    with packing_leg(leg_name) as packs:
        yield packs


def _pack(
    leg: ModuleType,
    weight: Tensor,
    kind: Tensor,
    num_packs: int,
    *,
    max_swaps: int = 0,
    tolerance: float = 0.0,
) -> list[list[list[int]]]:
    """Return what each pack holds."""
    order = weight.argsort(dim=1, descending=True, stable=True)
    contents: Tensor = leg.pack_distinct(
        weight, kind, order, num_packs, max_swaps=max_swaps, tolerance=tolerance
    )
    packs: list[list[list[int]]] = contents.view(len(weight), num_packs, -1).tolist()
    return packs


def _tensors(weight: list[float], kind: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor([weight], dtype=torch.float64), torch.tensor([kind])


@every_packing_leg
def test_copies_part(leg: ModuleType) -> None:
    """Halves of 6 go to different packs, though 6 | 3 + 2 would leave the second one lighter."""
    assert _pack(leg, *_tensors([3.0, 3.0, 2.0, 1.0], [0, 0, 1, 2]), 2) == [[[0, 2], [1, 3]]]


@every_packing_leg
def test_a_full_pack_makes_room_for_a_copy(leg: ModuleType) -> None:
    """Loads 9, 4, 3 and a copy of the 9 that weighs 2: the full pack gives its lightest item up.

    9 goes to pack 0; 4 and 3 fill pack 1; only pack 0 has room for the copy and holds the kind.
    So pack 1 takes it and gives the 3 to pack 0.
    """
    assert _pack(leg, *_tensors([9.0, 4.0, 3.0, 2.0], [0, 1, 2, 0]), 2) == [[[0, 2], [1, 3]]]


@every_packing_leg
def test_more_copies_than_packs_share_one(leg: ModuleType) -> None:
    """Three copies in two packs cannot part: they are packed by load alone."""
    assert _pack(leg, *_tensors([3.0, 2.0, 1.0, 0.0], [0, 0, 0, 0]), 2) == [[[0, 3], [1, 2]]]


# Loads 6 4 3 1, packed out of order: 3 6 | 4 1. Two swaps make that 7 | 7.
_UNEVEN = [6.0, 4.0, 3.0, 1.0]
_OUT_OF_ORDER = torch.tensor([[2, 1, 0, 3]])


def _swapped_once(leg: ModuleType, kind: list[int], tolerance: float) -> list[list[int]]:
    weight, kinds = _tensors(_UNEVEN, kind)
    contents = leg.pack_distinct(weight, kinds, _OUT_OF_ORDER, 2, max_swaps=1, tolerance=tolerance)
    packs: list[list[int]] = contents.view(2, 2).tolist()
    return packs


@every_packing_leg
def test_a_swap_lowers_the_heaviest_pack(leg: ModuleType) -> None:
    """3 6 | 4 1: 6 for 4 and 3 for 1 gain 2 each; the 4 comes first in its pack."""
    assert _swapped_once(leg, [0, 1, 2, 3], 0.0) == [[2, 1], [0, 3]]


@every_packing_leg
def test_a_gain_within_the_tolerance_is_left(leg: ModuleType) -> None:
    """The gain of 2 is more than 0.28 of the mean of 7, but not more than 0.3 of it."""
    assert _swapped_once(leg, [0, 1, 2, 3], 0.28) == [[2, 1], [0, 3]]
    assert _swapped_once(leg, [0, 1, 2, 3], 0.3) == [[2, 0], [1, 3]]


@every_packing_leg
def test_no_swap_brings_copies_together(leg: ModuleType) -> None:
    """Were 6 and 1 copies, or 3 and 4, each swap would bring a pair together: none is made."""
    assert _swapped_once(leg, [0, 1, 2, 0], 0.0) == [[2, 0], [1, 3]]
    assert _swapped_once(leg, [0, 1, 1, 3], 0.0) == [[2, 0], [1, 3]]


@every_packing_leg
def test_the_input_is_not_mutated(leg: ModuleType) -> None:
    """Weights and kinds are the same after as before."""
    weight, kind = _tensors([9.0, 4.0, 3.0, 2.0], [0, 1, 2, 0])
    before = weight.clone(), kind.clone()

    _pack(leg, weight, kind, 2, max_swaps=3)

    assert torch.equal(weight, before[0])
    assert torch.equal(kind, before[1])


def _assert_as_the_reference(
    weight: Tensor, kind: Tensor, num_packs: int, max_swaps: int, tolerance: float
) -> None:
    expected = [
        reference.pack_distinct(*row, num_packs, max_swaps=max_swaps, tolerance=tolerance)
        for row in zip(weight.tolist(), kind.tolist(), strict=True)
    ]
    for leg in LEGS:
        assert expected == _pack(
            leg, weight, kind, num_packs, max_swaps=max_swaps, tolerance=tolerance
        )


@settings(deadline=None, max_examples=80)
@given(
    st.data(), st.integers(1, 5), st.sampled_from([0, 1, 12]), st.sampled_from([0.0, 1e-5, 0.1])
)
def test_every_leg_equals_the_obvious_loop(
    data: st.DataObject, num_packs: int, max_swaps: int, tolerance: float
) -> None:
    """Whatever weights and kinds: the same item in the same place."""
    rows = data.draw(instances.rows(multiple_of=num_packs))
    kind = data.draw(instances.kinds(len(rows), len(rows[0])))

    _assert_as_the_reference(
        torch.tensor(rows, dtype=torch.float64),
        torch.tensor(kind),
        num_packs,
        max_swaps,
        tolerance,
    )


def _copies(weight: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights and kinds of equal shares, as replication leaves them."""
    kind = torch.arange(len(weight)).repeat_interleave(counts)
    return (weight / counts)[kind].unsqueeze(0), kind.unsqueeze(0)


@pytest.mark.parametrize(
    ("weight", "counts", "num_packs"),
    [
        pytest.param([2.0**53, 2.0**53 - 1, 3.0, 1.0], [3, 3, 1, 2], 3, id="huge"),
        pytest.param([0.0] * 6, [1, 1, 4, 2, 3, 1], 4, id="weightless"),
        pytest.param([12.0, 12.0, 12.0], [4, 4, 4], 4, id="every pack holds everything"),
        pytest.param([7.0] * 12, [1] * 12, 6, id="all equal"),
        pytest.param([1000.0, 1.0, 1.0, 1.0, 1.0], [4, 1, 1, 1, 1], 4, id="one hot"),
        pytest.param([5.0], [6], 2, id="copies of one item"),
        pytest.param([3.0, 2.0, 1.0], [1, 1, 1], 3, id="one place a pack"),
        pytest.param([3.0, 2.0, 1.0], [1, 1, 1], 1, id="one pack"),
    ],
)
@pytest.mark.parametrize("max_swaps", [0, 30])
def test_extremes_equal_the_obvious_loop(
    weight: list[float], counts: list[int], num_packs: int, max_swaps: int
) -> None:
    """So they do on huge, tied and degenerate shares."""
    rows, kind = _copies(torch.tensor(weight, dtype=torch.float64), torch.tensor(counts))

    _assert_as_the_reference(rows, kind, num_packs, max_swaps, 1e-5)


@pytest.mark.parametrize("num_packs", [16, 64])
def test_many_packs_equal_the_obvious_loop(num_packs: int) -> None:
    """So they do on log-normal loads of 96 experts, replicated and packed by the dozen."""
    generator = torch.Generator().manual_seed(num_packs)
    weight = torch.randn(96, generator=generator, dtype=torch.float64).exp()
    counts = torch.ones(96, dtype=torch.int64)
    counts[weight.argsort(descending=True)[:16]] = 3
    rows, kind = _copies(weight, counts)

    _assert_as_the_reference(rows, kind, num_packs, 40, 1e-5)


@pytest.mark.parametrize("most", [3, 9, 1000])
@pytest.mark.parametrize(
    ("num_packs", "capacity", "num_kinds"),
    [(3, 4, 12), (4, 6, 7), (6, 5, 6), (12, 3, 36), (9, 4, 5)],
)
def test_any_order_equals_the_obvious_loop(
    num_packs: int, capacity: int, num_kinds: int, most: int
) -> None:
    """So they do from bad starts: many swaps gain alike, and many items find no room.

    Items come in random order instead of by weight. The fewer kinds, the more often all packs with
    room hold a copy already.
    """
    generator = torch.Generator().manual_seed(most)
    size = (24, num_packs * capacity)
    weight = torch.randint(0, most, size, generator=generator).to(torch.float64)
    kind = (torch.rand(size, generator=generator).argsort(dim=1)) % num_kinds
    order = torch.rand(size, generator=generator).argsort(dim=1)
    expected = [
        reference.pack_distinct(w, k, num_packs, max_swaps=20, tolerance=0.0, order=o)
        for w, k, o in zip(weight.tolist(), kind.tolist(), order.tolist(), strict=True)
    ]

    for leg in LEGS:
        contents = leg.pack_distinct(weight, kind, order, num_packs, max_swaps=20, tolerance=0.0)
        assert expected == contents.view(24, num_packs, capacity).tolist()


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 5), st.integers(1, 4))
def test_copies_part_wherever_they_can(data: st.DataObject, num_packs: int, capacity: int) -> None:
    """No pack holds two of a kind when no kind has more items than there are packs."""
    num_items = num_packs * capacity
    kind: list[int] = []
    while len(kind) < num_items:
        most = min(num_packs, num_items - len(kind))
        kind += [len(kind)] * data.draw(st.integers(1, most))
    weight = data.draw(st.lists(st.integers(0, 9), min_size=num_items, max_size=num_items))
    rows = torch.tensor([weight], dtype=torch.float64)

    contents = kernels.pack_distinct(
        rows, torch.tensor([kind]), num_packs, max_swaps=20, tolerance=0.0
    )

    packs = contents.view(num_packs, -1).tolist()
    assert all(len({kind[item] for item in pack}) == capacity for pack in packs)
