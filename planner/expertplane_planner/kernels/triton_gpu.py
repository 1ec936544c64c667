"""Kernels for CUDA: one launch for all rows, nothing waits for the device in between.

The launchers here check what they are given and lay out scratch memory; what runs on the device
is in `triton_distinct` and `triton_risk`. The search from a placement in force is launched by
`triton_improve`. Agrees to the bit with the other legs.

Imported where tensors are on a CUDA device only: Triton need not be installed elsewhere.

Legend: L layers, E items or logical experts, N replicas, M packs, K places per pack.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import torch

from .triton_distinct import fill_distinct_kernel
from .triton_risk import fill_by_risk_kernel


if TYPE_CHECKING:
    from torch import Tensor


MAX_ITEMS = 1024
MAX_REPLICAS = 2048
MAX_PACKS = 256
MAX_CAPACITY = 64

_FEW_PLACES = 1024
"""Places, padded, that four warps keep in registers."""

_FEW_REGISTERS = 128
"""Of a thread, where four warps are enough: a little is spilled, and a multiprocessor of 65,536
registers takes four programs at a time. They mostly wait for memory, so that four take hardly
longer than one."""

_FEW_PROGRAMS, _MANY_PROGRAMS = 1, 4
"""That a multiprocessor has registers for: of eight warps with all they want, of four."""

EXACT: dict[str, object] = {"num_stages": 1, "enable_fp_fusion": False}
"""Options of every launch: there is nothing to pipeline, and products and sums are not contracted,
or results would differ from those of the CPU."""


def serves(num_items: int, num_replicas: int, num_packs: int) -> bool:
    """Return whether rows of this size fit into a program.

    Args:
        num_items: Items, or logical experts of the layer.
        num_replicas: Replicas to be packed.
        num_packs: Divides num_replicas.
    """
    return (
        num_items <= MAX_ITEMS
        and num_replicas <= MAX_REPLICAS
        and num_packs <= MAX_PACKS
        and num_replicas // num_packs <= MAX_CAPACITY
    )


def try_out(device: torch.device) -> None:
    """Launch something tiny.

    Raises:
        Exception: Whatever Triton or the device has to say.
    """
    weight = torch.ones((1, 2), dtype=torch.float64, device=device)
    kind = torch.zeros((1, 2), dtype=torch.int64, device=device)
    fill_distinct(weight, kind, 2, 2, max_count=1, max_swaps=0, tolerance=0.0)


def num_concurrent(device: torch.device, num_packs: int, capacity: int) -> int:
    """Return how many programs with so many packs and places in each a device runs at a time."""
    is_small = padded(num_packs) * padded(capacity) <= _FEW_PLACES
    num_multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return int(num_multiprocessors) * (_MANY_PROGRAMS if is_small else _FEW_PROGRAMS)


class DistinctInputs(NamedTuple):
    """What `triton_distinct` reads; with replication, items get replicas in the launch."""

    weight: Tensor  # [rows, E] float64
    kind: Tensor  # [rows, E] int64
    order: Tensor  # [rows, N] int64, items as they are packed; any tensor with replication
    tolerance: Tensor  # [1] float64


class DistinctScratch(NamedTuple):
    """What programs of `triton_distinct` keep for replication; any tensors without."""

    keys: Tensor  # [rows, N] float64, what replicas are ordered by
    labels: Tensor  # [rows, 3, N] int32: replicas of items, items of replicas, these in order


class DistinctSizes(NamedTuple):
    """Counts that programs of `triton_distinct` go by."""

    num_items: int  # E
    num_replicas: int  # N, E without replication
    max_count: int
    max_swaps: int
    num_packs: int  # M
    capacity: int  # K


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
    """See `expertplane_planner.kernels.fill_distinct`."""
    num_rows, num_items = weight.shape
    scratch = DistinctScratch(
        weight.new_empty(num_rows, num_replicas),
        kind.new_empty((num_rows, 3, num_replicas), dtype=torch.int32),
    )
    capacity = num_replicas // num_packs
    sizes = DistinctSizes(num_items, num_replicas, max_count, max_swaps, num_packs, capacity)
    inputs = DistinctInputs(weight, kind, kind, _settings(weight, tolerance))
    return _fill_distinct(inputs, scratch, sizes, is_replicating=True)


def pack_distinct(
    weight: Tensor,
    kind: Tensor,
    order: Tensor,
    num_packs: int,
    *,
    max_swaps: int,
    tolerance: float,
) -> Tensor:
    """See `expertplane_planner.kernels.pack_distinct`; `order` is by descending weight."""
    num_items = weight.shape[1]
    check(order, "order", weight.shape, (torch.int64,), weight.device)
    sizes = DistinctSizes(num_items, num_items, 1, max_swaps, num_packs, num_items // num_packs)
    inputs = DistinctInputs(weight, kind, order, _settings(weight, tolerance))
    return _fill_distinct(inputs, DistinctScratch(weight, kind), sizes, is_replicating=False)


def _fill_distinct(
    inputs: DistinctInputs, scratch: DistinctScratch, sizes: DistinctSizes, *, is_replicating: bool
) -> Tensor:
    weight, num_packs = inputs.weight, sizes.num_packs
    check(weight, "weight", weight.shape, (torch.float64,), weight.device)
    check(inputs.kind, "kind", weight.shape, (torch.int64,), weight.device)
    assert serves(sizes.num_items, sizes.num_replicas, num_packs)
    assert num_packs * sizes.capacity == sizes.num_replicas
    out = inputs.kind.new_empty((len(weight), sizes.num_replicas))
    block_m, block_k = padded(num_packs), padded(sizes.capacity)
    with on_device(weight.device):
        fill_distinct_kernel[(len(weight),)](
            inputs,
            scratch,
            out,
            *sizes,
            IS_REPLICATING=is_replicating,
            BLOCK_E=padded(sizes.num_items),
            BLOCK_M=block_m,
            BLOCK_K=block_k,
            BLOCK_A=64,
            BLOCK_B=32,
            **launch_options(block_m * block_k),
        )
    return out


class RiskInputs(NamedTuple):
    """What `triton_risk` reads; with replication, experts get replicas in the launch."""

    mean: Tensor  # [L, E] float64
    covariance: Tensor  # [L, E, E] float32 or float64
    share: Tensor  # [L, E] float64, one over the replicas; any tensor with replication
    weight: Tensor  # [rows, F] float64, what replicas are given by; any tensor without
    expert: Tensor  # [rows, F] int64 with replication, else [programs, N]
    order: Tensor  # [programs, N] int64, items as they are packed; any tensor with replication
    slowness: Tensor  # [rows, M] float64
    greedy_risk: Tensor  # [starts] float64, deviations that count in packing; [programs] without
    noise: Tensor  # [starts, N] float64, what keys are multiplied with; any tensor without
    settings: Tensor  # [2] float64: risk and tolerance


class RiskOutputs(NamedTuple):
    """What `triton_risk` writes."""

    held: Tensor  # [programs, N] int64, experts pack by pack
    peak: Tensor  # [programs] float64, what the worst pack is worth


class RiskScratch(NamedTuple):
    """What programs of `triton_risk` keep in global memory; any tensors without replication."""

    cross: Tensor  # [programs, M, E] float64, zeros; always
    labels: Tensor  # [programs, 3, N] int32: replicas of items, their experts, these in order
    share: Tensor  # [programs, E] float64
    keys: Tensor  # [programs, N] float64


class RiskSizes(NamedTuple):
    """Counts that programs of `triton_risk` go by.

    Numbers of rows and of starts are the grid.
    """

    rows_per_layer: int
    num_experts: int  # E
    num_items: int  # F
    num_replicas: int  # N
    max_count: int
    max_swaps: int
    num_packs: int  # M
    capacity: int  # K


def pack_by_risk(
    mean: Tensor,
    covariance: Tensor,
    share: Tensor,
    expert: Tensor,
    order: Tensor,
    slowness: Tensor,
    greedy_risk: Tensor,
    *,
    risk: float,
    max_swaps: int,
    tolerance: float,
) -> RiskOutputs:
    """See `expertplane_planner.kernels.pack_by_risk`; `order` is by descending weight."""
    num_rows, num_replicas = expert.shape
    check(expert, "expert", expert.shape, (torch.int64,), mean.device)
    check(order, "order", expert.shape, (torch.int64,), mean.device)
    check(share, "share", mean.shape, (torch.float64,), mean.device)
    check(greedy_risk, "greedy_risk", (num_rows,), (torch.float64,), mean.device)
    inputs = RiskInputs(
        mean,
        covariance,
        share,
        mean,
        expert,
        order,
        slowness,
        greedy_risk,
        mean,
        _settings(mean, risk, tolerance),
    )
    sizes = _risk_sizes(inputs, num_replicas, 1, max_swaps)
    labels = expert.new_empty((num_rows, 3, num_replicas), dtype=torch.int32)
    return _fill_by_risk(inputs, sizes, labels, None)


def fill_by_risk(
    mean: Tensor,
    covariance: Tensor,
    weight: Tensor,
    expert: Tensor,
    slowness: Tensor,
    noise: Tensor,
    greedy_risk: Tensor,
    *,
    risk: float,
    max_count: int,
    max_swaps: int,
    tolerance: float,
) -> RiskOutputs:
    """See `expertplane_planner.kernels.fill_by_risk`; programs of a row are next to each other."""
    num_rows, num_items = weight.shape
    num_starts, num_replicas = noise.shape
    check(expert, "expert", weight.shape, (torch.int64,), mean.device)
    check(weight, "weight", weight.shape, (torch.float64,), mean.device)
    check(noise, "noise", noise.shape, (torch.float64,), mean.device)
    check(greedy_risk, "greedy_risk", (num_starts,), (torch.float64,), mean.device)
    settings = _settings(mean, risk, tolerance)
    inputs = RiskInputs(
        mean, covariance, mean, weight, expert, expert, slowness, greedy_risk, noise, settings
    )
    sizes = _risk_sizes(inputs, num_replicas, max_count, max_swaps)
    num_programs = num_rows * num_starts
    labels = expert.new_empty((num_programs, 3, num_replicas), dtype=torch.int32)
    share = mean.new_empty(num_programs, mean.shape[1])
    keys = mean.new_empty(num_programs, num_replicas)
    return _fill_by_risk(inputs, sizes, labels, (share, keys))


def _risk_sizes(
    inputs: RiskInputs, num_replicas: int, max_count: int, max_swaps: int
) -> RiskSizes:
    """Return the sizes that go with inputs, which are checked."""
    num_layers, num_experts = inputs.mean.shape
    num_rows, num_packs = inputs.slowness.shape
    shape, device = (num_layers, num_experts), inputs.mean.device
    check(inputs.mean, "mean", shape, (torch.float64,), device)
    floats = (torch.float32, torch.float64)
    check(inputs.covariance, "covariance", (*shape, num_experts), floats, device)
    check(inputs.slowness, "slowness", (num_rows, num_packs), (torch.float64,), device)
    assert serves(num_experts, num_replicas, num_packs)
    assert num_rows % num_layers == 0
    assert num_replicas % num_packs == 0
    return RiskSizes(
        rows_per_layer=num_rows // num_layers,
        num_experts=num_experts,
        num_items=inputs.expert.shape[1],
        num_replicas=num_replicas,
        max_count=max_count,
        max_swaps=max_swaps,
        num_packs=num_packs,
        capacity=num_replicas // num_packs,
    )


def _fill_by_risk(
    inputs: RiskInputs,
    sizes: RiskSizes,
    labels: Tensor,
    for_replication: tuple[Tensor, Tensor] | None,
) -> RiskOutputs:
    """Launch; without scratch for replication (share, keys), replicas are what is given."""
    num_programs, num_rows = len(labels), len(inputs.slowness)
    outputs = RiskOutputs(
        labels.new_empty((num_programs, sizes.num_replicas), dtype=torch.int64),
        inputs.mean.new_empty(num_programs),
    )
    cross = inputs.mean.new_zeros(num_programs, sizes.num_packs, sizes.num_experts)
    block_m, block_k = padded(sizes.num_packs), padded(sizes.capacity)
    with on_device(inputs.mean.device):
        fill_by_risk_kernel[(num_rows, num_programs // num_rows)](
            inputs,
            outputs,
            RiskScratch(cross, labels, *(for_replication or (inputs.mean, inputs.mean))),
            *sizes,
            IS_REPLICATING=for_replication is not None,
            BLOCK_E=padded(sizes.num_experts),
            BLOCK_M=block_m,
            BLOCK_K=block_k,
            BLOCK_A=64,
            BLOCK_B=32,
            **launch_options(block_m * block_k),
        )
    return outputs


def _settings(like: Tensor, *values: float) -> Tensor:
    """Return numbers for a kernel, made on the device: the host copies nothing and does not wait.

    Not as arguments, since a number that Triton is handed becomes a float32.
    """
    settings = like.new_empty(len(values))
    for place, value in zip(settings.unbind(), values, strict=True):
        place.fill_(value)
    return settings


def padded(count: int) -> int:
    """Return the least power of two that is not below a count, and at least 2."""
    return max(2, 1 << (count - 1).bit_length())


def launch_options(num_places: int) -> dict[str, object]:
    """Return how programs with so many places, padded, are launched."""
    if num_places <= _FEW_PLACES:
        return {"num_warps": 4, "maxnreg": _FEW_REGISTERS, **EXACT}
    return {"num_warps": 8, **EXACT}


def on_device(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which launches go to a device; on the CPU they are interpreted."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def check(
    tensor: Tensor,
    name: str,
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
) -> None:
    """Check what a kernel takes on trust: pointers know no bounds.

    Raises:
        AssertionError: The tensor is another one than the kernel was written for.
    """
    found = (tuple(tensor.shape), tensor.dtype, tensor.device)
    is_right = found[0] == shape and found[1] in dtypes and found[2] == device
    assert is_right, f"Expected {name} of {shape} and {dtypes} on {device}, got {found}."
    assert tensor.is_contiguous(), f"Expected {name} to be contiguous, got {tensor.stride()}."
