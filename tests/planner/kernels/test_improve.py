"""The search from a placement in force, against every move judged from scratch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from ...support import reference_improve as reference
from .improve_case import Case, cases


def _check_against_reference(case: Case) -> int:
    """Compare step by step and return how many steps were compared."""
    found, compared = case.found(), 0
    for index, (layer, start) in enumerate(zip(case.layers, case.rows, strict=True)):
        row, at = list(start), 0
        assert found.peak[index, 0] == pytest.approx(layer.peak(row), rel=1e-9)
        assert found.moved[index, 0] == layer.moved(row)
        try:
            for move, after in layer.steps(row, case.bounds, case.max_steps):
                slots, experts = found.slots[index, at].tolist(), found.experts[index, at].tolist()
                assert at < found.num_steps[index]
                assert tuple(zip(slots, experts, strict=True))[: len(move)] == move
                assert slots[len(move) :] in ([], [-1])
                row, at = after, at + 1
                assert found.peak[index, at] == pytest.approx(layer.peak(row), rel=1e-9)
                assert found.moved[index, at] == layer.moved(row)
            assert found.num_steps[index] == at
        except reference.AmbiguousError:
            pass
        compared += at
    return compared


def test_each_step_is_the_best_of_all_moves() -> None:
    """Every step is the one that a search through all moves, judged from scratch, finds."""

    @settings(deadline=None, max_examples=300)
    @given(cases())
    def check(case: Case) -> None:
        _check_against_reference(case)

    check()


@st.composite
def even_cases(draw: st.DrawFn) -> Case:
    """Draw one layer of whole tokens and one or two replicas each: exact, and full of ties."""
    num_ranks, per_rank = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    num_slots = num_ranks * per_rank
    num_twice = draw(st.integers(0, num_slots // 2))
    num_experts = num_slots - num_twice
    row = draw(st.permutations([*range(num_experts), *range(num_twice)]))
    origin = draw(st.just(row) | st.permutations(row))
    mean = [4.0 * draw(st.integers(0, 5)) for _ in range(num_experts)]
    factor = torch.tensor([float(draw(st.integers(0, 2))) for _ in mean]).double()
    covariance = 4.0 * factor.outer(factor)
    speeds = st.sampled_from([1.0, 1.0, 0.5, 2.0])
    layer = reference.Layer(
        mean=mean,
        covariance=covariance.tolist(),
        slowness=draw(st.lists(speeds, min_size=num_ranks, max_size=num_ranks)),
        node=[0] * num_ranks,
        home=[-1] * num_experts,
        origin=origin,
        risk=float(draw(st.integers(0, 1))),
        is_exact=True,
    )
    bounds = reference.Bounds(max_moved=draw(st.integers(0, num_slots)), max_count=2)
    return Case(layers=[layer], rows=[row], bounds=bounds, max_steps=1)


def test_ties_go_to_swaps_then_to_the_first_in_order() -> None:
    """Where many moves gain alike, it is a swap, else the one of the lowest ranks and slots."""

    @settings(deadline=None, max_examples=300)
    @given(even_cases())
    def check(case: Case) -> None:
        _check_against_reference(case)

    check()


@settings(deadline=None, max_examples=150)
@given(cases())
def test_what_every_search_keeps_to(case: Case) -> None:
    """The peak never rises, and what is reported is true of the placement then.

    No step passes the bounds, brings a rank an expert that it has or leaves one without a slot.
    """
    found = case.found()
    for index, (layer, row) in enumerate(zip(case.layers, case.rows, strict=True)):
        held, peak, room = list(row), layer.peak(row), case.bounds.max_moved
        assert found.peak[index, 0] == pytest.approx(peak, rel=1e-9)
        assert found.moved[index, 0] == case.moved_slots(index, held)
        for step in range(found.num_steps[index]):
            before = list(held)
            for slot, expert in zip(
                found.slots[index, step].tolist(), found.experts[index, step].tolist(), strict=True
            ):
                if slot >= 0:
                    held[slot] = expert
            peak = found.peak[index, step + 1]
            assert peak <= found.peak[index, step] * (1 + 1e-12)
            assert peak == pytest.approx(layer.peak(held), rel=1e-9)
            moved = found.moved[index, step + 1]
            assert moved == case.moved_slots(index, held)
            assert moved <= max(room, found.moved[index, step])
            assert set(held) == set(row)
            for rank in range(len(layer.slowness)):
                new, old = layer.pack(held, rank), layer.pack(before, rank)
                assert all(new.count(e) <= max(1, old.count(e)) for e in new)
            for e in set(held):
                grown = held.count(e) > before.count(e)
                assert not grown or held.count(e) <= case.bounds.max_count
