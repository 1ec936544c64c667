"""What every store promises about participants, and about how a deployment is found again."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from expertplane_server.core import limits
from expertplane_server.core.errors import ConflictError, NotFoundError
from expertplane_server.core.plan import PlanState
from expertplane_server.core.recovered import Recovered
from expertplane_server.store import bounds

from .. import builders
from .test_contract import create, delete, publish


if TYPE_CHECKING:
    from expertplane_server.core.plan import ParkedPlan
    from expertplane_server.store import Store

    from .conftest import OpenStore


NAME = builders.NAME


def park(store: Store, participant: str, digest: str, *, started: int = 1) -> ParkedPlan:
    """Park a placement in the store's term."""
    parked = builders.parked(participant, started, digest)
    store.park(NAME, parked, epoch=store.epoch)
    return parked


def parked(store: Store, name: str = NAME) -> list[tuple[str, str]]:
    """Return participants and digests, oldest first."""
    return [(each.participant, each.digest) for each in store.recover(name, num_plans=1).parked]


def superseded(store: Store) -> tuple[str, ...]:
    """Return the superseded incarnations, oldest first."""
    return store.recover(NAME, num_plans=1).superseded


def supersede(store: Store, *incarnations: str) -> None:
    """Supersede incarnations in the store's term."""
    for each in incarnations:
        store.supersede(NAME, each, epoch=store.epoch)


def test_parked(store: Store) -> None:
    """What participants refuse is remembered, once, in the order in which they said so last."""
    create(store)
    first = park(store, "a", "d1")
    park(store, "b", "d1")
    park(store, "a", "d2")

    assert store.recover(NAME, num_plans=1).parked[0] == first
    assert parked(store) == [("a", "d1"), ("b", "d1"), ("a", "d2")]
    park(store, "a", "d1")
    assert parked(store) == [("b", "d1"), ("a", "d2"), ("a", "d1")]


def test_parked_by_an_earlier_incarnation(store: Store) -> None:
    """A participant that was started again is asked again; what others refuse stays."""
    create(store)
    park(store, "a", "d1")
    park(store, "a", "d2")
    park(store, "b", "d1")
    again = park(store, "a", "d2", started=2)

    assert parked(store) == [("b", "d1"), ("a", "d2")]
    assert store.recover(NAME, num_plans=1).parked[-1] == again


def test_parked_plans_are_bounded(store: Store) -> None:
    """The latest refusals of a participant are kept."""
    create(store)
    for number in range(bounds.MAX_PARKED + 3):
        park(store, "a", f"d{number}")
        park(store, "b", "d0")

    digests = [digest for participant, digest in parked(store) if participant == "a"]
    assert digests == [f"d{number}" for number in range(3, bounds.MAX_PARKED + 3)]
    assert ("b", "d0") in parked(store)


def test_participants_that_park_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The participants that have refused last are kept, with all that they refuse."""
    monkeypatch.setattr(limits, "MAX_MEMBERS", 2)
    create(store)
    park(store, "a", "d1")
    park(store, "b", "d1")
    park(store, "a", "d2")
    park(store, "c", "d1")

    assert parked(store) == [("a", "d1"), ("a", "d2"), ("c", "d1")]


def test_superseded(store: Store) -> None:
    """Superseded incarnations are remembered, once, the latest last."""
    create(store)
    supersede(store, "i1", "i2", "i3", "i1")

    assert superseded(store) == ("i2", "i3", "i1")


def test_superseded_incarnations_are_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest incarnations are forgotten."""
    monkeypatch.setattr(limits, "MAX_MEMBERS", 2)
    create(store)
    supersede(store, "i1", "i2", "i1", "i3")

    assert superseded(store) == ("i1", "i3")


def test_members_of_nobody(store: Store) -> None:
    """What is said of a deployment that is gone is let go, and its successor starts afresh."""
    park(store, "a", "d1")
    supersede(store, "i1")
    for _ in range(2):
        create(store)
        assert (parked(store), superseded(store)) == ([], ())
        park(store, "a", "d1")
        supersede(store, "i1")
        delete(store)


def test_members_by_deployment(store: Store) -> None:
    """Deployments do not share their participants."""
    create(store)
    create(store, "b/b")
    park(store, "a", "d1")
    supersede(store, "i1")

    other = store.recover("b/b", num_plans=1)
    assert (other.parked, other.superseded) == ((), ())


def test_members_in_another_term(store: Store) -> None:
    """An owner whose term is over remembers nothing."""
    create(store)

    with pytest.raises(ConflictError):
        store.park(NAME, builders.parked(), epoch=2)
    with pytest.raises(ConflictError):
        store.supersede(NAME, "i1", epoch=0)
    assert (parked(store), superseded(store)) == ([], ())


def test_recover_a_new_deployment(store: Store) -> None:
    """A deployment without a past is found with nothing but itself."""
    assert create(store) == store.recover(NAME, num_plans=3).deployment
    assert store.recover(NAME, num_plans=3) == Recovered(deployment=store.deployments()[0])


def test_recover(store: Store) -> None:
    """The latest plans come newest first, whole, beside counters and journal."""
    create(store)
    builders.published(store, builders.draft(transfers=builders.transfers()))
    for _ in range(3):
        publish(store)
    builders.published(store, state=PlanState.STAGING)
    found = store.recover(NAME, num_plans=3)

    assert found.deployment == store.deployments()[0]
    assert [(plan.version, plan.state) for plan in found.plans] == [
        (5, PlanState.STAGING),
        (4, PlanState.COMMITTED),
        (3, PlanState.SUPERSEDED),
    ]
    assert [each.plan_version for each in found.decisions] == [1, 2, 3, 4, 5]
    (*_, oldest) = store.recover(NAME, num_plans=9).plans
    assert oldest.draft.solution.transfers is not None


def test_recover_an_old_committed_plan(open_store: OpenStore) -> None:
    """The committed plan is found however many versions were burned since, and once."""
    with closing(open_store(keep_plans=4)) as store:
        create(store)
        publish(store)
        for version in range(2, 9):
            builders.published(store, state=PlanState.STAGING)
            why = builders.decision(100 + version, plan_version=version)
            store.abort(NAME, version, decision=why, epoch=1, now_s=0.0)

        assert [plan.version for plan in store.recover(NAME, num_plans=2).plans] == [8, 7, 1]
        assert [plan.version for plan in store.recover(NAME, num_plans=9).plans] == [8, 7, 6, 5, 1]
        assert store.recover(NAME, num_plans=2).deployment.committed == 1


def test_recover_nobody(store: Store) -> None:
    """Only what exists is found."""
    with pytest.raises(NotFoundError) as refusal:
        store.recover(NAME, num_plans=1)
    assert refusal.value.reason == "DEPLOYMENT_UNKNOWN"
