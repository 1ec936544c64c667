"""Spending a total budget over layers: a multiple-choice knapsack, solved exactly.

Legend: L layers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Option(NamedTuple):
    """What one layer may do."""

    cost: int
    """Moved slots, at least 0."""

    gain: float
    """Tokens by which the peak comes down."""

    walk: int
    """Which of several searches goes there."""

    num_steps: int
    """How many steps of it are taken."""


def spend(options: list[list[Option]], total: int | None) -> list[Option]:
    """Return an option for each layer, so that all together gain most within a total.

    By dynamic programming over the moved slots that are left: O(total * number of options). Of
    equal gains the one that costs less wins, then the one that comes first.

    Args:
        options: Of each layer; the first costs nothing.
        total: Moved slots over all layers, at least 0; None sets no limit.
    """
    options = [_pareto(of_layer) for of_layer in options]
    most = sum(of_layer[-1].cost for of_layer in options)
    if total is None or most <= total:
        return [of_layer[-1] for of_layer in options]
    gain = np.zeros(total + 1)  # of the layers so far, by the moved slots that they may cost
    chosen = np.zeros((len(options), total + 1), dtype=np.int32)
    for layer, of_layer in enumerate(options):
        before, gain = gain, gain + of_layer[0].gain
        for index, option in enumerate(of_layer):
            if 0 < option.cost <= total:
                candidate = before[: total + 1 - option.cost] + option.gain
                is_better = candidate > gain[option.cost :]
                gain[option.cost :][is_better] = candidate[is_better]
                chosen[layer, option.cost :][is_better] = index
    left = int(gain.argmax())
    taken = []
    for layer in range(len(options) - 1, -1, -1):
        option = options[layer][chosen[layer, left]]
        taken.append(option)
        left -= option.cost
    return taken[::-1]


def _pareto(options: list[Option]) -> list[Option]:
    """Return the options that gain more than all cheaper ones, by ascending cost."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda each: (each.cost, -each.gain)):
        if not kept or option.gain > kept[-1].gain:
            kept.append(option)
    return kept
