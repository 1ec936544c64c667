"""Permutations, one in each row of a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from torch import Tensor


def inverse_permutation(permutation: Tensor) -> Tensor:
    """Return the inverse of the permutation in each row.

    Args:
        permutation: [num_rows, n] int64, each row a permutation of 0 .. n - 1. Not mutated.

    Returns:
        [num_rows, n] int64; item `permutation[row, i]` of a row holds i.
    """
    index = torch.arange(permutation.shape[1], device=permutation.device)
    return torch.empty_like(permutation).scatter_(1, permutation, index.expand_as(permutation))
