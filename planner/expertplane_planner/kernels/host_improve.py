"""The search from a placement in force, move by move; runs on the host.

Legend: L layers, E logical experts, P slots, R ranks, T steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .compiling import over_rows
from .host_moves import improve_layers
from .host_tables import Bounds, Search, empty_tables


if TYPE_CHECKING:
    from numpy.typing import NDArray


def improve_by_risk(
    mean: NDArray[np.float64],
    covariance: NDArray[Any],
    phy2log: NDArray[np.int64],
    origin: NDArray[np.int64],
    slowness: NDArray[np.float64],
    node: NDArray[np.int64],
    home: NDArray[np.int64],
    *,
    risk: float,
    max_steps: int,
    bounds: Bounds,
) -> Search:
    """Return the search for a better placement of every layer, move by move.

    The peak of a layer is its worst rank by (mean + risk * standard deviation of its load) *
    slowness. A step is the best of all that touch the worst rank: a swap with another rank; one
    more replica of one of its experts elsewhere, in place of another expert's; another expert in
    place of one of its replicas. Replacements are looked at only where the other replicas of the
    expert that goes can carry its tokens and stay below what the best step so far leaves. Best is
    the largest gain per moved slot (half a slot where none is added); the gain is how far the
    worst of all ranks that change comes to lie below the peak. Ties go to swaps, then to the first
    in order of ranks and slots. No step brings a rank an expert that it holds, and the peak never
    rises. The search ends when no step gains enough or fits into the bounds; a step that adds no
    moved slot always fits.

    Args:
        mean: [L, E], expected share of each expert.
        covariance: [L, E, E] float32 or float64, of the same.
        phy2log: [L, P], where to start; every expert has a slot. Not mutated.
        origin: [L, P], the placement that moves are counted from; -1 is a slot that holds nothing.
        slowness: [R], what loads are multiplied with; 1 for ranks that are all alike.
        node: [R], node of each rank.
        home: [L, E], node that an expert is tied to: it keeps a replica there, is brought nowhere
            else by replacements, and swaps stay inside nodes. All -1 where experts are free.
        risk: Standard deviations that count, at least 0.
        max_steps: Steps per layer, at most.
        bounds: How far to go; moved slots of the start count.
    """
    num_layers = len(phy2log)
    search = Search(
        slots=np.full((num_layers, max_steps, 2), -1, dtype=np.int64),
        experts=np.full((num_layers, max_steps, 2), -1, dtype=np.int64),
        peak=np.zeros((num_layers, max_steps + 1)),
        moved=np.zeros((num_layers, max_steps + 1), dtype=np.int64),
        num_steps=np.zeros(num_layers, dtype=np.int64),
    )
    layers = (mean, covariance, phy2log, origin)
    machine = (slowness, node, home, float(risk))

    def work(rows: range) -> None:
        tables = empty_tables(mean.shape[1], phy2log.shape[1], len(slowness))
        improve_layers(*layers, machine, tables, search, bounds, rows.start, rows.stop)

    over_rows(num_layers, work)
    return search
