"""Rank load and balancedness of a placement, in numpy, for what is shown next to a plan.

A replica carries its expert's tokens over its expert's replicas; a rank's load is the sum over its
slots. Balancedness is mean over maximum rank load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.wire import derive_logcnt


if TYPE_CHECKING:
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
    num_layers: int, num_logical_experts: int, num_slots: int
) -> NDArray[np.int32]:
    """Returns the placement that needs no load: slot p holds expert p mod num_logical_experts.

    Returns:
        [num_layers, num_slots] int32.
    """
    experts = np.arange(num_slots, dtype=np.int32) % num_logical_experts
    return np.tile(experts, (num_layers, 1))


def balance(weight: NDArray[Any], phy2log: NDArray[np.int32], num_ranks: int) -> Balance:
    """Returns how evenly a placement spreads a load.

    A step waits for its most loaded rank, so with several samples means and maxima are taken in
    each of them and summed then.

    Args:
        weight: [num_layers, num_logical_experts] or [num_samples, num_layers,
            num_logical_experts], tokens. Not mutated.
        phy2log: [num_layers, num_slots], every expert at least once; no masked slots.
        num_ranks: Divides num_slots.
    """
    num_layers, num_logical_experts = weight.shape[-2:]
    per_replica = weight / derive_logcnt(phy2log, num_logical_experts)
    slot_load = per_replica[..., np.arange(num_layers)[:, None], phy2log]
    rank_load = slot_load.reshape(-1, num_layers, num_ranks, phy2log.shape[1] // num_ranks)
    rank_load = rank_load.sum(axis=-1)
    mean, maximum = rank_load.mean(axis=-1).sum(axis=0), rank_load.max(axis=-1).sum(axis=0)
    # Rounding can lift a mean of equal loads above their maximum by one unit in the last place.
    per_layer = np.minimum(
        1.0, np.divide(mean, maximum, out=np.ones_like(mean), where=maximum > 0)
    )
    overall = float(mean.sum() / maximum.sum()) if maximum.any() else 1.0
    return Balance(balancedness=min(1.0, overall), per_layer=tuple(per_layer.tolist()))
