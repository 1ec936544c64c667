from __future__ import annotations

import torch

from expertplane_planner.stages import inverse_permutation


def test_the_inverse_undoes_each_row() -> None:
    """Where a row sends i to j, its inverse sends j to i."""
    permutation = torch.tensor([[2, 0, 1], [0, 2, 1]])

    assert inverse_permutation(permutation).tolist() == [[1, 2, 0], [0, 2, 1]]
    assert permutation.tolist() == [[2, 0, 1], [0, 2, 1]]
