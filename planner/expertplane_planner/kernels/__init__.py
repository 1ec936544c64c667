"""The inner loops of planning, once per kind of device, all with the same result.

`numba_cpu` runs compiled loops on the CPU where numba is installed, `triton_gpu` one launch on a
CUDA device where Triton is; `torch_ops` runs anywhere. They perform the same floating point
operations in the same order, and so agree to the bit.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import logging
from typing import TYPE_CHECKING, NamedTuple

from . import torch_ops, torch_risk


if TYPE_CHECKING:
    import torch
    from torch import Tensor


_LOGGER = logging.getLogger(__name__)
_HAS_NUMBA = importlib.util.find_spec("numba") is not None
_LEAST_TRITON = (3, 3)  # the first to hand tuples to kernels


def has_triton(device: torch.device) -> bool:
    """Return whether Triton launches the kernels for a device: on CUDA, where it can.

    Found out at the first question, by a launch.
    """
    return device.type == "cuda" and _can_launch(device)


@functools.cache
def _can_launch(device: torch.device) -> bool:
    if not _is_triton_installed():
        _LOGGER.warning(
            "Expected Triton %s or newer for %s, got none; torch operations take its place",
            ".".join(map(str, _LEAST_TRITON)),
            device,
        )
        return False
    from . import triton_gpu

    try:
        triton_gpu.try_out(device)
    except Exception as error:
        if "out of memory" in str(error):
            raise  # which says nothing about Triton, and may be different the next time
        # Triton needs a C compiler, headers of Python, and a folder for what it has compiled.
        _LOGGER.warning(
            "Triton cannot launch kernels on %s, torch operations take their place: %s: %s",
            device,
            type(error).__name__,
            error,
        )
        return False
    return True


def _is_triton_installed() -> bool:
    # torch for CUDA brings it along, under one name or another.
    for name in ("triton", "pytorch-triton", "pytorch-triton-rocm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
            version = importlib.metadata.version(name).split(".")
            return tuple(map(int, version[:2])) >= _LEAST_TRITON
    return False


def fuses(device: torch.device, num_items: int, num_replicas: int, num_packs: int) -> bool:
    """Return whether replicating and packing are one kernel: `fill_distinct`, `fill_by_risk`.

    Elsewhere, and beyond what registers hold, `grant_replicas` and a packing take their place.

    Args:
        device: Where rows are.
        num_items: Items of a row, or logical experts of its layer.
        num_replicas: Replicas of a row.
        num_packs: Packs of a row.
    """
    if not has_triton(device):
        return False
    from . import triton_gpu

    return triton_gpu.serves(num_items, num_replicas, num_packs)


def num_idle_starts(
    device: torch.device, num_rows: int, num_items: int, num_replicas: int, num_packs: int
) -> int:
    """Return how many starts of each row a device tries in the time of one, at least 1.

    Only a kernel leaves multiprocessors idle: that is 1 where `fuses` says no.

    Args:
        device: Where rows are; a CPU has no cores to spare.
        num_rows: Rows that are filled in one go.
        num_items: As for `fuses`.
        num_replicas: As for `fuses`.
        num_packs: As for `fuses`.
    """
    if not fuses(device, num_items, num_replicas, num_packs):
        return 1
    from . import triton_gpu

    num_concurrent = triton_gpu.num_concurrent(device, num_packs, num_replicas // num_packs)
    return max(1, num_concurrent // num_rows)


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
    pack = torch_ops.pack_distinct
    if fuses(weight.device, weight.shape[1], weight.shape[1], num_packs):
        from . import triton_gpu

        weight, kind, pack = weight.contiguous(), kind.contiguous(), triton_gpu.pack_distinct
    return pack(weight, kind, order, num_packs, max_swaps=max_swaps, tolerance=tolerance)


def fill_distinct(
    weight: Tensor,
    kind: Tensor,
    num_replicas: int,
    num_packs: int,
    *,
    max_count: int,
    max_swaps: int,
    tolerance: float,
) -> Tensor:
    """Return the kinds pack by pack: `grant_replicas`, then `pack_distinct` of all replicas.

    Only where `fuses` says so.

    Args:
        weight: [num_rows, E] float64, load per item, finite and non-negative.
        kind: [num_rows, E] int64, at least 0, a different one for each item of a row.
        num_replicas: N replicas per row, at least E.
        num_packs: M packs per row, divides N.
        max_count: Replicas per item, at most; enough for N.
        max_swaps: Swaps per row, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.

    Returns:
        [num_rows, N] int64.
    """
    from . import triton_gpu

    return triton_gpu.fill_distinct(
        weight.contiguous(),
        kind.contiguous(),
        num_replicas,
        num_packs,
        max_count=max_count,
        max_swaps=max_swaps,
        tolerance=tolerance,
    )


def pack_by_risk(
    mean: Tensor,
    covariance: Tensor,
    counts: Tensor,
    expert: Tensor,
    weight: Tensor,
    slowness: Tensor,
    greedy_risk: Tensor,
    *,
    risk: float,
    max_swaps: int,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Return a packing whose worst pack is as good as can be under an uncertain load.

    A pack is worth (mean + risk * standard deviation) of its load * slowness, the lower the
    better. Items go by descending weight, each into the best pack with room that lacks its expert.
    Where all with room hold it, the full pack of least mean * slowness that lacks it takes the
    item and gives its lightest one that the best pack with room lacks to that pack; with at most M
    replicas of each expert in a row that always works, else the item goes to the best pack with
    room. Then swaps as in `pack_distinct`, between the worst pack and any other.

    Args:
        mean: [num_layers, E] float64, expected tokens per logical expert.
        covariance: [num_layers, E, E] float32 or float64, symmetric, positive semi-definite.
        counts: [num_layers, E] int64, replicas per logical expert, over all rows of the layer.
        expert: [num_rows, N] int64, logical expert of each item; equally many rows a layer, layer
            by layer.
        weight: [num_rows, N] floating point, what to sort items by, descending.
        slowness: [num_rows, M] float64, time that each pack takes per token, above 0; M divides N.
        greedy_risk: [num_rows] float64, standard deviations that count until all are packed.
        risk: Standard deviations that count in swaps, at least 0.
        max_swaps: Swaps per row, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.

    Returns:
        [num_rows, N] int64, the experts pack by pack; [num_rows] float64, what the worst pack is
        worth.
    """
    pack = torch_risk.pack_by_risk
    if _is_compiled(mean):
        from . import numba_risk

        pack = numba_risk.pack_by_risk
    elif fuses(mean.device, mean.shape[1], expert.shape[1], slowness.shape[1]):
        from . import triton_gpu

        pack = triton_gpu.pack_by_risk
    return pack(
        mean.detach().contiguous(),
        covariance.detach().contiguous(),
        counts.to(mean.dtype).reciprocal(),
        expert.contiguous(),
        weight.argsort(dim=1, descending=True, stable=True),
        slowness.contiguous(),
        greedy_risk.contiguous(),
        risk=risk,
        max_swaps=max_swaps,
        tolerance=tolerance,
    )


def fill_by_risk(
    mean: Tensor,
    covariance: Tensor,
    weight: Tensor,
    expert: Tensor,
    slowness: Tensor,
    starts: Starts,
    *,
    risk: float,
    max_count: int,
    max_swaps: int,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Return several packings of each row: `grant_replicas`, then `pack_by_risk` from each start.

    Only where `fuses` says so.

    Args:
        mean: [num_layers, E] float64, expected tokens per logical expert.
        covariance: [num_layers, E, E] float32 or float64, symmetric, positive semi-definite.
        weight: [num_rows, F] float64, what replicas are given by; finite and non-negative.
        expert: [num_rows, F] int64, logical experts of the row; no two rows of a layer share one.
        slowness: [num_rows, M] float64, time that each pack takes per token, above 0.
        starts: S starts for N replicas a row, at least F; M divides N.
        risk: Standard deviations that count in swaps, at least 0.
        max_count: Replicas per expert, at most; enough for N.
        max_swaps: Swaps per packing, at most.
        tolerance: Smallest gain of a swap, as a share of the mean load of a pack.

    Returns:
        [num_rows * S, N] int64, the experts pack by pack, starts of a row next to each other;
        [num_rows * S] float64, what the worst pack is worth.
    """
    from . import triton_gpu

    return triton_gpu.fill_by_risk(
        mean.detach().contiguous(),
        covariance.detach().contiguous(),
        weight.contiguous(),
        expert.contiguous(),
        slowness.contiguous(),
        *starts,
        risk=risk,
        max_count=max_count,
        max_swaps=max_swaps,
        tolerance=tolerance,
    )


class Starts(NamedTuple):
    """Where packings of a row start from."""

    noise: Tensor
    """[S, N] float64, what the load of each replica is multiplied with for the order."""

    greedy_risk: Tensor
    """[S] float64, standard deviations that count until all are packed."""


def _is_compiled(weight: Tensor) -> bool:
    return _HAS_NUMBA and weight.device.type == "cpu"
