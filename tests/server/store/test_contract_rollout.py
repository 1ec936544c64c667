"""What every store promises about the states of plans, and about how many it keeps."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from expertplane_server.core.errors import ConflictError, InvalidArgumentError, NotFoundError
from expertplane_server.core.plan import PlanState, Reason, Request
from expertplane_server.store.base import Answered

from .. import builders
from .test_contract import create, delete, publish, versions


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane_server.core.plan import Decision, Plan
    from expertplane_server.store import Store

    from .conftest import OpenStore

NAME = builders.NAME
STAGING, COMMITTED, APPLIED, ABORTED, SUPERSEDED = PlanState


def stage(store: Store) -> Plan:
    """Publish a plan that is not committed yet."""
    return builders.published(store, state=STAGING)


def commit(store: Store, version: int) -> None:
    """Commit a plan in the store's term."""
    store.commit(NAME, version, epoch=store.epoch)


def abort(store: Store, version: int) -> Decision:
    """Abort a plan in the store's term; the decision has the sequence 10 + version."""
    why = builders.decision(10 + version, Reason.FAILED_ROLLOUT, plan_version=version)
    store.abort(NAME, version, decision=why, epoch=store.epoch, now_s=3.0)
    return why


def states(store: Store) -> list[PlanState]:
    """Return the states of all plans, oldest first."""
    return [plan.state for plan in reversed(store.plans(NAME, below=2**62, limit=1000))]


def counters(store: Store) -> tuple[int, int]:
    """Return head and committed version of the only deployment."""
    (deployment,) = store.deployments()
    return deployment.head, deployment.committed


def test_staging(store: Store) -> None:
    """A staging plan has a version and supersedes nothing."""
    create(store)
    publish(store)
    plan = stage(store)

    assert (plan.version, plan.state) == (2, STAGING)
    assert counters(store) == (2, 1)
    assert states(store) == [COMMITTED, STAGING]


def test_commit(store: Store) -> None:
    """A commit supersedes the plan committed before, and is done once though asked for twice."""
    create(store)
    publish(store)
    store.mark_applied(NAME, 1, epoch=1)
    stage(store)
    for _ in range(2):
        commit(store, 2)
        assert states(store) == [SUPERSEDED, COMMITTED]
        assert counters(store) == (2, 2)

    store.mark_applied(NAME, 2, epoch=1)
    commit(store, 2)
    assert states(store) == [SUPERSEDED, APPLIED]


def test_commit_supersedes_the_committed_plan_alone(store: Store) -> None:
    """Burned versions stay aborted when a later one is committed."""
    create(store)
    publish(store)
    stage(store)
    abort(store, 2)
    stage(store)
    commit(store, 3)

    assert states(store) == [SUPERSEDED, ABORTED, COMMITTED]
    assert counters(store) == (3, 3)


def test_abort(store: Store) -> None:
    """An abort burns a version, leaves the committed plan alone, and is explained once."""
    create(store)
    publish(store)
    stage(store)
    why = abort(store, 2)
    again = builders.decision(99, Reason.FAILED_ROLLOUT, plan_version=2)
    store.abort(NAME, 2, decision=again, epoch=1, now_s=4.0)

    assert states(store) == [COMMITTED, ABORTED]
    assert counters(store) == (2, 1)
    assert store.decision(NAME, why.sequence) == why
    assert store.recover(NAME, num_plans=9).decisions[-1] == why
    assert publish(store).version == 3


def test_no_commit_after_an_abort(store: Store) -> None:
    """What is aborted, or superseded, is never committed."""
    create(store)
    stage(store)
    abort(store, 1)
    publish(store)
    publish(store)

    for version in (1, 2):
        with pytest.raises(ConflictError) as refusal:
            commit(store, version)
        assert refusal.value.reason == "PLAN_NOT_STAGING"
    assert states(store) == [ABORTED, SUPERSEDED, COMMITTED]


def test_no_commit_below_the_committed_version(store: Store) -> None:
    """Permission to switch never goes back to a lower version."""
    create(store)
    stage(store)
    publish(store)

    with pytest.raises(ConflictError, match="above the committed version 2"):
        commit(store, 1)
    assert counters(store) == (2, 2)


def test_no_abort_after_a_commit(store: Store) -> None:
    """What is committed, or has been, is never aborted, and its journal stays as it is."""
    create(store)
    for _ in range(2):
        publish(store)
    for is_applied in (False, True):
        if is_applied:
            store.mark_applied(NAME, 2, epoch=1)
        for version in (1, 2):
            with pytest.raises(ConflictError) as refusal:
                abort(store, version)
            assert refusal.value.reason == "PLAN_NOT_STAGING"

    assert states(store) == [SUPERSEDED, APPLIED]
    assert len(store.recover(NAME, num_plans=9).decisions) == 2


@pytest.mark.parametrize("name", [NAME, "no/such"])
def test_what_is_not_there(store: Store, name: str) -> None:
    """Only what exists is committed or aborted."""
    create(store)

    with pytest.raises(NotFoundError):
        store.commit(name, 1, epoch=1)
    with pytest.raises(NotFoundError):
        store.abort(name, 1, decision=builders.decision(), epoch=1, now_s=0.0)


def test_only_committed_plans_are_applied(store: Store) -> None:
    """Staging and aborted plans pass the news by."""
    create(store)
    for version in (1, 2):
        stage(store)
        if version == 1:
            abort(store, 1)
        store.mark_applied(NAME, version, epoch=1)

    assert states(store) == [ABORTED, STAGING]


def test_decision_of_a_plan(store: Store) -> None:
    """A plan's decision is in the journal with its version, all figures included."""
    create(store)
    publish(store)
    wanted = builders.decision(
        7, gain=0.25, solve_s=1.5, moved_slots=3, message="d\u00e9j\u00e0 vu", incumbent=1
    )
    store.publish(
        builders.draft(),
        state=STAGING,
        decision=wanted,
        expected_head=1,
        epoch=1,
        request=None,
        now_s=0.0,
    )

    kept = store.decision(NAME, 7)
    assert kept == builders.decision(
        7,
        gain=0.25,
        solve_s=1.5,
        moved_slots=3,
        message="d\u00e9j\u00e0 vu",
        incumbent=1,
        plan_version=2,
    )


@pytest.mark.parametrize("head", [0, 2])
def test_publish_above_another_head(store: Store, head: int) -> None:
    """Who does not know the head publishes nothing, and is told what it is."""
    create(store)
    publish(store)

    with pytest.raises(ConflictError, match="current head 1 ") as refusal:
        store.publish(
            builders.draft(),
            state=COMMITTED,
            decision=builders.decision(2),
            expected_head=head,
            epoch=1,
            request=builders.request(),
            now_s=0.0,
        )
    assert (refusal.value.field, refusal.value.reason) == ("expected_head", "STALE_HEAD")
    assert (versions(store), counters(store)) == ([1], (1, 1))
    assert store.answered("r1") is None
    with pytest.raises(NotFoundError):
        store.decision(NAME, 2)


def test_published_by_request(store: Store) -> None:
    """A request id is remembered with the version, and publishes nothing more."""
    create(store)
    publish(store)
    builders.published(store, asked=builders.request())
    first = store.answered("r1")

    assert first is not None
    assert (first.call, first.answer) == ("publish prod/v3", 2)
    with pytest.raises(ConflictError) as refusal:
        builders.published(store, asked=builders.request())
    assert (refusal.value.field, refusal.value.reason) == ("request_id", "REQUEST_ID_REUSED")
    assert versions(store) == [2, 1]
    assert len(store.recover(NAME, num_plans=9).decisions) == 2


@pytest.mark.parametrize("epoch", [0, 2])
def test_states_in_another_term(store: Store, epoch: int) -> None:
    """An owner whose term is over commits, aborts and applies nothing."""
    create(store)
    publish(store)
    stage(store)
    why = builders.decision(9)
    calls: list[Callable[[], None]] = [
        lambda: store.commit(NAME, 2, epoch=epoch),
        lambda: store.mark_applied(NAME, 1, epoch=epoch),
        lambda: store.abort(NAME, 2, decision=why, epoch=epoch, now_s=0.0),
    ]
    for call in calls:
        with pytest.raises(ConflictError) as refusal:
            call()
        assert refusal.value.reason == "STALE_EPOCH"

    assert states(store) == [COMMITTED, STAGING]


def test_plans_are_bounded(open_store: OpenStore) -> None:
    """The latest plans are kept, aborted ones among them, and no more."""
    with closing(open_store(keep_plans=3)) as store:
        create(store)
        for version in range(1, 8):
            if version % 2:
                publish(store)
            else:
                stage(store)
                abort(store, version)

        assert versions(store) == [7, 6, 5]
        assert states(store) == [SUPERSEDED, ABORTED, COMMITTED]
        with pytest.raises(NotFoundError):
            store.plan(NAME, 4)


def test_the_committed_plan_is_kept(open_store: OpenStore) -> None:
    """However many versions are burned, the plan in force is there, applied or not."""
    with closing(open_store(keep_plans=2)) as store:
        create(store)
        publish(store)
        publish(store)
        store.mark_applied(NAME, 2, epoch=1)
        for version in range(3, 8):
            stage(store)
            abort(store, version)

        assert versions(store) == [7, 6, 2]
        assert states(store) == [APPLIED, ABORTED, ABORTED]
        stage(store)
        commit(store, 8)
        assert publish(store).version == 9
        assert versions(store) == [9, 8]


def test_the_staging_plan_is_kept(open_store: OpenStore) -> None:
    """A plan on its way is not pruned, whatever is published meanwhile."""
    with closing(open_store(keep_plans=2)) as store:
        create(store)
        stage(store)
        for _ in range(3):
            publish(store)

        assert versions(store) == [4, 3, 1]
        abort(store, 1)
        publish(store)
        assert versions(store) == [5, 4]


def test_plans_are_pruned_by_deployment(open_store: OpenStore) -> None:
    """What one deployment publishes costs another nothing."""
    with closing(open_store(keep_plans=2)) as store:
        create(store)
        create(store, "b/b")
        publish(store)
        publish(store)
        for _ in range(3):
            publish(store, name="b/b")

        assert versions(store) == [2, 1]


def test_two_plans_are_the_least(open_store: OpenStore) -> None:
    """A store that kept one plan would have none to go back to."""
    with pytest.raises(InvalidArgumentError, match="at least 2 plans, got 1"):
        open_store(keep_plans=1)


def test_journal_goes_with_its_deployment(store: Store) -> None:
    """A deployment of an earlier name has a journal of its own."""
    create(store)
    publish(store)
    delete(store)
    create(store)

    assert store.recover(NAME, num_plans=9).decisions == ()


def test_published_by_request_for_a_decision(store: Store) -> None:
    """Who asked for a decision is answered with its sequence when the call is repeated."""
    create(store)
    publish(store)
    asked = Request("r1", "rebalance prod/v3", is_for_decision=True)
    store.publish(
        builders.draft(),
        state=PlanState.COMMITTED,
        decision=builders.decision(7),
        expected_head=1,
        epoch=store.epoch,
        request=asked,
        now_s=0.0,
    )

    assert store.answered("r1") == Answered("rebalance prod/v3", 7)
