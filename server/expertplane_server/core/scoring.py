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
    shape = (len(after), num_ranks, -1)
    held, wanted = (_numbered(experts.reshape(shape)) for experts in (before, after))
    both = np.sort(np.concatenate((held, wanted), axis=2), axis=2)
    num_kept = ((both[:, :, 1:] == both[:, :, :-1]) & (both[:, :, 1:] >= 0)).sum(axis=2)
    fetched: np.ndarray[Any, Any] = (wanted >= 0).sum(axis=2) - num_kept
    return fetched


def _numbered(experts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns a number for every expert of a rank, [L, R, S], in which its replicas differ; or -1.

    The same number on both sides of a change then stands for one expert that stays.
    """
    ordered = np.sort(experts, axis=2)
    num_slots = ordered.shape[2]
    place = np.arange(num_slots, dtype=ordered.dtype)
    is_another = np.ones(ordered.shape, dtype=bool)
    is_another[:, :, 1:] = ordered[:, :, 1:] != ordered[:, :, :-1]
    first = np.maximum.accumulate(np.where(is_another, place, 0), axis=2)
    # Below 2^28: experts and slots of a rank are capped.
    return np.where(ordered >= 0, ordered * num_slots + (place - first), -1)
