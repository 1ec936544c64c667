"""Replication: give the redundant slots to the experts that need them most."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from expertplane_planner import kernels


if TYPE_CHECKING:
    from torch import Tensor


# Slopes of the divisors by which the rules of apportionment divide an item's weight.
_DHONDT = 1
_SAINTE_LAGUE = 2


class Replication(NamedTuple):
    """Replicas of every row, the first of each item in item order, then the redundant ones."""

    item: Tensor
    """[num_rows, num_replicas] int64, item that each replica copies."""

    replica_rank: Tensor
    """[num_rows, num_replicas] int64, number of the replica among those of its item, from 0."""

    counts: Tensor
    """[num_rows, num_items] int64, replicas per item, at least 1."""

    def load(self, weight: Tensor) -> Tensor:
        """Return the load of each replica, an equal share of its item's.

        Args:
            weight: [num_rows, num_items], load per item.

        Returns:
            [num_rows, num_replicas], in the dtype of the weight.
        """
        return (weight / self.counts).gather(1, self.item)


def max_copies(num_items: int, num_replicas: int, num_packs: int) -> int:
    """Return how many replicas an item may have, so that no pack need hold two of them.

    That is one per pack, or as many as it takes where the packs have room for more than all items.
    """
    return num_packs if num_items * num_packs >= num_replicas else num_replicas


def replicate_greedy(
    weight: Tensor, num_replicas: int, *, max_count: int | None = None
) -> Replication:
    """Return replicas such that the heaviest of a row becomes as light as it can.

    Each redundant replica goes to the item with the largest weight per replica, the lowest index
    among equals. This is D'Hondt's apportionment, and optimal for the largest w / c.

    Takes num_replicas - num_items steps, each O(num_rows * num_items). Does not mutate its input.

    Args:
        weight: [num_rows, num_items] floating point, load per item, finite and non-negative.
        num_replicas: Replicas per row, at least num_items.
        max_count: Replicas per item, at most; at least num_replicas / num_items. None for as many
            as it takes.
    """
    bound = num_replicas if max_count is None else max_count
    assert num_replicas <= bound * weight.shape[1]
    num_redundant = num_replicas - weight.shape[1]
    return _grant(weight, _one_each(weight), num_redundant, slope=_DHONDT, max_count=bound)


def replicate_hybrid(weight: Tensor, num_replicas: int) -> Replication:
    """Return replicas by D'Hondt's apportionment, the last tenth of them by Sainte-Lague's.

    Sainte-Lague divides by 2c - 1 where D'Hondt divides by c. The last max(1, (redundant + 9) //
    10) replicas are given that way. Then one replica goes from the item with the heaviest
    replicas to the one with the lightest, where that lowers the heaviest. It never does: the
    item that gives one away is the heaviest and becomes heavier. The step belongs to the
    published algorithm.

    Takes num_replicas - num_items steps, each O(num_rows * num_items). Does not mutate its input.

    Args:
        weight: [num_rows, num_items] floating point, load per item, finite and non-negative.
        num_replicas: Replicas per row, at least num_items.
    """
    num_redundant = num_replicas - weight.shape[1]
    replication = _one_each(weight)
    if num_redundant == 0:
        return replication
    num_last = max(1, (num_redundant + 9) // 10)
    for num_more, slope in ((num_redundant - num_last, _DHONDT), (num_last, _SAINTE_LAGUE)):
        replication = _grant(weight, replication, num_more, slope=slope, max_count=num_replicas)
    return replication if weight.shape[1] == 1 else _heaviest_to_lightest(weight, replication)


def _one_each(weight: Tensor) -> Replication:
    row = torch.arange(weight.shape[1], device=weight.device).expand(len(weight), -1)
    return Replication(row, torch.zeros_like(row), torch.ones_like(row))


def _grant(
    weight: Tensor, replication: Replication, num_more: int, *, slope: int, max_count: int
) -> Replication:
    """Return a replication with more replicas, each for the item of the largest quotient."""
    item, replica_rank, counts = kernels.grant_replicas(
        weight, replication.counts, num_more, slope=slope, max_count=max_count
    )
    return Replication(
        torch.cat([replication.item, item], dim=1),
        torch.cat([replication.replica_rank, replica_rank], dim=1),
        counts,
    )


def _heaviest_to_lightest(weight: Tensor, replication: Replication) -> Replication:
    item, replica_rank, counts = replication
    per_replica = weight / counts
    largest = per_replica.topk(2, dim=1).values
    heaviest, second = largest[:, :1], largest[:, 1:]
    donor = per_replica.argmax(dim=1, keepdim=True)
    receiver = per_replica.argmin(dim=1, keepdim=True)
    donor_count, receiver_count = counts.gather(1, donor), counts.gather(1, receiver)
    new_peak = torch.maximum(
        second,
        torch.maximum(
            weight.gather(1, donor) / (donor_count - 1).clamp(min=1),
            weight.gather(1, receiver) / (receiver_count + 1),
        ),
    )
    can_give = (donor != receiver) & (donor_count > 1)
    is_better = can_give & (new_peak + 1e-12 < heaviest)
    change = is_better.to(torch.int64)
    given = is_better & (item == donor) & (replica_rank == donor_count - 1)
    return Replication(
        torch.where(given, receiver, item),
        torch.where(given, receiver_count, replica_rank),
        counts.scatter_add(1, donor, -change).scatter_add(1, receiver, change),
    )
