"""Spill: let hot nodes hand replicas of their experts to cold ones.

Where expert groups run hot together, as DeepSeek-V3's do, the node that holds a hot group is the
bottleneck whatever happens inside it. A few replicas on other nodes, foreign ones, lift that
bound; every expert keeps a replica at home, so that most traffic stays there.

Legend: L layers, E logical experts, N nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch


if TYPE_CHECKING:
    from torch import Tensor


_MOST_FREED = 3
"""Replicas of an expert that may leave its home in one step; more take several steps."""


class NodeReplicas(NamedTuple):
    """Which replicas each node holds."""

    expert: Tensor
    """[num_layers, num_nodes, slots per node] int64, logical expert of each replica, ascending."""

    load: Tensor
    """[num_layers, num_nodes, slots per node], tokens of each replica."""


def spill_replicas(
    weight: Tensor,
    home: Tensor,
    *,
    num_nodes: int,
    num_slots: int,
    spill: int,
    max_copies: int,
) -> NodeReplicas:
    """Return replicas node by node, as many at home as must be and some on colder nodes.

    Starts from greedy replication inside each node. Each step looks at the heaviest node of a
    layer and gives one of its experts a replica on another node, in place of the redundant replica
    there that is missed least. Of that expert's replicas at home, up to three make room for the
    heaviest other experts there, as long as a replica of it weighs no more than the node has for
    each of `max_copies` ranks, or all ranks have one. Those that give up or gain a replica at home
    have no foreign ones, so that all their tokens stay on their node, and no step makes the
    heaviest node heavier. The step is the one that leaves the lowest maximum of the two nodes, and
    is made where that is lower than before. With `spill` 0 this is greedy replication inside
    each node, with at most `max_copies` replicas each. Ties go to the lowest expert, then to the
    lowest node.

    Takes spill steps, each O(L * E * N). Does not mutate its input.

    Args:
        weight: [L, E] floating point, tokens per logical expert, finite and non-negative.
        home: [L, E] int64, node that each expert belongs to; equally many experts a node.
        num_nodes: Nodes, divides E and num_slots.
        num_slots: Slots per layer over all nodes, at least E.
        spill: Foreign replicas per layer, at most.
        max_copies: Replicas of an expert on one node, at most; enough to fill all slots.
    """
    assert num_slots <= max_copies * weight.shape[1]
    counts = _counts_at_home(weight, home, num_nodes, num_slots // num_nodes, max_copies)
    for _ in range(spill):
        counts = _spilled(weight, home, counts, max_copies)
    flat = counts.transpose(1, 2).flatten()
    expert = torch.arange(weight.shape[1], device=weight.device).repeat(len(weight) * num_nodes)
    # Told the size of the result, the host need not wait for the counts.
    listed = expert.repeat_interleave(flat, output_size=len(weight) * num_slots)
    listed = listed.view(len(weight), num_slots)
    load = (weight / counts.sum(dim=2)).gather(1, listed)
    by_node = (len(weight), num_nodes, num_slots // num_nodes)
    return NodeReplicas(listed.view(by_node), load.view(by_node))


def _counts_at_home(
    weight: Tensor, home: Tensor, num_nodes: int, node_slots: int, max_copies: int
) -> Tensor:
    """Return the replicas of every expert on every node, [L, E, N] int64, all of them at home."""
    counts = torch.nn.functional.one_hot(home, num_nodes)
    # Away from home an expert weighs less than nothing, so that it is never the heaviest.
    tokens = torch.where(counts > 0, weight.unsqueeze(2), -1.0)
    for _ in range(node_slots - weight.shape[1] // num_nodes):
        quotient = torch.where(counts < max_copies, tokens / counts.clamp(min=1), -2.0)
        heaviest = quotient.argmax(dim=1, keepdim=True)
        counts = counts.scatter_add(1, heaviest, torch.ones_like(heaviest))
    return counts


def _spilled(weight: Tensor, home: Tensor, counts: Tensor, max_copies: int) -> Tensor:
    """Return the replicas of every expert on every node after one step, [L, E, N] int64."""
    num_nodes = counts.shape[2]
    is_home = torch.nn.functional.one_hot(home, num_nodes).bool()
    total = counts.sum(dim=2)
    share = weight / total
    node_load = (share.unsqueeze(2) * counts).sum(dim=1)  # [L, N]
    peak, hot = node_load.max(dim=1, keepdim=True)
    at_hot = counts.gather(2, hot.unsqueeze(1).expand(-1, counts.shape[1], 1)).squeeze(2)

    # What each node would give up: of its own redundant replicas the lightest once it is gone.
    left = (weight / (total - 1).clamp(min=1)).unsqueeze(2).expand_as(is_home)
    # Only of experts without foreign replicas, whose tokens stay on this node all the same.
    is_kept = ~is_home | (counts < 2) | (counts < total.unsqueeze(2))
    missed, given_up = left.masked_fill(is_kept, torch.inf).min(dim=1)  # [L, N]

    num_freed = _num_freed(weight, counts, at_hot, home == hot, peak, max_copies)
    new_share = weight / (total + 1 - num_freed)
    hot_load = peak - at_hot * share + (at_hot - num_freed) * new_share
    change = (counts + 1) * new_share.unsqueeze(2) - counts * share.unsqueeze(2)
    new_peak = torch.maximum(hot_load.unsqueeze(2), node_load.unsqueeze(1) + change)
    node = torch.arange(num_nodes, device=weight.device)
    is_allowed = (
        (at_hot > 0).unsqueeze(2)
        & ~is_home
        & (node != hot).unsqueeze(1)
        & missed.isfinite().unsqueeze(1)
        & (counts < max_copies)
    )
    new_peak = new_peak.masked_fill_(~is_allowed, torch.inf)
    best, choice = new_peak.flatten(1).min(dim=1, keepdim=True)
    is_better = (best < peak).to(counts.dtype)
    expert, target = choice // num_nodes, choice % num_nodes

    flat = counts.flatten(1).scatter_add(1, choice, is_better)
    given_up = given_up.gather(1, target)
    flat = flat.scatter_add(1, given_up * num_nodes + target, -is_better)
    freed = is_better * num_freed.gather(1, expert)
    flat = flat.scatter_add(1, expert * num_nodes + hot, -freed)
    for number in range(_MOST_FREED):
        heir = _heir(weight, home, flat.view_as(counts), hot, max_copies)
        is_given = (freed > number).to(counts.dtype)
        flat = flat.scatter_add(1, heir * num_nodes + hot, is_given)
    return flat.view_as(counts)


def _num_freed(
    weight: Tensor,
    counts: Tensor,
    at_hot: Tensor,
    is_home: Tensor,
    peak: Tensor,
    max_copies: int,
) -> Tensor:
    """Return how many replicas each expert on the hot node can do without there, [L, E] int64.

    With one more replica elsewhere, each replica at home that goes takes its tokens with it.
    Enough are left that none is heavier than a rank of the node has to be, and no more go than
    other experts can take the place of.
    """
    total = counts.sum(dim=2)
    heaviest = peak.clamp(min=torch.finfo(weight.dtype).tiny) / max_copies
    enough = (weight / heaviest).ceil().clamp(max=max_copies).to(counts.dtype)
    room = (max_copies - at_hot).masked_fill(~is_home | (at_hot != total), 0)
    room = room.sum(dim=1, keepdim=True) - room
    can_go = torch.minimum(total + 1 - enough, torch.minimum(at_hot - 1, room))
    return can_go.clamp(0, _MOST_FREED).masked_fill(~is_home, 0)


def _heir(weight: Tensor, home: Tensor, counts: Tensor, hot: Tensor, max_copies: int) -> Tensor:
    """Return who gets a free slot on the hot node, [L, 1] int64.

    The heaviest expert at home there without foreign replicas: another replica at home would draw
    tokens back from those.
    """
    total = counts.sum(dim=2)
    at_hot = counts.gather(2, hot.unsqueeze(1).expand(-1, counts.shape[1], 1)).squeeze(2)
    is_heir = (home == hot) & (at_hot == total) & (at_hot < max_copies)
    return (weight / total).masked_fill(~is_heir, -1.0).argmax(dim=1, keepdim=True)
