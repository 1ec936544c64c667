"""The measures by which recorded and synthetic load are compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


Array = npt.NDArray[np.float64]


def max_over_mean(counts: npt.NDArray[np.generic]) -> Array:
    """Return the hottest expert over the mean one, [..., E] -> [...]."""
    tokens = counts.astype(np.float64)
    ratio: Array = tokens.max(axis=-1) / tokens.mean(axis=-1)
    return ratio


def gini(counts: npt.NDArray[np.generic]) -> Array:
    """Return the Gini coefficient over experts, [..., E] -> [...]."""
    ascending = np.sort(counts.astype(np.float64), axis=-1)
    n = ascending.shape[-1]
    weighted = (ascending * np.arange(1, n + 1)).sum(axis=-1)
    coefficient: Array = 2 * weighted / (n * ascending.sum(axis=-1)) - (n + 1) / n
    return coefficient


def correlation(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> Array:
    """Return Pearson's correlation over experts, [..., E] -> [...]."""
    a = one - one.astype(np.float64).mean(axis=-1, keepdims=True)
    b = other - other.astype(np.float64).mean(axis=-1, keepdims=True)
    norm = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    pearson: Array = (a * b).sum(axis=-1) / norm
    return pearson


def contiguous_imbalance(counts: npt.NDArray[np.generic], num_ranks: int) -> Array:
    """Return maximum over mean rank load without any plan, [..., E] -> [...]."""
    per_rank = counts.reshape(*counts.shape[:-1], num_ranks, -1).sum(axis=-1)
    return max_over_mean(per_rank)
