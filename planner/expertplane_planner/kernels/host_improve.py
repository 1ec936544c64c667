"""The search from a placement in force, move by move: its form for the host.

Legend: L layers, N starts, E logical experts, P slots, R ranks, T steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .compiling import over_rows
from .host_moves import improve_layers
from .host_tables import Search, Starts, empty_tables


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray
    from torch import Tensor

    from .host_tables import Bounds


def improve_by_risk(
    mean: Tensor,
    covariance: Tensor,
    home: Tensor,
    slowness: Tensor,
    node: Tensor,
    phy2log: Tensor,
    origin: Tensor,
    layer: Tensor,
    *,
    risk: float,
    max_steps: int,
    bounds: Bounds,
) -> Search:
    """See `improving.improve_by_risk`; tensors on the host are looked at where they are."""
    # Searches with more room take longer. Those of a layer next to each other, so that every
    # thread gets of each.
    order = np.argsort(_values(layer), kind="stable")
    starts = Starts(_values(layer), _values(phy2log), _values(origin), order)
    layers = (_values(mean), _values(covariance), _values(home))
    machine = (_values(slowness), _values(node), float(risk))
    num_starts = len(starts.held)
    search = Search(
        slots=np.full((num_starts, max_steps, 2), -1, dtype=np.int64),
        experts=np.full((num_starts, max_steps, 2), -1, dtype=np.int64),
        peak=np.zeros((num_starts, max_steps + 1)),
        moved=np.zeros((num_starts, max_steps + 1), dtype=np.int64),
        num_steps=np.zeros(num_starts, dtype=np.int64),
    )

    def work(rows: range) -> None:
        tables = empty_tables(mean.shape[1], phy2log.shape[1], len(slowness))
        improve_layers(layers, machine, starts, tables, search, bounds, rows.start, rows.stop)

    over_rows(num_starts, work)
    return search


def _values(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
