"""What every store promises an operator: new specs, pauses, the journal, repeated calls."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_server.core import limits
from expertplane_server.core.errors import ConflictError, NotFoundError
from expertplane_server.core.plan import Decision, Evaluation, PlanState, Reason

from .. import builders
from .test_contract import create, delete, publish


if TYPE_CHECKING:
    from expertplane_server.core.spec import Deployment, DeploymentSpec
    from expertplane_server.store import Store


NAME = builders.NAME


def update(store: Store, spec: DeploymentSpec, etag: str, **changes: Any) -> Deployment:
    """Update the deployment in the store's term."""
    told: dict[str, Any] = {
        "is_new_generation": False,
        "epoch": store.epoch,
        "request": None,
        "now_s": 5.0,
    }
    return store.update_deployment(NAME, spec, etag=etag, **{**told, **changes})


def pause(store: Store, *, is_paused: bool = True, **changes: Any) -> Deployment:
    """Pause the deployment in the store's term, or lift its pause."""
    told: dict[str, Any] = {
        "comment": "maintenance",
        "epoch": store.epoch,
        "request": None,
        "now_s": 5.0,
    }
    return store.set_paused(NAME, is_paused=is_paused, **{**told, **changes})


def record(store: Store, decision: Decision, **changes: Any) -> None:
    """Enter a decision in the store's term."""
    told: dict[str, Any] = {"epoch": store.epoch, "request": None, "now_s": 5.0}
    store.record(NAME, decision, **{**told, **changes})


def test_update(store: Store) -> None:
    """A new spec takes the old one's place under another etag; plans and counters stay."""
    first = create(store)
    publish(store)
    wanted = builders.spec(min_gain=0.5)
    updated = update(store, wanted, first.etag)

    assert updated == replace(first, spec=wanted, etag=updated.etag, head=1, committed=1)
    assert updated.etag != first.etag
    assert store.deployments() == [updated]
    assert store.plan(NAME, 1).state is PlanState.COMMITTED


def test_same_spec_again(store: Store) -> None:
    """Also an update that changes nothing has an etag of its own."""
    first = create(store)

    assert update(store, first.spec, first.etag).etag != first.etag


@pytest.mark.parametrize("etag", ["", "stale"])
def test_update_with_another_etag(store: Store, etag: str) -> None:
    """An update must say which spec it was written against; without an etag it does not."""
    first = create(store)

    with pytest.raises(ConflictError) as refusal:
        update(store, builders.spec(min_gain=0.5), etag, request=builders.request())
    assert (refusal.value.field, refusal.value.reason) == ("etag", "STALE_ETAG")
    assert store.deployments() == [first]
    assert store.answered("r1") is None


def test_new_generation(store: Store) -> None:
    """A new generation is counted, and leaves the committed version known."""
    first = create(store)
    publish(store)
    wanted = builders.spec(topology=builders.topology(slots_per_rank=4))
    updated = update(store, wanted, first.etag, is_new_generation=True)

    assert (updated.generation, updated.head, updated.committed) == (2, 1, 1)
    assert publish(store).version == 2
    assert store.plan(NAME, 1).state is PlanState.SUPERSEDED


@pytest.mark.parametrize(
    ("changes", "is_kept"),
    [
        ({"topology": builders.topology(slots_per_rank=4)}, True),
        ({"layer_ids": (4,)}, False),
        ({"layer_ids": (3, 4)}, False),
        ({"num_logical_experts": 3}, False),
    ],
)
def test_forecast_in_a_new_generation(
    store: Store, changes: dict[str, Any], is_kept: bool
) -> None:
    """What was learned of the load goes along where layers and experts are the same."""
    first = create(store)
    store.save_forecast(NAME, 1, b"learned", now_s=0.0)
    update(store, builders.spec(**changes), first.etag, is_new_generation=True)

    assert store.forecast(NAME, 2) == (b"learned" if is_kept else None)
    assert store.forecast(NAME, 1) is None
    store.save_forecast(NAME, 1, b"late", now_s=0.0)
    assert store.forecast(NAME, 1) is None
    store.save_forecast(NAME, 2, b"new", now_s=0.0)
    assert store.forecast(NAME, 2) == b"new"


def test_forecast_without_a_new_generation(store: Store) -> None:
    """A new spec of the same generation keeps what was learned."""
    first = create(store)
    store.save_forecast(NAME, 1, b"learned", now_s=0.0)
    update(store, builders.spec(min_gain=0.5), first.etag)

    assert store.forecast(NAME, 1) == b"learned"


def test_pause(store: Store) -> None:
    """A pause is kept with its comment, its end without; neither changes the etag."""
    first = create(store)
    paused = replace(first, is_paused=True, pause_comment="maintenance")

    assert not first.is_paused
    assert pause(store) == paused
    assert store.deployments() == [paused]
    again = pause(store, comment="still")
    assert (again.is_paused, again.pause_comment) == (True, "still")
    assert pause(store, is_paused=False) == first
    assert pause(store, is_paused=False) == first
    assert store.deployments() == [first]


def test_pause_outlives_what_happens(store: Store) -> None:
    """Neither a plan nor a new spec lifts a pause."""
    first = create(store)
    pause(store)
    publish(store)
    updated = update(store, builders.spec(min_gain=0.5), first.etag, is_new_generation=True)

    assert (updated.is_paused, updated.pause_comment) == (True, "maintenance")
    delete(store)
    assert not create(store).is_paused


def test_every_field_of_a_decision(store: Store) -> None:
    """A decision comes back whole."""
    create(store)
    wanted = Decision(
        sequence=2**40,
        epoch=7,
        reason=Reason.SKIPPED_GAIN_TOO_SMALL,
        message="Expected more, got 0.1 \u00b5s.",
        decided_at_s=1234.5,
        num_samples=16,
        incumbent=3,
        plan_version=4,
        evaluation=Evaluation.HELD_OUT,
        balancedness_before=0.5,
        balancedness_after=0.625,
        gain=0.1,
        gain_s=1e-9,
        cost_s=2.5,
        moved_slots=11,
        solve_s=0.75,
    )
    unset = [
        each.name for each in fields(wanted) if getattr(wanted, each.name) in (0, None, "", 0.0)
    ]
    record(store, wanted)

    assert unset == []
    assert store.decision(NAME, 2**40) == wanted
    bare = builders.decision(1, Reason.SKIPPED_ZERO_LOAD)
    record(store, bare)
    assert store.recover(NAME, num_plans=1).decisions == (bare, wanted)


def test_decision_in_place_of_another(store: Store) -> None:
    """A decision that is told again, with more to say, is entered once."""
    create(store)
    record(store, builders.decision(1, Reason.FAILED_STORE))
    record(store, builders.decision(2))
    record(store, builders.decision(1, Reason.PUBLISHED, plan_version=1))

    kept = store.recover(NAME, num_plans=1).decisions
    assert [(each.sequence, each.reason) for each in kept] == [
        (1, Reason.PUBLISHED),
        (2, Reason.PUBLISHED),
    ]


def test_journal_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decisions of the highest sequences are kept, by deployment."""
    monkeypatch.setattr(limits, "MAX_JOURNAL", 3)
    create(store)
    create(store, "b/b")
    store.record("b/b", builders.decision(1), epoch=1, request=None, now_s=0.0)
    for sequence in (5, 3, 4, 1, 9, 7):
        record(store, builders.decision(sequence))

    kept = store.recover(NAME, num_plans=1).decisions
    assert [each.sequence for each in kept] == [5, 7, 9]
    assert len(store.recover("b/b", num_plans=1).decisions) == 1
    with pytest.raises(NotFoundError) as refusal:
        store.decision(NAME, 4)
    assert refusal.value.reason == "DECISION_UNKNOWN"


def test_decision_of_nobody(store: Store) -> None:
    """A journal needs its deployment."""
    with pytest.raises(NotFoundError):
        record(store, builders.decision())
    with pytest.raises(NotFoundError):
        store.decision(NAME, 1)


def test_nobody_to_update_or_pause(store: Store) -> None:
    """Only what exists is updated or paused."""
    with pytest.raises(NotFoundError):
        update(store, builders.spec(), "etag")
    with pytest.raises(NotFoundError):
        pause(store)


def test_request_ids_are_told(store: Store) -> None:
    """What an id was used for can be asked, of every kind of call; an unused one says nothing."""
    first = create(store, request_id="create")
    update(store, first.spec, first.etag, request=builders.request("update", "update prod/v3"))
    pause(store, request=builders.request("pause", "pause prod/v3"))
    record(store, builders.decision(8), request=builders.request("solve", "rebalance prod/v3"))
    delete(store, request_id="delete")

    told = {
        name: store.answered(name) for name in ("create", "update", "pause", "solve", "delete")
    }
    assert {name: (each.call, each.answer) for name, each in told.items() if each} == {
        "create": ("create prod/v3", 0),
        "update": ("update prod/v3", 0),
        "pause": ("pause prod/v3", 0),
        "solve": ("rebalance prod/v3", 8),
        "delete": ("delete prod/v3", 0),
    }
    assert store.answered("other") is None
    assert store.answered("") is None


def test_request_id_used_before(store: Store) -> None:
    """Whatever an id was used for, nothing is done under it again, by the same call neither."""
    first = create(store, request_id="r1")
    record(store, builders.decision(1), request=builders.request("r2", "rebalance prod/v3"))
    for asked in (
        builders.request("r1", "create prod/v3"),
        builders.request("r2", "rebalance prod/v3"),
    ):
        for call in (
            lambda asked=asked: update(store, builders.spec(), first.etag, request=asked),
            lambda asked=asked: pause(store, request=asked),
            lambda asked=asked: record(store, builders.decision(2), request=asked),
        ):
            with pytest.raises(ConflictError) as refusal:
                call()
            assert refusal.value.reason == "REQUEST_ID_REUSED"

    assert store.deployments() == [first]
    assert len(store.recover(NAME, num_plans=1).decisions) == 1
    with pytest.raises(ConflictError):
        create(store, "b/b", request_id="r2")


def test_orders_in_another_term(store: Store) -> None:
    """An owner whose term is over updates, pauses and records nothing."""
    first = create(store)
    for call in (
        lambda: update(store, builders.spec(min_gain=0.5), first.etag, epoch=2),
        lambda: pause(store, epoch=2),
        lambda: record(store, builders.decision(), epoch=2),
    ):
        with pytest.raises(ConflictError) as refusal:
            call()
        assert refusal.value.reason == "STALE_EPOCH"

    assert store.deployments() == [first]
    assert store.recover(NAME, num_plans=1).decisions == ()
