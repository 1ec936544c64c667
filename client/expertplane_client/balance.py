"""Rank load and balancedness of a placement, in numpy, for what is shown next to a plan.

A replica carries its expert's tokens over its expert's replicas; a rank's load is the sum over its
slots, over its capacity. Balancedness is mean over maximum rank load, of the ranks that are not
masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.wire import derive_logcnt


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How evenly a placement spreads a load, in (0, 1]; 1 is perfect."""

    balancedness: float
    """Sum over layers of mean rank load over the sum of maximum rank load; 1 without load."""

    per_layer: tuple[float, ...]
    """Balancedness of each layer; 1 for a layer without load."""

    @property
    def mean(self) -> float:
        """Mean of `per_layer`."""
        return sum(self.per_layer) / len(self.per_layer)

    @property
    def minimum(self) -> float:
        """Smallest of `per_layer`."""
        return min(self.per_layer)


def initial_phy2log(
    num_layers: int,
    num_logical_experts: int,
    num_slots: int,
    *,
    num_ranks: int = 1,
    masked_ranks: Sequence[int] = (),
) -> NDArray[np.int32]:
    """Returns the placement that needs no load: slot p holds expert p mod num_logical_experts.

    Slots of masked ranks hold -1, and are left out where slots are counted.

    Returns:
        [num_layers, num_slots] int32.
    """
    packs = np.full((num_ranks, num_slots // num_ranks), -1, dtype=np.int32)
    is_active = np.ones(num_ranks, dtype=bool)
    is_active[list(masked_ranks)] = False
    num_active = int(is_active.sum()) * packs.shape[1]
    packs[is_active] = (np.arange(num_active) % num_logical_experts).reshape(-1, packs.shape[1])
    return np.tile(packs.reshape(-1), (num_layers, 1))


def balance(
    weight: NDArray[Any],
    phy2log: NDArray[np.integer[Any]],
    num_ranks: int,
    *,
    rank_capacities: Sequence[float] | None = None,
) -> Balance:
    """Returns how evenly a placement spreads a load.

    A step waits for its most loaded rank, so with several samples means and maxima are taken in
    each of them and summed then.

    Args:
        weight: [num_layers, num_logical_experts] or [num_samples, num_layers,
            num_logical_experts], tokens. Not mutated.
        phy2log: [num_layers, num_slots], every expert at least once; -1 in all slots of a masked
            rank.
        num_ranks: Divides num_slots.
        rank_capacities: [num_ranks], what each rank gets done in the same time; None is 1 for all.
    """
    num_layers, num_logical_experts = weight.shape[-2:]
    per_replica = weight / derive_logcnt(phy2log, num_logical_experts)
    slot_load = per_replica[..., np.arange(num_layers)[:, None], phy2log] * (phy2log >= 0)
    slots_per_rank = phy2log.shape[1] // num_ranks
    rank_load = slot_load.reshape(-1, num_layers, num_ranks, slots_per_rank).sum(axis=-1)
    is_active = (phy2log.reshape(num_layers, num_ranks, -1) >= 0).any(axis=(0, 2))
    capacity = np.ones(num_ranks) if rank_capacities is None else np.asarray(rank_capacities)
    rank_load = rank_load[..., is_active] / capacity[is_active]
    mean, maximum = rank_load.mean(axis=-1).sum(axis=0), rank_load.max(axis=-1).sum(axis=0)
    # Rounding can lift a mean of equal loads above their maximum by one unit in the last place.
    per_layer = np.minimum(
        1.0, np.divide(mean, maximum, out=np.ones_like(mean), where=maximum > 0)
    )
    overall = float(mean.sum() / maximum.sum()) if maximum.any() else 1.0
    return Balance(balancedness=min(1.0, overall), per_layer=tuple(per_layer.tolist()))
