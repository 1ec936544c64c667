"""The search from a placement in force, on whatever device the tensors are.

Legend: L layers, N starts, E logical experts, P slots, R ranks, T steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import has_triton, host_improve


if TYPE_CHECKING:
    from torch import Tensor

    from .host_tables import Bounds, Search


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
    """Return the search for better placements, each start in a layer, move by move.

    The peak of a layer is its worst rank by (mean + risk * standard deviation of its load) *
    slowness. A step is the best of all that touch the worst rank: a swap with another rank; one
    more replica of one of its experts elsewhere, in place of another expert's; another expert in
    place of one of its replicas. Best is the largest gain per moved slot (half a slot where none
    is added); the gain is how far the worst of all ranks that change comes to lie below the peak.
    For a replacement these are looked at twice, the second time as if nothing came in place of
    the expert that goes: its other replicas must be able to carry its tokens by themselves. Ties
    go to swaps before replacements; of swaps, to the lowest other rank, then slot on the worst
    rank, then slot on the other; of replacements, to the lowest slot, then expert, which counts by
    its place where it is one of the worst rank's. No step brings a rank an expert that it holds,
    and the peak never rises. The search ends when no step gains enough or fits into the bounds; a
    step that adds no moved slot always fits.

    Args:
        mean: [L, E] float64, expected share of each expert.
        covariance: [L, E, E] float32 or float64, of the same.
        home: [L, E] int64, node that an expert is tied to: it keeps a replica there, is brought
            nowhere else by replacements, and swaps stay inside nodes. All -1 where experts are
            free.
        slowness: [R] float64, what loads are multiplied with; 1 for ranks that are all alike.
        node: [R] int64, node of each rank.
        phy2log: [N, P] int64, where to start; every expert has a slot. Not mutated.
        origin: [N, P] int64, the placement that moves are counted from; -1 is a slot that holds
            nothing.
        layer: [N] int64, the layer that each start is in.
        risk: Standard deviations that count, at least 0.
        max_steps: Steps, at most.
        bounds: How far to go; moved slots of the start count.

    Returns:
        Arrays on the host, wherever the tensors are.
    """
    tensors = (mean, covariance, home, slowness, node, phy2log, origin, layer)
    improve = host_improve.improve_by_risk
    if has_triton(mean.device):
        from . import triton_improve

        if triton_improve.serves(mean.shape[1], phy2log.shape[1], slowness.shape[0]):
            improve = triton_improve.improve_by_risk
    return improve(*tensors, risk=risk, max_steps=max_steps, bounds=bounds)
