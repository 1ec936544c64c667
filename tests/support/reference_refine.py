"""The swap searches written the slow, obvious way: every swap of one row tried in turn.

A packing is a list of packs, a pack a list of items. Loads are summed afresh before each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from collections.abc import Iterator


Packs = list[list[int]]
Swap = tuple[int, int, int, int]
"""(pack, place in it, other pack, place in that one)"""


def half_gap_choices(weight: list[Any], packs: Packs, num_heaviest: int) -> list[Swap]:
    """Return the equally good swaps of which a step of `refine_half_gap` makes one, if any."""
    load = loads(weight, packs)
    for heavy in _by_load(load, descending=True)[:num_heaviest]:
        for light in _by_load(load):
            gap = load[heavy] - load[light]
            if gap < 1e-6:
                continue
            misses = {
                swap: abs(difference - gap / 2)
                for swap, difference in _swaps(weight, packs, heavy, light)
                if 0 < difference < gap
            }
            if misses:
                return [swap for swap, miss in misses.items() if miss == min(misses.values())]
    return []


def squares_swap(weight: list[Any], packs: Packs) -> Swap | None:
    """Return the swap that a step of `refine_squares` makes, the first of equally good ones."""
    load = loads(weight, packs)
    heavy, light = load.index(max(load)), load.index(min(load))
    gap = load[heavy] - load[light]
    changes = {
        swap: 2 * difference * (difference - gap)
        for swap, difference in _swaps(weight, packs, heavy, light)
    }
    swap = min(changes, key=lambda swap: changes[swap])
    return swap if changes[swap] < -1e-5 else None


def gap_swap(weight: list[Any], packs: Packs) -> Swap | None:
    """Return the swap that a step of `refine_gap` makes, the first of equally good ones."""
    load = loads(weight, packs)
    heavy, light = load.index(max(load)), load.index(min(load))
    gap = load[heavy] - load[light]
    new_gaps = {
        swap: abs(gap - 2 * difference) for swap, difference in _swaps(weight, packs, heavy, light)
    }
    swap = min(new_gaps, key=lambda swap: new_gaps[swap])
    return swap if new_gaps[swap] < gap - 1e-9 else None


def peak_swap(weight: list[Any], packs: Packs) -> Swap | None:
    """Return the swap that a step of `refine_peak` makes.

    Of equally good ones the one of the heaviest item, then the one for the heaviest item, the
    lowest index among equally heavy items.
    """
    load = loads(weight, packs)
    heavy = load.index(max(load))
    gains = {}
    for light in range(len(packs)):
        gap = load[heavy] - load[light]
        for swap, difference in _swaps(weight, packs, heavy, light):
            if light != heavy and difference > 0:
                gains[swap] = min(difference, gap - difference)

    def preference(swap: Swap) -> tuple[Any, ...]:
        given, taken = packs[swap[0]][swap[1]], packs[swap[2]][swap[3]]
        return -gains[swap], -weight[given], given, -weight[taken], taken

    best = min(gains, key=preference, default=None)
    return best if best is not None and gains[best] > 1e-6 else None


def swapped(packs: Packs, swap: Swap | None) -> Packs:
    """Return the packs after a swap, or the same ones without it."""
    packs = [list(pack) for pack in packs]
    if swap is not None:
        first, i, second, j = swap
        packs[first][i], packs[second][j] = packs[second][j], packs[first][i]
    return packs


def heaviest_first(weight: list[Any], packs: Packs) -> Packs:
    """Return the packs with the items of each by descending weight, then by index."""
    return [sorted(pack, key=lambda item: (-weight[item], item)) for pack in packs]


def loads(weight: list[Any], packs: Packs) -> list[Any]:
    """Return the load of each pack."""
    zero = 0 * weight[0]
    return [sum((weight[item] for item in pack), start=zero) for pack in packs]


def _by_load(load: list[Any], *, descending: bool = False) -> list[int]:
    return sorted(range(len(load)), key=lambda pack: -load[pack] if descending else load[pack])


def _swaps(weight: list[Any], packs: Packs, heavy: int, light: int) -> Iterator[tuple[Swap, Any]]:
    for i, given in enumerate(packs[heavy]):
        for j, taken in enumerate(packs[light]):
            yield (heavy, i, light, j), weight[given] - weight[taken]
