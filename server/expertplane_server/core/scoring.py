"""What placements make of load: rank loads, balance, moved slots. Plain numpy, bounded work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core.plan import Balance


if TYPE_CHECKING:
    from collections.abc import Sequence

    from expertplane_server.core.spec import TopologySpec

    Samples = Sequence[np.ndarray[Any, Any]]


_MAX_ENTRIES = 2**18
"""Slots over all layers and samples that one scoring looks at: some 5 ms, in which the event loop
stands still."""


def rank_loads(
    phy2log: np.ndarray[Any, Any], samples: Samples, topology: TopologySpec
) -> np.ndarray[Any, Any]:
    """Returns the load of every rank that is not masked, replicas sharing an expert's evenly.

    Args:
        phy2log: [L, P]; -1 marks slots that hold nothing.
        samples: K times [L, E], tokens. Where they are many, some are left out, evenly.
        topology: whose ranks they are.

    Returns:
        [K', L, active ranks], tokens per capacity.
    """
    most = max(1, _MAX_ENTRIES // phy2log.size)
    stride = -(-len(samples) // most)
    load = np.stack(samples[::stride])
    num_layers, num_experts = load.shape[1:]
    layer = np.arange(num_layers)[:, None]
    expert = np.maximum(phy2log, 0)
    is_held = phy2log >= 0
    cells = (layer * num_experts + expert)[is_held]
    replicas = np.bincount(cells, minlength=num_layers * num_experts)
    share = is_held / np.maximum(replicas, 1)[layer * num_experts + expert]
    slots = load[:, layer, expert] * share
    ranks: np.ndarray[Any, Any]
    ranks = slots.reshape(len(load), num_layers, topology.num_ranks, -1).sum(axis=3)
    active = list(topology.active_ranks)
    ranks = ranks[:, :, active]
    if topology.rank_capacities:
        ranks = ranks / np.asarray(topology.rank_capacities)[active]
    return ranks


def summed_maximum(
    phy2log: np.ndarray[Any, Any], samples: Samples, topology: TopologySpec
) -> float:
    """Returns the maximum rank load, summed over samples and layers: what a step waits for."""
    return float(rank_loads(phy2log, samples, topology).max(axis=2).sum())


def balance(phy2log: np.ndarray[Any, Any], samples: Samples, topology: TopologySpec) -> Balance:
    """Returns how evenly a placement spreads the samples.

    Layers without load count 1 and are left out of the sums.
    """
    loads = rank_loads(phy2log, samples, topology)
    capacities = np.asarray(topology.rank_capacities or [1.0] * topology.num_ranks)
    active = capacities[list(topology.active_ranks)]
    # The mean over ranks of what each could carry: its tokens over the capacities of all.
    mean = (loads * active).sum(axis=(0, 2)) / active.sum()
    maximum = loads.max(axis=2).sum(axis=0)
    is_loaded = maximum > 0
    ratio = np.ones(len(maximum))
    np.divide(mean, maximum, out=ratio, where=is_loaded)
    return Balance(
        balancedness=float(mean.sum() / maximum.sum()) if is_loaded.any() else 1.0,
        mean=float(ratio.mean()),
        minimum=float(ratio.min()),
        per_layer=tuple(ratio.tolist()),
    )


def fetched_slots(
    before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], num_ranks: int
) -> np.ndarray[Any, Any]:
    """Returns how many experts every rank must fetch, beyond those that it holds already.

    Args:
        before: [L, P], the placement in force.
        after: [L, P], the one to come.
        num_ranks: R.

    Returns:
        [L, R] integers; changes of slot inside a rank count nothing.
    """
    num_layers, num_slots = after.shape
    home = np.arange(num_layers * num_ranks).repeat(num_slots // num_ranks)
    width = 1 + max(int(before.max()), int(after.max()))
    kept_cells, kept = _common(before.reshape(-1), after.reshape(-1), home, width)
    needed = np.bincount(home[after.reshape(-1) >= 0], minlength=num_layers * num_ranks)
    held = np.bincount(kept_cells // width, weights=kept, minlength=num_layers * num_ranks)
    return (needed - held.astype(np.int64)).reshape(num_layers, num_ranks)


def _common(
    before: np.ndarray[Any, Any],
    after: np.ndarray[Any, Any],
    home: np.ndarray[Any, Any],
    width: int,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns what ranks hold before and after: cells (rank, expert), and how often."""
    cells = []
    for experts in (before, after):
        is_held = experts >= 0
        cells.append(np.unique((home * width + experts)[is_held], return_counts=True))
    (old, num_old), (new, num_new) = cells
    common, at_old, at_new = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    return common, np.minimum(num_old[at_old], num_new[at_new])
