"""The two maps that follow from `phy2log`: derived, never stored, so that they cannot disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def derive_logcnt(
    phy2log: np.ndarray[Any, Any], num_logical_experts: int
) -> npt.NDArray[np.int32]:
    """Returns the number of replicas of every logical expert.

    Args:
        phy2log: [num_layers, num_slots], any integer type; -1 marks the slots of masked ranks.
        num_logical_experts: the number of logical experts in every layer.

    Returns:
        [num_layers, num_logical_experts] int32.
    """
    num_layers = phy2log.shape[0]
    layer, slot = np.nonzero(phy2log >= 0)
    cells = layer * num_logical_experts + phy2log[layer, slot]
    counts = np.bincount(cells, minlength=num_layers * num_logical_experts)
    return counts.reshape(num_layers, num_logical_experts).astype(np.int32)


def derive_log2phy(
    phy2log: np.ndarray[Any, Any], num_logical_experts: int
) -> npt.NDArray[np.int32]:
    """Returns the slots of every logical expert.

    Args:
        phy2log: [num_layers, num_slots], any integer type; -1 marks the slots of masked ranks.
        num_logical_experts: the number of logical experts in every layer.

    Returns:
        [num_layers, num_logical_experts, X] int32, slots ascending, padded with -1; X is the
        largest replica count.
    """
    logcnt = derive_logcnt(phy2log, num_logical_experts)
    num_layers, num_slots = phy2log.shape
    # A stable sort by expert leaves the slots of one expert side by side and ascending;
    # masked slots come first.
    order = np.argsort(phy2log, axis=1, kind="stable")
    expert = np.take_along_axis(phy2log, order, axis=1)
    num_masked = num_slots - logcnt.sum(axis=1, dtype=np.int64)
    starts = np.cumsum(logcnt, axis=1, dtype=np.int64) - logcnt + num_masked[:, None]
    layer, position = np.nonzero(expert >= 0)
    owner = expert[layer, position]
    log2phy = np.full((num_layers, num_logical_experts, int(logcnt.max())), -1, dtype=np.int32)
    log2phy[layer, owner, position - starts[layer, owner]] = order[layer, position]
    return log2phy
