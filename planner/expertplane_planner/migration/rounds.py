"""Rounds: share transfers out so that in a round no rank sends or receives more than one.

This is edge colouring of the bipartite multigraph of senders and receivers. Its least number of
colours is its largest degree D (D. Koenig, Math. Ann. 77, 1916): as long as every round serves all
ranks that have as many transfers left as there are rounds left, D rounds do. Such a round always
exists, and one of them is an optimal assignment of senders to receivers.

Legend: A transfers of one layer, R ranks that take part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment


if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers: TypeAlias = NDArray[np.int64]
    Flags: TypeAlias = NDArray[np.bool_]


def share_out_rounds(sender: Integers, receiver: Integers, is_slow: Flags) -> Integers:
    """Return the round of each transfer, using as few as can be: the largest degree.

    A round lasts as long as its slowest transfer, so that slow ones are gathered in the first
    rounds, as far as that costs no further round: each round takes as many of them as it can,
    above all from the ranks that have most of them left. Transfers between the same two ranks go
    in their given order.

    Args:
        sender: [A] int64, rank that sends.
        receiver: [A] int64, rank that receives, another one.
        is_slow: [A], whether a transfer is slow, the same for all between the same two ranks.

    Returns:
        [A] int64, from 0.
    """
    ranks, index = np.unique(np.concatenate([sender, receiver]), return_inverse=True)
    rows, columns = index[: len(sender)], index[len(sender) :]
    left = np.zeros((len(ranks), len(ranks)), dtype=np.int64)
    np.add.at(left, (rows, columns), 1)
    slow_pair = np.zeros(left.shape, dtype=bool)
    slow_pair[rows, columns] = is_slow
    # Transfers by pair; the next of a pair is at `following`.
    order = np.lexsort((columns, rows))
    following = (left.cumsum() - left.ravel()).reshape(left.shape)

    rounds = np.empty_like(sender)
    num_rounds = _largest_degree(left)
    for number in range(num_rounds):
        rows, columns = _next_round(left, slow_pair, num_rounds - number)
        rounds[order[following[rows, columns]]] = number
        following[rows, columns] += 1
        left[rows, columns] -= 1
    return rounds


def _next_round(left: Integers, is_slow: Flags, num_rounds: int) -> tuple[Integers, Integers]:
    """Return senders and receivers of one round, so that the rest fits into one round less.

    Args:
        left: [R, R] int64, transfers left between each sender and receiver, degree at most
            `num_rounds`.
        is_slow: [R, R], whether those are slow.
        num_rounds: Rounds left, this one included.
    """
    slow = np.where(is_slow, left, 0)
    must_slow = _is_busiest(slow, max(1, _largest_degree(slow)))
    # A round has at most R transfers, so that each term outweighs all that follow.
    scale = len(left) + 1
    gain = np.where(slow > 0, 1 + scale * (1 + 2 * scale * must_slow), 0) + (left > 0)
    # Ranks without a transfer in this round are paired at no cost, unless they cannot wait.
    is_forbidden = (left == 0) & (_is_busiest(left, num_rounds) > 0)
    rows, columns = linear_sum_assignment(np.where(is_forbidden, np.inf, -gain))
    served = left[rows, columns] > 0
    return rows[served], columns[served]


def _largest_degree(left: Integers) -> int:
    return max(int(left.sum(axis=0).max()), int(left.sum(axis=1).max()))


def _is_busiest(left: Integers, degree: int) -> Integers:
    """Return how many of a sender and a receiver have that many transfers left, [R, R]."""
    sends, receives = left.sum(axis=1) == degree, left.sum(axis=0) == degree
    return np.asarray(np.add.outer(sends, receives, dtype=np.int64))
