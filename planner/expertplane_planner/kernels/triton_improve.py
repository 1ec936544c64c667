"""The search from a placement in force for CUDA: all steps of all starts in one launch.

See `triton_moves` for how programs keep what they know.

Legend: L layers, N starts, E logical experts, P slots, R ranks, K slots per rank, T steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from .host_tables import empty_search
from .triton_gpu import EXACT, check, on_device, padded, serves
from .triton_moves import Ground, Limits, Tables, best_swap, look, slots_of
from .triton_parts import ordered_sum, value_of
from .triton_replace import best_replacement
from .triton_take import take_step


if TYPE_CHECKING:
    from torch import Tensor

    from .host_tables import Bounds, Search

__all__ = ["improve_by_risk", "serves"]

_NUM_TILE_VALUES = 2048
"""Values, padded, of the part of a table [R, E] that is worked on at a time."""


class Inputs(NamedTuple):
    """What programs read; as for `improving.improve_by_risk` where nothing else is said."""

    mean: Tensor
    covariance: Tensor
    home: Tensor
    slowness: Tensor
    node: Tensor
    phy2log: Tensor
    origin: Tensor
    layer: Tensor
    numbers: Tensor  # [2 + N] float64: risk, tolerance and each start's price
    max_moved: Tensor  # [N] int64


class Outputs(NamedTuple):
    """What programs write, see `Search`."""

    slots: Tensor
    experts: Tensor
    peak: Tensor
    moved: Tensor
    num_steps: Tensor


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
    """See `improving.improve_by_risk`; `serves` says for which sizes."""
    (num_starts, num_slots), device = phy2log.shape, mean.device
    num_experts, num_ranks = mean.shape[1], slowness.shape[0]
    per_rank = num_slots // num_ranks
    block_r, block_k = padded(num_ranks), padded(per_rank)
    search, on_host = empty_search(num_starts, max_steps, device)
    # A number that Triton is handed becomes a float32.
    numbers = torch.tensor([risk, bounds.tolerance, *bounds.price], dtype=torch.float64)
    tensors = (mean, covariance, home, slowness, node, phy2log, origin, layer)
    more = (numbers.to(device), torch.from_numpy(bounds.max_moved).to(device))
    with on_device(device):
        improve_kernel[(num_starts,)](
            _checked(Inputs(*(each.contiguous() for each in (*tensors, *more)))),
            Outputs(*search),
            _scratch(num_starts, num_experts, num_ranks, per_rank, device),
            num_experts,
            num_ranks,
            per_rank,
            max_steps,
            bounds.max_count,
            BLOCK_R=block_r,
            BLOCK_K=block_k,
            BLOCK_C=max(2, min(padded(num_experts), _NUM_TILE_VALUES // block_r)),
            BLOCK_W=padded(max(num_experts, per_rank)),
            **launch_options(block_r * block_k),
        )
    return on_host()


def _checked(inputs: Inputs) -> Inputs:
    """Return what a kernel would take on trust, each of the shape and type that it reads.

    Raises:
        AssertionError: One is not.
    """
    (num_layers, num_experts), device = inputs.mean.shape, inputs.mean.device
    (num_starts, num_slots), num_ranks = inputs.phy2log.shape, len(inputs.slowness)
    assert serves(num_experts, num_slots, num_ranks)
    assert num_slots % num_ranks == 0
    layers, starts = (num_layers, num_experts), (num_starts, num_slots)
    reals, whole = (torch.float64,), (torch.int64,)
    shapes: dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]] = {
        "mean": (layers, reals),
        "covariance": ((*layers, num_experts), (torch.float32, torch.float64)),
        "home": (layers, whole),
        "slowness": ((num_ranks,), reals),
        "node": ((num_ranks,), whole),
        "phy2log": (starts, whole),
        "origin": (starts, whole),
        "layer": ((num_starts,), whole),
        "numbers": ((2 + num_starts,), reals),
        "max_moved": ((num_starts,), whole),
    }
    for name, (shape, dtypes) in shapes.items():
        check(getattr(inputs, name), name, shape, dtypes, device)
    return inputs


def _scratch(
    num_starts: int, num_experts: int, num_ranks: int, per_rank: int, device: torch.device
) -> Tables:
    """Return room for the tables of all programs; each fills its own."""

    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty((num_starts, *shape), dtype=dtype, device=device)

    num_slots = num_ranks * per_rank
    return Tables(
        cross=empty(num_ranks, num_experts, dtype=torch.float64),
        counts=empty(num_experts, dtype=torch.int32),
        copies=empty(num_ranks, num_experts, dtype=torch.int8),
        surplus=empty(num_ranks, num_experts, dtype=torch.int8),
        worth=empty(num_slots, dtype=torch.float64),
        following=empty(num_slots, dtype=torch.int32),
        scores=empty(per_rank, num_experts + num_slots, dtype=torch.float64),
    )


def launch_options(num_places: int) -> dict[str, Any]:
    """Return how programs with so many places, padded, are launched.

    With two to four places for a thread, and as many registers as there are then.
    """
    num_warps = 4 if num_places <= 256 else 8 if num_places <= 512 else 16
    return {"num_warps": num_warps, "maxnreg": min(255, 65536 // (32 * num_warps)), **EXACT}


@triton.jit(do_not_specialize=["num_experts", "num_ranks", "per_rank", "max_steps", "max_count"])
def improve_kernel(
    inputs,
    outputs,
    scratch,
    num_experts,
    num_ranks,
    per_rank,
    max_steps,
    max_count,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Search from one start.

    Args:
        inputs: `Inputs`.
        outputs: `Outputs`.
        scratch: `Tables`, of all programs.
        num_experts: E.
        num_ranks: R.
        per_rank: K.
        max_steps: T.
        max_count: Replicas of an expert, at most.
        BLOCK_R: A power of two, at least R.
        BLOCK_K: A power of two, at least K.
        BLOCK_C: Experts that tables are filled for at a time.
        BLOCK_W: A power of two, at least E and K.
    """
    row = tl.program_id(0).to(tl.int64)
    num_slots = num_ranks * per_rank
    layer = tl.load(inputs.layer + row)
    ground = Ground(
        inputs.mean + layer * num_experts,
        inputs.covariance + layer * num_experts * num_experts,
        inputs.home + layer * num_experts,
        inputs.slowness,
        inputs.node,
        tl.load(inputs.numbers),
        num_experts,
        num_ranks,
        per_rank,
    )
    tables = Tables(
        scratch.cross + row * num_ranks * num_experts,
        scratch.counts + row * num_experts,
        scratch.copies + row * num_ranks * num_experts,
        scratch.surplus + row * num_ranks * num_experts,
        scratch.worth + row * num_slots,
        scratch.following + row * num_slots,
        scratch.scores + row * per_rank * (num_experts + num_slots),
    )
    _search(
        ground, tables, inputs, outputs, row, max_steps, max_count,
        BLOCK_R, BLOCK_K, BLOCK_C, BLOCK_W,
    )  # fmt: skip


@triton.jit
def _search(
    ground, tables, inputs, outputs, row, max_steps, max_count,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Take steps while there is one, and write down each."""
    start = inputs.phy2log + row * ground.num_ranks * ground.per_rank
    origin = inputs.origin + row * ground.num_ranks * ground.per_rank
    tolerance, price = tl.load(inputs.numbers + 1), tl.load(inputs.numbers + 2 + row)
    max_moved = tl.load(inputs.max_moved + row).to(tl.int32)
    slots, experts = outputs.slots + row * max_steps * 2, outputs.experts + row * max_steps * 2
    peaks, moves = outputs.peak + row * (max_steps + 1), outputs.moved + row * (max_steps + 1)
    r = tl.arange(0, BLOCK_R)
    slot = slots_of(ground, BLOCK_R, BLOCK_K)
    held = tl.load(start + slot, mask=slot >= 0, other=-1).to(tl.int32)
    slowness = tl.load(ground.slowness + r, mask=r < ground.num_ranks, other=1.0)
    num_moved = _count(ground, tables, start, origin, BLOCK_R, BLOCK_C)
    load, variance = _weigh(ground, tables, start, BLOCK_R, BLOCK_K, BLOCK_C)
    ring = _ringed(ground, start, held, slot)
    mean_load = ordered_sum(load / ground.num_ranks, r, ground.num_ranks)
    step, num_left = tl.full((), 0, tl.int32), max_steps + 1
    while num_left > 0:
        value = value_of(ground.risk, slowness, load, variance)
        value = tl.where(r < ground.num_ranks, value, float("-inf"))
        heavy, peak = tl.argmax(value, axis=0), tl.max(value, axis=0)
        tl.store(peaks + step, peak)
        tl.store(moves + step, num_moved.to(tl.int64))
        room = tl.maximum(max_moved - num_moved, 0)
        limits = Limits(heavy, peak, tolerance * mean_load, price * mean_load, room, max_count)
        none = tl.full((), -1, tl.int32)
        first, second, new = none, none, none
        num_left -= 1
        if num_left > 0:
            first, second, new = _best_step(
                ground, tables, limits, held, ring, load, variance, BLOCK_R, BLOCK_K, BLOCK_W
            )
        if first >= 0:
            old = tl.sum(tl.sum(tl.where(slot == first, held, 0), axis=1), axis=0)
            tl.store(slots + 2 * step, first.to(tl.int64))
            tl.store(slots + 2 * step + 1, second.to(tl.int64))
            tl.store(experts + 2 * step, new.to(tl.int64))
            tl.store(experts + 2 * step + 1, tl.where(second < 0, none, old).to(tl.int64))
            tl.debug_barrier()
            load, variance, added = take_step(
                ground, tables, load, variance, first, second, old, new, BLOCK_R, BLOCK_C
            )
            ring = _relinked(ring, held, slot, first, second, new)
            held = tl.where(slot == first, new, tl.where(slot == second, old, held))
            num_moved += added
            step += 1
        else:
            num_left = 0
    tl.store(outputs.num_steps + row, step.to(tl.int64))


@triton.jit
def _best_step(
    ground, tables, limits, held, ring, load, variance,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Return the slots that the best step fills anew, -1 for none, and what the first holds."""
    looks = look(ground, tables, held, limits.heavy, BLOCK_R, BLOCK_K)
    rate, first, second = best_swap(
        ground, tables, limits, looks, load, variance, BLOCK_R, BLOCK_K
    )
    is_second = slots_of(ground, BLOCK_R, BLOCK_K) == second
    new = tl.sum(tl.sum(tl.where(is_second, held, 0), axis=1), axis=0)
    other, expert = best_replacement(
        ground, tables, limits, looks, ring, load, variance, rate, BLOCK_R, BLOCK_K, BLOCK_W
    )
    is_replacement = other >= 0
    first = tl.where(is_replacement, other, first)
    second = tl.where(is_replacement, -1, second)
    return first, second, tl.where(is_replacement, expert, new)


@triton.jit
def _count(ground, tables, start, origin, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """Fill `counts`, `copies` and `surplus`; return how many slots have moved since the origin."""
    r = tl.arange(0, BLOCK_R)
    num_moved = tl.full((), 0, tl.int32)
    for at in range(0, ground.num_experts, BLOCK_C):
        e = at + tl.arange(0, BLOCK_C)
        copies = tl.zeros([BLOCK_R, BLOCK_C], tl.int32)
        before = tl.zeros([BLOCK_R, BLOCK_C], tl.int32)
        for k in range(ground.per_rank):
            place, is_rank = r * ground.per_rank + k, r < ground.num_ranks
            now = tl.load(start + place, mask=is_rank, other=-1).to(tl.int32)
            then = tl.load(origin + place, mask=is_rank, other=-1).to(tl.int32)
            copies += (now[:, None] == e[None, :]).to(tl.int32)
            before += (then[:, None] == e[None, :]).to(tl.int32)
        place = (r * ground.num_experts)[:, None] + e[None, :]
        is_place = (r < ground.num_ranks)[:, None] & (e < ground.num_experts)[None, :]
        tl.store(tables.copies + place, copies.to(tl.int8), mask=is_place)
        tl.store(tables.surplus + place, (copies - before).to(tl.int8), mask=is_place)
        tl.store(tables.counts + e, tl.sum(copies, axis=0), mask=e < ground.num_experts)
        num_moved += tl.sum(tl.sum(tl.maximum(copies - before, 0), axis=1), axis=0)
    tl.debug_barrier()
    return num_moved


@triton.jit
def _weigh(
    ground, tables, start, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Fill `cross`; return mean and variance of the ranks' loads."""
    r, k = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    is_rank = r < ground.num_ranks
    # Covariance of what a rank holds in its first slots with the expert in the next.
    before = tl.zeros([BLOCK_R, BLOCK_K], tl.float64)
    for first in range(0, ground.num_experts, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        is_place = is_rank[:, None] & (c < ground.num_experts)[None, :]
        cross = tl.zeros([BLOCK_R, BLOCK_C], tl.float64)
        for at in range(ground.per_rank):
            e = tl.load(start + r * ground.per_rank + at, mask=is_rank, other=0).to(tl.int32)
            share = 1.0 / tl.load(tables.counts + e).to(tl.float64)
            is_own = c[None, :] == e[:, None]
            own = tl.sum(tl.where(is_own, cross, 0.0), axis=1)
            before = tl.where((k == at)[None, :], before + own[:, None], before)
            place = (e * ground.num_experts)[:, None] + c[None, :]
            line = tl.load(ground.covariance + place, mask=is_place, other=0.0).to(tl.float64)
            cross += share[:, None] * line
        tl.store(tables.cross + (r * ground.num_experts)[:, None] + c[None, :], cross, is_place)
    load = tl.zeros([BLOCK_R], tl.float64)
    variance = tl.zeros([BLOCK_R], tl.float64)
    for at in range(ground.per_rank):
        e = tl.load(start + r * ground.per_rank + at, mask=is_rank, other=0).to(tl.int32)
        share = 1.0 / tl.load(tables.counts + e).to(tl.float64)
        diagonal = ground.covariance + e * ground.num_experts + e
        own = tl.load(diagonal, mask=is_rank, other=0.0).to(tl.float64)
        with_rank = tl.sum(tl.where((k == at)[None, :], before, 0.0), axis=1)
        load += share * tl.load(ground.mean + e, mask=is_rank, other=0.0)
        variance += 2.0 * share * with_rank + share * share * own
    tl.debug_barrier()
    return load, variance


@triton.jit
def _ringed(ground, start, held, slot):
    """Return for every slot the next one with the same expert, after the last the first."""
    num_slots = ground.num_ranks * ground.per_rank
    first = slot
    ring = tl.full(held.shape, -1, tl.int32)
    for back in range(num_slots):
        at = num_slots - 1 - back
        is_same = held == tl.load(start + at).to(tl.int32)
        first = tl.where(is_same, at, first)
        ring = tl.where(is_same & (slot < at), at, ring)
    return tl.where(ring < 0, first, ring)


@triton.jit
def _relinked(ring, held, slot, first, second, new):
    """Return the rings after two slots have changed places, or one has joined another ring."""
    # To the place of the second slot, or behind any slot with the new expert.
    none = 1 << 30
    at = tl.min(tl.min(tl.where(held == new, slot, none), axis=1), axis=0)
    at = tl.where(second >= 0, second, at)
    is_first, is_other = slot == first, slot == at
    is_swap = second >= 0
    after_first = tl.sum(tl.sum(tl.where(is_first, ring, 0), axis=1), axis=0)
    after_other = tl.sum(tl.sum(tl.where(is_other, ring, 0), axis=1), axis=0)
    # Who pointed at one points at the other; who leaves a ring is passed over.
    to_first = tl.where(is_swap, at, after_first)
    to_other = tl.where(is_swap, first, at)
    after_first = tl.where(after_first == first, to_first, after_first)
    after_other = tl.where(after_other == at, to_other, after_other)
    moved = tl.where(ring == first, to_first, tl.where(ring == at, to_other, ring))
    moved = tl.where(is_first, after_other, moved)
    return tl.where(is_other, tl.where(is_swap, after_first, first), moved)
