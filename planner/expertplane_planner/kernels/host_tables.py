"""What the search from a placement in force keeps in mind: plain tuples of arrays.

Legend: L layers, E logical experts, P slots, R ranks, T steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


class Search(NamedTuple):
    """Every step of the search in every layer; what lies beyond `num_steps` means nothing."""

    slots: NDArray[np.int64]
    """[L, T, 2], slots that a step fills anew; the second is -1 where there is only one."""

    experts: NDArray[np.int64]
    """[L, T, 2], what they hold from then on."""

    peak: NDArray[np.float64]
    """[L, T + 1], worst rank before the first step and after each."""

    moved: NDArray[np.int64]
    """[L, T + 1], slots moved since the origin, see `Placement.moved_slots`."""

    num_steps: NDArray[np.int64]
    """[L]"""


class Bounds(NamedTuple):
    """How far the search goes."""

    max_moved: int
    """Moved slots per layer, at most."""

    max_count: int
    """Replicas of an expert, at most, for steps that add one."""

    tolerance: float
    """Smallest gain of a step, as a share of the mean rank load."""

    price: float
    """Smallest gain per moved slot, as a share of the mean rank load."""


class Known(NamedTuple):
    """What does not change during the search in a layer."""

    mean: Any  # [E]
    covariance: Any  # [E, E]
    slowness: Any  # [R]
    node: Any  # [R]
    home: Any  # [E]
    risk: float
    per_rank: int


class Tables(NamedTuple):
    """What every step brings up to date."""

    held: Any  # [P], expert of each slot
    counts: Any  # [E], replicas
    first: Any  # [E], first slot of each expert
    following: Any  # [P], next slot with the same expert, -1 after the last
    load: Any  # [R]
    variance: Any  # [R]
    value: Any  # [R]
    cross: Any  # [R, E]
    surplus: Any  # [R, E], copies that a rank holds, less those in the origin


class Limits(NamedTuple):
    """What a step must keep to."""

    heavy: int  # the worst rank
    threshold: float  # least gain of a step
    price: float  # least gain per moved slot
    room: int  # moved slots that may be added
    max_count: int  # replicas of an expert


def empty_tables(num_experts: int, num_slots: int, num_ranks: int) -> Tables:
    """Return tables of one layer that hold nothing yet."""
    return Tables(
        held=np.empty(num_slots, dtype=np.int64),
        counts=np.empty(num_experts, dtype=np.int64),
        first=np.empty(num_experts, dtype=np.int64),
        following=np.empty(num_slots, dtype=np.int64),
        load=np.empty(num_ranks),
        variance=np.empty(num_ranks),
        value=np.empty(num_ranks),
        cross=np.empty((num_ranks, num_experts)),
        surplus=np.empty((num_ranks, num_experts), dtype=np.int64),
    )
