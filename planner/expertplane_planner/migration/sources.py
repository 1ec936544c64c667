"""Sources: which rank sends each expert that a rank has to receive.

Legend: E logical experts, R ranks, A arrivals: experts that some rank of one layer receives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow


if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers: TypeAlias = NDArray[np.int64]
    Flags: TypeAlias = NDArray[np.bool_]


def choose_senders(
    is_held: Flags, expert: Integers, receiver: Integers, ranks_per_node: int
) -> Integers:
    """Return the rank that sends each arrival: one of the same node wherever there is one.

    Where there is a choice, the rank that sends most to other nodes, which is slow, sends as few
    as can be; given that, the rank that sends most in all sends as few as can be. Neither count is
    pressed below what the busiest receiver has to wait for anyway. What choice that leaves is
    settled the same way each time.

    Args:
        is_held: [R, E], whether a rank holds an expert; each is held somewhere.
        expert: [A] int64, logical expert that arrives.
        receiver: [A] int64, rank that receives it and does not hold it.
        ranks_per_node: Ranks of a node, divides R.

    Returns:
        [A] int64.
    """
    if len(expert) == 0:
        return expert
    node = np.arange(len(is_held)) // ranks_per_node
    can_send = is_held.T[expert]
    is_near = can_send & (node[receiver][:, None] == node)
    is_far = ~is_near.any(axis=1)
    can_send = np.where(is_far[:, None], can_send, is_near)
    far_limit = 0
    if is_far.any():
        busiest = int(np.bincount(receiver[is_far]).max())
        far_limit, _ = _spread(can_send[is_far], is_far[is_far], len(expert), busiest)
    _, sender = _spread(can_send, is_far, far_limit, int(np.bincount(receiver).max()))
    return sender


def _take_idlest(can_send: Flags, is_far: Flags) -> Integers:
    """Return a sender for each arrival: the one with least to send, those with no choice first."""
    num_choices = can_send.sum(axis=1)
    sender: Integers = can_send.argmax(axis=1)
    is_settled = num_choices == 1
    num_ranks = can_send.shape[1]
    busy = np.bincount(sender[is_settled], minlength=num_ranks)
    busy_far = np.bincount(sender[is_settled & is_far], minlength=num_ranks)
    choosing = (~is_settled).nonzero()[0]
    for arrival in choosing[num_choices[choosing].argsort(kind="stable")].tolist():
        able = can_send[arrival].nonzero()[0]
        # What goes to other nodes counts first; the other count is never as large as the factor.
        load = busy[able] + (len(can_send) + 1) * busy_far[able] * is_far[arrival]
        sender[arrival] = idlest = able[load.argmin()]
        busy[idlest] += 1
        busy_far[idlest] += is_far[arrival]
    return sender


def _keeps(sender: Integers, is_far: Flags, far_limit: int, limit: int) -> bool:
    """Return whether no rank sends more than the limits."""
    most_far = np.bincount(sender[is_far], minlength=1).max()
    return bool(np.bincount(sender).max() <= limit and most_far <= far_limit)


def _spread(can_send: Flags, is_far: Flags, far_limit: int, limit: int) -> tuple[int, Integers]:
    """Return the lowest limit at which no rank has to send more, and a sender for each arrival.

    First each arrival takes the rank that has least to send. Where that passes a limit, a maximum
    flow decides, of one unit for each arrival: from the source to the arrival, to a rank that can
    send it, and to the sink. A rank passes on `limit` units, and at most `far_limit` of those to
    other nodes, which have to go through a gate. The limit is raised until all units get through.

    Args:
        can_send: [A, R], at least one rank per arrival.
        is_far: [A], whether the sender is on another node.
        far_limit: Arrivals of other nodes that a rank may send; enough to send them all.
        limit: The lowest to try.
    """
    num_arrivals, num_ranks = can_send.shape
    arrival, sender = can_send.nonzero()
    has_choice = can_send.sum(axis=1) > 1
    limit = max(limit, int(np.bincount(sender[~has_choice[arrival]], minlength=1).max()))
    if not has_choice.any():
        return limit, sender
    taken = _take_idlest(can_send, is_far)
    if _keeps(taken, is_far, far_limit, limit):
        return limit, taken
    gate = num_arrivals + np.arange(num_ranks)
    rank = gate + num_ranks
    source, sink = num_arrivals + 2 * num_ranks, num_arrivals + 2 * num_ranks + 1
    tail = np.concatenate([np.full(num_arrivals, source), arrival, gate, rank])
    door = np.where(is_far[arrival], gate[sender], rank[sender])
    head = np.concatenate([np.arange(num_arrivals), door, rank, np.full(num_ranks, sink)])
    edges = (tail.astype(np.int32), head.astype(np.int32))  # the only type that scipy's flow takes
    num_units = num_arrivals + len(arrival)
    while True:
        capacity = np.repeat([1, far_limit, limit], [num_units, num_ranks, num_ranks])
        graph = csr_array((capacity.astype(np.int32), edges), shape=(sink + 1, sink + 1))
        result = maximum_flow(graph, source, sink)
        missing = num_arrivals - int(result.flow_value)
        if missing == 0:
            break
        limit += -(-missing // num_ranks)  # each step lets num_ranks more through at most
    flow = result.flow[:num_arrivals, num_arrivals:source].toarray()
    return limit, (flow > 0).argmax(axis=1) % num_ranks
