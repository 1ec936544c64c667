"""The inner loops of planning, once per kind of device, all with the same result.

`numba_cpu` runs compiled loops on the CPU where numba is installed, `torch_ops` runs anywhere.
They perform the same floating point operations in the same order, and so agree to the bit.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from . import torch_ops, torch_risk


if TYPE_CHECKING:
    from torch import Tensor


_HAS_NUMBA = importlib.util.find_spec("numba") is not None


def grant_replicas(
    weight: Tensor, counts: Tensor, num_more: int, *, slope: int, max_count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return who gets more replicas: each goes to the largest quotient, ties to the lowest index.

    An item with c replicas has the quotient weight / (slope * c - slope + 1): slope 1 is D'Hondt's
    apportionment, slope 2 is Sainte-Lague's.

    Args:
        weight: [num_rows, E] float32 or float64, load per item, finite and non-negative.
        counts: [num_rows, E] int64, replicas per item so far, at least 1.
        num_more: Replicas to give away.
        slope: Slope of the divisor.
        max_count: Replicas per item, at most; enough for `num_more`.

    Returns:
        item [num_rows, num_more] int64, who got each; replica_rank [num_rows, num_more] int64, how
        many it had; counts [num_rows, E] int64, afterwards.
    """
    if _is_compiled(weight):
        from . import numba_cpu

        return numba_cpu.grant_replicas(
            weight.detach().contiguous(), counts, num_more, slope=slope, max_count=max_count
        )
    return torch_ops.grant_replicas(weight, counts, num_more, slope=slope, max_count=max_count)


def pack_distinct(
    weight: Tensor, kind: Tensor, num_packs: int, *, max_swaps: int, tolerance: float
) -> Tensor:
    """Return an even packing in which no pack holds two items of a kind, if that can be.

    Longest processing time first: items by descending weight, each into the least loaded pack that
    has room and holds none of its kind. Where all packs with room hold one, the least loaded full
    pack that does not takes the item and gives its lightest one that the least loaded pack with
    room lacks to that pack; with at most num_packs items of each kind that always works, else the
    item goes to the least loaded pack with room. Then swaps: between the heaviest pack and any
    other, the one that lowers the heavier of the two most, while that is more than the tolerance,
    and no kind meets itself. Ties go to the lowest index: of packs, then places in the other pack,
    then places in the heaviest.

    Args:
        weight: [num_rows, N] float64, load per item, finite and non-negative.
        kind: [num_rows, N] int64, at least 0.
        num_packs: M packs per row, divides N.
        max_swaps: Swaps per row, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.

    Returns:
        [num_rows, N] int64, the items pack by pack.
    """
    order = weight.argsort(dim=1, descending=True, stable=True)
    if _is_compiled(weight):
        from . import numba_cpu

        return numba_cpu.pack_distinct(
            weight.detach().contiguous(),
            kind.contiguous(),
            order,
            num_packs,
            max_swaps=max_swaps,
            tolerance=tolerance,
        )
    return torch_ops.pack_distinct(
        weight, kind, order, num_packs, max_swaps=max_swaps, tolerance=tolerance
    )


def pack_by_risk(
    mean: Tensor,
    covariance: Tensor,
    counts: Tensor,
    expert: Tensor,
    weight: Tensor,
    slowness: Tensor,
    *,
    risk: float,
    max_swaps: int,
    tolerance: float,
) -> Tensor:
    """Return a packing whose worst pack is as good as can be under an uncertain load.

    A pack is worth (mean + risk * standard deviation) of its load * slowness, the lower the
    better. Items go by descending weight, each into the pack with room that is best with it and
    holds no replica of its expert. Where all packs with room hold one, the full pack of least mean
    * slowness that does not takes the item and gives its lightest one that the best pack with room
    lacks to that pack; with at most M replicas of each expert in a row that always works, else the
    item goes to the best pack with room. Then swaps: between the worst pack and any other, the one
    that lowers the worse of the two most, while that is more than the tolerance, and no expert
    meets itself. Ties go to the lowest index: of packs, then places in the other pack, then places
    in the worst.

    Args:
        mean: [num_layers, E] float64, expected tokens per logical expert.
        covariance: [num_layers, E, E] float32 or float64, symmetric, positive semi-definite.
        counts: [num_layers, E] int64, replicas per logical expert, over all rows of the layer.
        expert: [num_rows, N] int64, logical expert of each item; equally many rows a layer, layer
            by layer.
        weight: [num_rows, N] floating point, what to sort items by, descending.
        slowness: [num_rows, M] float64, time that each pack takes per token, above 0; M divides N.
            With a harmonic mean of 1 in each row, values are on the scale of loads.
        risk: Standard deviations that count, at least 0.
        max_swaps: Swaps per row, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.

    Returns:
        [num_rows, N] int64, the experts pack by pack.
    """
    pack = torch_risk.pack_by_risk
    if _is_compiled(mean):
        from . import numba_risk

        pack = numba_risk.pack_by_risk
    return pack(
        mean.detach().contiguous(),
        covariance.detach().contiguous(),
        counts.to(mean.dtype).reciprocal(),
        expert.contiguous(),
        weight.argsort(dim=1, descending=True, stable=True),
        slowness.contiguous(),
        risk=risk,
        max_swaps=max_swaps,
        tolerance=tolerance,
    )


def _is_compiled(weight: Tensor) -> bool:
    return _HAS_NUMBA and weight.device.type == "cpu"
