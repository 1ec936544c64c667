"""Every store keeps lost and slow ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import builders
from .test_contract import create, publish


if TYPE_CHECKING:
    from expertplane_server.store import Store


def test_masked_ranks_and_capacities_come_back(store: Store) -> None:
    """A deployment knows its lost and slow ranks, and a plan its empty slots, after a restart."""
    topology = builders.topology(slots_per_rank=4, masked_ranks=(1,), rank_capacities=(1.0, 0.5))
    create(store, wanted=builders.spec(topology=topology))
    published = publish(store, (0, 1, 2, 3, -1, -1, -1, -1))

    (found,) = store.deployments()
    assert found.spec.topology == topology
    plan = store.plan(builders.NAME, published.version)
    assert plan.draft.solution.phy2log.tolist() == [[0, 1, 2, 3, -1, -1, -1, -1]]
