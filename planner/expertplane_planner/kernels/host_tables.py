"""What the search from a placement in force keeps in mind: plain tuples of arrays.

Legend: L layers, N starts, E logical experts, P slots, R ranks, T steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch


if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor


class Search(NamedTuple):
    """Every step of the search from every start; what lies beyond `num_steps` means nothing."""

    slots: NDArray[np.int64]
    """[N, T, 2], slots that a step fills anew; the second is -1 where there is only one."""

    experts: NDArray[np.int64]
    """[N, T, 2], what they hold from then on."""

    peak: NDArray[np.float64]
    """[N, T + 1], worst rank before the first step and after each."""

    moved: NDArray[np.int64]
    """[N, T + 1], slots moved since the origin, see `Placement.moved_slots`."""

    num_steps: NDArray[np.int64]
    """[N]"""


class Bounds(NamedTuple):
    """How far the search goes."""

    max_moved: NDArray[np.int64]
    """[N], moved slots, at most."""

    max_count: int
    """Replicas of an expert, at most, for steps that add one."""

    tolerance: float
    """Smallest gain of a step, as a share of the mean rank load."""

    price: NDArray[np.float64]
    """[N], smallest gain per moved slot, as a share of the mean rank load."""


class Starts(NamedTuple):
    """Where the search sets out from."""

    layer: Any  # [N], which layer each start is in
    held: Any  # [N, P]
    origin: Any  # [N, P]
    order: Any  # [N], in which order they are searched: threads get runs of neighbours


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


def empty_search(
    num_starts: int, max_steps: int, device: torch.device
) -> tuple[list[Tensor], Callable[[], Search]]:
    """Return the parts of a `Search` for a kernel to fill, and what brings them to the host.

    All parts lie in one tensor, so that they come in one go.
    """
    shapes = {
        "slots": (num_starts, max_steps, 2),
        "experts": (num_starts, max_steps, 2),
        "peak": (num_starts, max_steps + 1),
        "moved": (num_starts, max_steps + 1),
        "num_steps": (num_starts,),
    }
    # Of even sizes, so that parts begin at multiples of 16 bytes: a kernel is compiled for that.
    sizes = [-(-math.prod(shape) // 2) * 2 for shape in shapes.values()]
    whole = torch.full((sum(sizes),), -1, dtype=torch.int64, device=device)

    def parts_of(values: Tensor) -> dict[str, Tensor]:
        pieces = zip(shapes.items(), torch.split(values, sizes), strict=True)
        parts = {name: piece[: math.prod(shape)].view(shape) for (name, shape), piece in pieces}
        return {**parts, "peak": parts["peak"].view(torch.float64)}

    def on_host() -> Search:
        arrays = {name: part.numpy() for name, part in parts_of(whole.cpu()).items()}
        return Search(**arrays)

    return list(parts_of(whole).values()), on_host


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
