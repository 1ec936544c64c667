"""What the core asks of the store, and how it hears what became of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.errors import NotFoundError
from expertplane_server.core.plan import PlanState, Reason
from expertplane_server.runtime.persistence import Persistence

from .. import builders


if TYPE_CHECKING:
    from .conftest import Bench


@pytest.fixture
def persistence(bench: Bench) -> Persistence:
    """The store of a deployment that exists."""
    bench.store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
    bench.store.calls.clear()
    return Persistence(builders.group(), bench.services)


def store_plan(**changes: Any) -> fx.StorePlan:
    """Return the wish to publish a plan."""
    fields: dict[str, Any] = {
        "draft": builders.draft(),
        "state": PlanState.STAGING,
        "decision": builders.decision(),
        "expected_head": 0,
        **changes,
    }
    return fx.StorePlan(**fields)


STORE_PAUSE = fx.StorePause(is_paused=True, comment="night", request=None)
ASKED: dict[str, fx.Effect] = {
    "publish": store_plan(),
    "commit": fx.CommitPlan(1),
    "abort": fx.AbortPlan(1, builders.decision(2, Reason.FAILED_ROLLOUT)),
    "set_paused": STORE_PAUSE,
    "update_deployment": fx.StoreSpec(
        spec=builders.spec(), etag="", is_new_generation=False, request=None
    ),
}
NOTED: dict[str, fx.Effect] = {
    "mark_applied": fx.StoreApplied(1),
    "park": fx.StoreParked(builders.parked()),
    "supersede": fx.StoreSuperseded(builders.incarnation(1)),
    "record": fx.Record(builders.decision()),
}


async def test_life_of_a_plan(bench: Bench, persistence: Persistence) -> None:
    """Staged, then committed, or given up: each answered by its own event."""
    stored = await persistence.carry_out(store_plan())
    assert isinstance(stored, ev.Stored)
    assert (stored.plan.version, stored.plan.state) == (1, PlanState.STAGING)
    assert await persistence.carry_out(fx.CommitPlan(1)) == ev.PlanCommitted(version=1)
    assert await persistence.carry_out(fx.StoreApplied(1)) is None
    await persistence.carry_out(store_plan(expected_head=1, decision=builders.decision(2)))
    given_up = fx.AbortPlan(2, builders.decision(3, Reason.FAILED_ROLLOUT))
    assert await persistence.carry_out(given_up) == ev.PlanAborted(version=2)

    states = [plan.state for plan in bench.store.plans(builders.NAME, below=9, limit=9)]
    assert states == [PlanState.ABORTED, PlanState.APPLIED]
    recovered = bench.store.recover(builders.NAME, num_plans=9)
    assert [each.sequence for each in recovered.decisions] == [1, 2, 3]


async def test_deployment(bench: Bench, persistence: Persistence) -> None:
    """A pause and a new spec come back as the store has them."""
    paused = await persistence.carry_out(STORE_PAUSE)
    assert isinstance(paused, ev.DeploymentStored)
    assert paused.deployment == bench.store.deployments()[0]
    changed = fx.StoreSpec(
        spec=builders.spec(model_name="m"),
        etag=paused.deployment.etag,
        is_new_generation=True,
        request=None,
    )
    updated = await persistence.carry_out(changed)

    assert isinstance(updated, ev.DeploymentStored)
    assert updated.deployment == bench.store.deployments()[0]
    assert (updated.deployment.generation, updated.deployment.is_paused) == (2, True)


@pytest.mark.parametrize("operation", ASKED)
async def test_store_that_fails(bench: Bench, persistence: Persistence, operation: str) -> None:
    """Of a store that fails nobody knows what it did."""
    bench.store.failing.add(operation)
    answer = await persistence.carry_out(ASKED[operation])

    assert isinstance(answer, ev.StoreFailed)
    assert (answer.is_refusal, answer.error.reason) == (False, "STORE_UNAVAILABLE")
    assert bench.count("store_errors_total", operation=operation) == 1


@pytest.mark.parametrize("operation", ASKED)
async def test_refusal(bench: Bench, persistence: Persistence, operation: str) -> None:
    """A store that turns something down has answered: nothing has changed."""
    bench.store.delete_deployment(builders.NAME, etag="", request_id="", now_s=0.0)
    answer = await persistence.carry_out(ASKED[operation])

    assert isinstance(answer, ev.StoreFailed)
    assert answer.is_refusal
    assert isinstance(answer.error, NotFoundError)
    assert bench.count("core_errors_total") == 0


async def test_term_that_is_over(bench: Bench, persistence: Persistence) -> None:
    """Nothing is written under a term that is over."""
    bench.store.raise_counters(builders.NAME, version=0, epoch=7)
    answer = await persistence.carry_out(store_plan())

    assert isinstance(answer, ev.StoreFailed)
    assert (answer.is_refusal, answer.error.reason) == (True, "STALE_EPOCH")


async def test_defect(
    bench: Bench, persistence: Persistence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a defect nobody knows either; it is counted."""

    def fail(*args: Any, **told: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(bench.store, "commit", fail)
    answer = await persistence.carry_out(fx.CommitPlan(1))

    assert isinstance(answer, ev.StoreFailed)
    assert (answer.is_refusal, answer.error.reason) == (False, "DEFECT")
    assert "ZeroDivisionError: oops" in answer.message
    assert bench.count("core_errors_total") == 1


@pytest.mark.parametrize("operation", NOTED)
async def test_best_effort(
    bench: Bench, persistence: Persistence, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody waits for is tried once; a failure is logged, and nothing else."""
    bench.store.failing.add(operation)
    with caplog.at_level(logging.WARNING):
        assert await persistence.carry_out(NOTED[operation]) is None

    assert "not stored" in caplog.text
    assert bench.count("store_errors_total", operation=operation) == 1


async def test_notes(bench: Bench, persistence: Persistence) -> None:
    """Refusals, superseded incarnations and decisions are there after a restart."""
    for effect in NOTED.values():
        await persistence.carry_out(effect)
    # What a transaction has written already is not written again.
    await persistence.carry_out(fx.Record(builders.decision(2), is_stored=True))
    recovered = bench.store.recover(builders.NAME, num_plans=1)

    assert recovered.parked == (builders.parked(),)
    assert recovered.superseded == (builders.incarnation(1),)
    assert [each.sequence for each in recovered.decisions] == [1]


async def test_read_back(bench: Bench, persistence: Persistence) -> None:
    """What is read back is what a restart would find; None where it cannot be read."""
    await persistence.carry_out(store_plan())
    answer = await persistence.carry_out(fx.ReadBack())
    assert answer == ev.ReadBack(bench.store.recover(builders.NAME, num_plans=16))
    bench.store.failing.add("recover")

    assert await persistence.carry_out(fx.ReadBack()) == ev.ReadBack(None)


async def test_no_store_effect(persistence: Persistence) -> None:
    """What is no matter of the store is a defect here."""
    with pytest.raises(AssertionError, match="no way to carry out Announce"):
        await persistence.carry_out(fx.Announce(None))
