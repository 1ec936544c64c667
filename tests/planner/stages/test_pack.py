from __future__ import annotations

import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner.stages import Packing, pack_load, pack_lpt

from ...support import instances, reference


def test_heavy_items_are_placed_first() -> None:
    """Loads 1, 5, 4, 2 in two packs of two: 5 | 4, then 2 to the 4 and 1 to what is left."""
    pack, place = pack_lpt(torch.tensor([[1.0, 5.0, 4.0, 2.0]]), 2)

    assert pack.tolist() == [[0, 0, 1, 1]]
    assert place.tolist() == [[1, 0, 0, 1]]


def test_a_full_pack_takes_no_more() -> None:
    """Loads 9, 1, 1, 1, 1, 0: the light pack fills up and the last item joins the heavy one."""
    pack, _ = pack_lpt(torch.tensor([[9.0, 1.0, 1.0, 1.0, 1.0, 0.0]]), 2)

    assert pack.tolist() == [[0, 1, 1, 1, 0, 0]]


def test_ties_go_to_the_lowest_index() -> None:
    """Equal items go round the equal packs; weightless ones fill one pack after the other."""
    equal = pack_lpt(torch.full((1, 6), 3.0), 3)
    weightless = pack_lpt(torch.zeros(1, 6), 3)

    assert equal.pack.tolist() == [[0, 1, 2, 0, 1, 2]]
    assert weightless.pack.tolist() == [[0, 0, 1, 1, 2, 2]]


def test_one_place_per_pack_keeps_the_order() -> None:
    """With as many packs as items, item i stays in pack i whatever it weighs."""
    pack, place = pack_lpt(torch.tensor([[1.0, 3.0, 2.0]]), 3)

    assert (pack.tolist(), place.tolist()) == ([[0, 1, 2]], [[0, 0, 0]])


@settings(deadline=None, max_examples=80)
@given(st.data(), st.integers(1, 5))
def test_all_rows_at_once_equal_one_row_at_a_time(data: st.DataObject, num_packs: int) -> None:
    """The batched stage gives exactly what the obvious loop gives for each row."""
    weight = data.draw(instances.rows(multiple_of=num_packs))

    batched = pack_lpt(torch.tensor(weight), num_packs)

    for row, row_weight in enumerate(weight):
        expected = reference.pack_lpt(row_weight, num_packs)
        assert expected == (batched.pack[row].tolist(), batched.place[row].tolist())


def test_another_order_does_not_change_the_loads() -> None:
    """Ordered by 1, 2, 3, 4 the last item goes first, but packs still weigh what they hold."""
    weight = torch.tensor([[1.0, 5.0, 4.0, 2.0]])
    order_by = torch.tensor([[1.0, 2.0, 3.0, 4.0]])

    packing = pack_lpt(weight, 2, order_by=order_by)

    assert packing.pack.tolist() == [[1, 0, 1, 0]]
    assert pack_load(weight, packing, 2).tolist() == [[7.0, 5.0]]


def test_contents_and_packing_undo_each_other() -> None:
    """The contents of a packing, made a packing again, are the packing."""
    packing = pack_lpt(torch.tensor([[1.0, 5.0, 4.0, 2.0], [3.0, 3.0, 1.0, 9.0]]), 2)

    again = Packing.from_contents(packing.contents(2), 2)

    assert packing.contents(2)[0].tolist() == [1, 0, 2, 3]
    assert torch.equal(again.pack, packing.pack)
    assert torch.equal(again.place, packing.place)


def test_the_input_is_not_mutated() -> None:
    """The weights are the same after as before."""
    weight = torch.tensor([[1.0, 5.0, 4.0, 2.0]])

    pack_lpt(weight, 2)

    assert weight.tolist() == [[1.0, 5.0, 4.0, 2.0]]
