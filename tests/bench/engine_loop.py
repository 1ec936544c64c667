"""What serving engines run today: DeepSeek's algorithm in numpy, layer by layer.

Replication is vectorised over layers, packing loops over layers and items, with numpy looking for
the lightest pack: the shape of the in-engine planners that work on the CPU. Global mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..support import reference


if TYPE_CHECKING:
    from numpy.typing import NDArray


def rebalance(weight: NDArray[np.int64], num_slots: int, num_ranks: int) -> NDArray[np.int64]:
    """Return phy2log [num_layers, num_slots] for a load [num_layers, num_logical_experts]."""
    tokens = weight.astype(np.float32)
    item, counts = replicate(tokens, num_slots)
    load = np.take_along_axis(tokens / counts, item, axis=1)
    order = np.argsort(-load, axis=1, kind="stable")
    phy2log = np.empty_like(item)
    for row in range(len(weight)):
        phy2log[row] = item[row, pack(load[row], order[row], num_ranks)]
    return phy2log


def replicate(
    tokens: NDArray[np.float32], num_slots: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the expert of each replica and the replicas of each expert."""
    num_layers, num_experts = tokens.shape
    row = np.arange(num_layers)
    item = np.tile(np.arange(num_slots), (num_layers, 1))
    counts = np.ones((num_layers, num_experts), dtype=np.int64)
    for slot in range(num_experts, num_slots):
        heaviest = (tokens / counts).argmax(axis=1)
        item[:, slot] = heaviest
        counts[row, heaviest] += 1
    return item, counts


def pack(load: NDArray[np.float32], order: NDArray[np.int64], num_ranks: int) -> NDArray[np.int64]:
    """Return the replica of each slot of one layer."""
    capacity = len(load) // num_ranks
    replica = np.empty(len(load), dtype=np.int64)
    rank_load = np.zeros(num_ranks, dtype=np.float32)
    num_filled = np.zeros(num_ranks, dtype=np.int64)
    for item in order:
        rank = np.where(num_filled < capacity, rank_load, np.inf).argmin()
        replica[rank * capacity + num_filled[rank]] = item
        rank_load[rank] += load[item]
        num_filled[rank] += 1
    return replica


def plain_loop(weight: NDArray[np.int64], num_slots: int, num_ranks: int) -> None:
    """Replicates and packs layer by layer in plain Python, number by number."""
    for row in weight.astype(np.float32):
        items, _, counts = reference.replicate_greedy(row.tolist(), num_slots)
        reference.pack_lpt([row[item] / counts[item] for item in items], num_ranks)
