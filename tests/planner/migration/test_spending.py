"""A total budget over layers is spent as well as can be."""

from __future__ import annotations

import itertools

from hypothesis import given, settings, strategies as st

from expertplane_planner.migration.spending import Option, spend


def of_layer(*pairs: tuple[int, float]) -> list[Option]:
    """Returns the options of a layer: nothing for nothing, then cost and gain of each."""
    pairs = ((0, 0.0), *pairs)
    return [Option(cost, gain, 0, steps) for steps, (cost, gain) in enumerate(pairs)]


LAYERS = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.floats(0.0, 10.0)), max_size=5),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(LAYERS, st.integers(0, 20))
def test_nothing_gains_more_within_the_total(
    layers: list[list[tuple[int, float]]], total: int
) -> None:
    """The gain is that of the best of all combinations, and the total is kept."""
    options = [of_layer(*pairs) for pairs in layers]
    best = max(
        sum(option.gain for option in choice)
        for choice in itertools.product(*options)
        if sum(option.cost for option in choice) <= total
    )

    taken = spend(options, total)

    assert sum(option.cost for option in taken) <= total
    assert sum(option.gain for option in taken) >= best - 1e-9


def test_a_step_that_is_dear_gives_way_to_two_that_are_not() -> None:
    """A gain of 5 for 4 slots loses against 3 and 3 for 2 each."""
    taken = spend([of_layer((4, 5.0)), of_layer((2, 3.0)), of_layer((2, 3.0))], 4)

    assert [option.cost for option in taken] == [0, 2, 2]


def test_without_a_total_every_layer_goes_all_the_way() -> None:
    """Each takes its best option, the cheapest of equal ones."""
    taken = spend([of_layer((1, 1.0), (5, 2.0), (7, 2.0)), of_layer()], None)

    assert [option.cost for option in taken] == [5, 0]


def test_what_costs_nothing_is_taken_anyway() -> None:
    """A gain without a move needs no budget, and is not counted twice with what follows it."""
    taken = spend([of_layer((0, 2.0), (3, 3.0)), of_layer((3, 1.5))], 3)

    assert [(option.cost, option.gain) for option in taken] == [(0, 2.0), (3, 1.5)]
