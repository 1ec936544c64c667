"""Kernels for the CPU: compiled loops, rows shared out to threads.

Threads of our own around kernels that release the interpreter lock, not numba's parallel loops:
those take longer to compile, and of their thread pools the only one that is always there must
not be entered by two threads at a time.

Legend: E items, N replicas, M packs, K places per pack.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np
import torch

from .threads import num_kernel_threads


if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}

_Kernel = TypeVar("_Kernel", bound="Callable[..., Any]")


def compiled(kernel: _Kernel) -> _Kernel:
    """Compile on the first call; keep the result on disk where there is a place for it."""
    dispatcher: Any = numba.njit(kernel, **_OPTIONS)
    # A read-only installation of a user without a home has none: compiled in each process then.
    with contextlib.suppress(RuntimeError):
        dispatcher.enable_caching()
    return dispatcher  # type: ignore[no-any-return]


def part_of_kernel(function: _Kernel) -> _Kernel:
    """Compile as a part of the kernels that call it; what is kept on disk of them holds it."""
    dispatcher: Any = numba.njit(function, **_OPTIONS)
    return dispatcher  # type: ignore[no-any-return]


def grant_replicas(
    weight: Tensor, counts: Tensor, num_more: int, *, slope: int, max_count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """See `expertplane_planner.kernels.grant_replicas`."""
    new_counts = counts.clone()
    item = torch.empty((len(weight), num_more), dtype=torch.int64)
    replica_rank = torch.empty_like(item)
    tables = (weight.numpy(), new_counts.numpy(), item.numpy(), replica_rank.numpy())
    quotient = np.empty_like(tables[0])
    over_rows(
        len(weight),
        lambda rows: _grant(*tables, quotient, slope, max_count, rows.start, rows.stop),
    )
    return item, replica_rank, new_counts


def pack_distinct(
    weight: Tensor,
    kind: Tensor,
    order: Tensor,
    num_packs: int,
    *,
    max_swaps: int,
    tolerance: float,
) -> Tensor:
    """See `expertplane_planner.kernels.pack_distinct`."""
    contents = torch.empty_like(order)
    tables = (weight.numpy(), kind.numpy(), order.numpy(), contents.numpy())
    over_rows(
        len(weight),
        lambda rows: _pack_rows(*tables, num_packs, max_swaps, tolerance, rows.start, rows.stop),
    )
    return contents


def over_rows(num_rows: int, work: Callable[[range], None]) -> None:
    """Do the work on all rows, shared out to threads in runs of neighbours."""
    num_threads = max(1, min(num_kernel_threads(), num_rows))
    bounds = [num_rows * part // num_threads for part in range(num_threads + 1)]
    parts = [range(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]
    if num_threads == 1:
        work(parts[0])
        return
    with ThreadPoolExecutor(num_threads - 1) as pool:
        others = [pool.submit(work, part) for part in parts[1:]]
        work(parts[0])
        for other in others:
            other.result()


@compiled
def _grant(
    weight: Any,
    counts: Any,
    item: Any,
    replica_rank: Any,
    quotient: Any,
    slope: int,
    max_count: int,
    start: int,
    stop: int,
) -> None:
    num_items, num_more = weight.shape[1], item.shape[1]
    for row in range(start, stop):
        for e in range(num_items):
            divisor = slope * counts[row, e] - (slope - 1)
            is_open = counts[row, e] < max_count
            # Assigned to the table, so that the quotient is rounded to the type of the weight.
            quotient[row, e] = divisor
            quotient[row, e] = weight[row, e] / quotient[row, e] if is_open else -1.0
        for step in range(num_more):
            largest = 0
            for e in range(1, num_items):
                if quotient[row, e] > quotient[row, largest]:
                    largest = e
            count = counts[row, largest]
            item[row, step] = largest
            replica_rank[row, step] = count
            counts[row, largest] = count + 1
            is_open = count + 1 < max_count
            quotient[row, largest] = slope * (count + 1) - (slope - 1)
            quotient[row, largest] = (
                weight[row, largest] / quotient[row, largest] if is_open else -1.0
            )


@compiled
def _pack_rows(
    weight: Any,
    kind: Any,
    order: Any,
    contents: Any,
    num_packs: int,
    max_swaps: int,
    tolerance: float,
    start: int,
    stop: int,
) -> None:
    load = np.empty(num_packs)
    num_filled = np.empty(num_packs, dtype=np.int64)
    barred_for = np.empty(num_packs, dtype=np.int64)
    held_kind = np.empty(order.shape[1], dtype=np.int64)
    for row in range(start, stop):
        load[:] = 0.0
        num_filled[:] = 0
        barred_for[:] = -1
        _pack(
            weight[row],
            kind[row],
            order[row],
            contents[row],
            held_kind,
            load,
            num_filled,
            barred_for,
        )
        _swap(weight[row], contents[row], held_kind, load, max_swaps, tolerance)


@part_of_kernel
def _holds(held_kind: Any, first: int, stop: int, wanted: int) -> bool:
    for place in range(first, stop):  # noqa: SIM110 - compiled code knows no generators
        if held_kind[place] == wanted:
            return True
    return False


@part_of_kernel
def _pack(
    weight: Any,
    kind: Any,
    order: Any,
    contents: Any,
    held_kind: Any,
    load: Any,
    num_filled: Any,
    barred_for: Any,
) -> None:
    capacity = len(order) // len(load)
    for item in order:
        lightest = _lightest_with_room(load, num_filled, barred_for, capacity, item)
        best = lightest
        # Few packs hold any one kind: to look for the next lightest beats asking all of them.
        while best >= 0 and _holds(
            held_kind, best * capacity, best * capacity + num_filled[best], kind[item]
        ):
            barred_for[best] = item
            best = _lightest_with_room(load, num_filled, barred_for, capacity, item)
        put = item
        if best < 0:
            best = lightest
            put = _make_room(weight, kind, contents, held_kind, load, num_filled, item, lightest)
        place = best * capacity + num_filled[best]
        contents[place] = put
        held_kind[place] = kind[put]
        num_filled[best] += 1
        load[best] += weight[put]


@part_of_kernel
def _lightest_with_room(
    load: Any, num_filled: Any, barred_for: Any, capacity: int, item: int
) -> int:
    lightest, least = -1, np.inf
    for p in range(len(load)):
        if load[p] < least and num_filled[p] < capacity and barred_for[p] != item:
            lightest, least = p, load[p]
    return lightest


@part_of_kernel
def _make_room(
    weight: Any,
    kind: Any,
    contents: Any,
    held_kind: Any,
    load: Any,
    num_filled: Any,
    item: int,
    receiver: int,
) -> int:
    """Put the item into a full pack, if one can take it; return who goes to the receiver."""
    num_packs = len(load)
    capacity = len(contents) // num_packs
    giver = -1
    for p in range(num_packs):
        if (
            num_filled[p] == capacity
            and (giver < 0 or load[p] < load[giver])
            and not _holds(held_kind, p * capacity, (p + 1) * capacity, kind[item])
        ):
            giver = p
    if giver < 0:
        return item
    chosen = -1
    first = receiver * capacity
    for place in range(giver * capacity, (giver + 1) * capacity):
        if (chosen < 0 or weight[contents[place]] < weight[contents[chosen]]) and not _holds(
            held_kind, first, first + num_filled[receiver], held_kind[place]
        ):
            chosen = place
    if chosen < 0:
        return item
    moved = contents[chosen]
    contents[chosen] = item
    held_kind[chosen] = kind[item]
    load[giver] += weight[item] - weight[moved]
    return int(moved)


@part_of_kernel
def _best_swap(
    weight: Any, contents: Any, held_kind: Any, load: Any, heavy: int, threshold: float
) -> tuple[int, int]:
    capacity = len(contents) // len(load)
    # No swap gains more than half the gap between the two packs, so that the widest gap first
    # spares most of the others.
    lightest = int(np.argmin(load))
    gain, given, taken = _best_swap_with(
        weight, contents, held_kind, load, heavy, lightest, threshold
    )
    for p in range(len(load)):
        half_gap = (load[heavy] - load[p]) * 0.5
        # Of equal gains the one with the lower pack counts; below `threshold` there is none yet.
        is_earlier = given >= 0 and p < taken // capacity
        if p == lightest or half_gap < gain or (half_gap == gain and not is_earlier):
            continue
        more, i, j = _best_swap_with(weight, contents, held_kind, load, heavy, p, threshold)
        if i >= 0 and (more > gain or (more == gain and is_earlier)):
            gain, given, taken = more, i, j
    return given, taken


@part_of_kernel
def _best_swap_with(
    weight: Any,
    contents: Any,
    held_kind: Any,
    load: Any,
    heavy: int,
    light: int,
    threshold: float,
) -> tuple[float, int, int]:
    capacity = len(contents) // len(load)
    gap = load[heavy] - load[light]
    best, given, taken = threshold, -1, -1
    for j in range(light * capacity, (light + 1) * capacity):
        for i in range(heavy * capacity, (heavy + 1) * capacity):
            difference = weight[contents[i]] - weight[contents[j]]
            gain = min(difference, gap - difference)
            if (
                gain > best
                and not _holds(held_kind, light * capacity, (light + 1) * capacity, held_kind[i])
                and not _holds(held_kind, heavy * capacity, (heavy + 1) * capacity, held_kind[j])
            ):
                best, given, taken = gain, i, j
    return best, given, taken


@part_of_kernel
def _swap(
    weight: Any, contents: Any, held_kind: Any, load: Any, max_swaps: int, tolerance: float
) -> None:
    capacity = len(contents) // len(load)
    total = 0.0
    for pack_load in load:
        total += pack_load
    threshold = tolerance * (total / len(load))
    for _ in range(max_swaps):
        heavy = int(np.argmax(load))  # the first of several
        given, taken = _best_swap(weight, contents, held_kind, load, heavy, threshold)
        if given < 0:
            break
        heavy_item, light_item = contents[given], contents[taken]
        contents[given], contents[taken] = light_item, heavy_item
        held_kind[given], held_kind[taken] = held_kind[taken], held_kind[given]
        difference = weight[heavy_item] - weight[light_item]
        load[heavy] -= difference
        load[taken // capacity] += difference
