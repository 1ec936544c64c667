"""Replication: give the redundant slots to the experts that need them most."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch


if TYPE_CHECKING:
    from torch import Tensor


class Replication(NamedTuple):
    """Replicas of every row, the first of each item in item order, then the redundant ones."""

    item: Tensor
    """[num_rows, num_replicas] int64, item that each replica copies."""

    replica_rank: Tensor
    """[num_rows, num_replicas] int64, number of the replica among those of its item, from 0."""

    counts: Tensor
    """[num_rows, num_items] int64, replicas per item, at least 1."""


def replicate_greedy(weight: Tensor, num_replicas: int) -> Replication:
    """Return replicas such that the heaviest of a row becomes as light as it can.

    Each redundant replica goes to the item with the largest weight per replica, the lowest index
    among equals. This is D'Hondt's apportionment, and optimal for the largest w / c.

    Takes num_replicas - num_items steps, each O(num_rows * num_items). Does not mutate its input.

    Args:
        weight: [num_rows, num_items] floating point, load per item, finite and non-negative.
        num_replicas: Replicas per row, at least num_items.
    """
    num_rows, num_items = weight.shape
    assert weight.is_floating_point()
    assert num_replicas >= num_items

    row = torch.arange(num_items, device=weight.device).expand(num_rows, -1)
    items = [row]
    replica_ranks = [torch.zeros_like(row)]
    counts = torch.ones_like(row)
    per_replica = weight.clone()
    for _ in range(num_replicas - num_items):
        heaviest = per_replica.argmax(dim=1, keepdim=True)
        count = counts.gather(1, heaviest)
        items.append(heaviest)
        replica_ranks.append(count)
        # Only one quotient per row changes, and it is the same as if all were divided afresh.
        count = count + 1
        counts.scatter_(1, heaviest, count)
        per_replica.scatter_(1, heaviest, weight.gather(1, heaviest) / count)
    return Replication(torch.cat(items, dim=1), torch.cat(replica_ranks, dim=1), counts)
