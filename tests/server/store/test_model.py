"""SQLite against memory: any order of calls, also across restarts, and both say the same."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from expertplane_server.core import limits
from expertplane_server.core.errors import ServiceError
from expertplane_server.core.plan import Plan, PlanState, Request
from expertplane_server.core.recovered import Recovered
from expertplane_server.core.spec import Deployment
from expertplane_server.store import MemoryStore, SqliteStore, bounds

from .. import builders


if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from expertplane_server.store import Store


KEEP_PLANS = 3
NAMES = st.sampled_from(["a/a", "a/a", "b/b"])
REQUEST_IDS = st.sampled_from(["", "", "", "r1", "r2"])
VERSIONS = st.integers(0, 9)
SEQUENCES = st.integers(1, 9)
# 0 is the store's own term, or the deployment's own head.
OFFSETS = st.sampled_from([0, 0, 0, 0, -1, 1])
SPECS = st.sampled_from(
    [
        builders.spec(),
        builders.spec(layer_ids=(4,)),
        builders.spec(topology=builders.topology(slots_per_rank=3)),
    ]
)


class StoreMachine(RuleBasedStateMachine):
    """Two stores that hear the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "planner.db"
        self.sqlite = SqliteStore(self.path, keep_plans=KEEP_PLANS)
        self.memory = MemoryStore(keep_plans=KEEP_PLANS)
        self.heads: dict[str, int] = {}

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.sqlite.close()
        self.folder.cleanup()

    def both(self, call: Callable[[Store], Any]) -> None:
        """Make a call to both stores and compare the answers."""
        answers = []
        for store in (self.sqlite, self.memory):
            try:
                answers.append(_comparable(call(store)))
            except ServiceError as error:
                answers.append((type(error), error.reason, error.field))
        assert answers[0] == answers[1]

    @rule(name=NAMES, request_id=REQUEST_IDS)
    def create(self, name: str, request_id: str) -> None:
        """Create a deployment."""
        self.both(
            lambda store: store.create_deployment(
                name, builders.spec(), request_id=request_id, now_s=0.0
            )
        )

    @rule(name=NAMES, request_id=REQUEST_IDS, etag=st.sampled_from(["", "", "stale"]))
    def delete(self, name: str, request_id: str, etag: str) -> None:
        """Delete a deployment."""
        self.both(
            lambda store: store.delete_deployment(
                name, etag=etag, request_id=request_id, now_s=0.0
            )
        )

    @rule(
        name=NAMES,
        spec=SPECS,
        is_stale=st.booleans(),
        is_new=st.booleans(),
        offset=OFFSETS,
        request_id=REQUEST_IDS,
    )
    def update(
        self, name: str, spec: Any, is_stale: bool, is_new: bool, offset: int, request_id: str
    ) -> None:
        """Update a deployment, perhaps with another's etag."""
        self.both(
            lambda store: store.update_deployment(
                name,
                spec,
                etag="" if is_stale else _etag(store, name),
                is_new_generation=is_new,
                epoch=store.epoch + offset,
                request=_request(request_id, "update"),
                now_s=0.0,
            )
        )

    @rule(name=NAMES, is_paused=st.booleans(), offset=OFFSETS, request_id=REQUEST_IDS)
    def pause(self, name: str, is_paused: bool, offset: int, request_id: str) -> None:
        """Pause a deployment, or lift its pause."""
        self.both(
            lambda store: store.set_paused(
                name,
                is_paused=is_paused,
                comment="why",
                epoch=store.epoch + offset,
                request=_request(request_id, "pause"),
                now_s=0.0,
            )
        )

    @rule(
        name=NAMES,
        state=st.sampled_from([PlanState.STAGING, PlanState.COMMITTED]),
        sequence=SEQUENCES,
        head_offset=OFFSETS,
        offset=OFFSETS,
        request_id=REQUEST_IDS,
    )
    def publish(
        self,
        name: str,
        state: PlanState,
        sequence: int,
        head_offset: int,
        offset: int,
        request_id: str,
    ) -> None:
        """Publish a plan, perhaps in a term that is over, or above another head."""
        self.both(
            lambda store: store.publish(
                builders.draft(name=name),
                state=state,
                decision=builders.decision(sequence),
                expected_head=_head(store, name) + head_offset,
                epoch=store.epoch + offset,
                request=_request(request_id, "publish"),
                now_s=0.0,
            )
        )

    @rule(name=NAMES, back=st.integers(0, 3), offset=OFFSETS)
    def commit(self, name: str, back: int, offset: int) -> None:
        """Commit a plan near the head."""
        self.both(
            lambda store: store.commit(name, _head(store, name) - back, epoch=store.epoch + offset)
        )

    @rule(name=NAMES, back=st.integers(0, 3), sequence=SEQUENCES, offset=OFFSETS)
    def abort(self, name: str, back: int, sequence: int, offset: int) -> None:
        """Abort a plan near the head."""
        self.both(
            lambda store: store.abort(
                name,
                _head(store, name) - back,
                decision=builders.decision(sequence, message="given up"),
                epoch=store.epoch + offset,
                now_s=0.0,
            )
        )

    @rule(name=NAMES, back=st.integers(0, 3), offset=OFFSETS)
    def mark_applied(self, name: str, back: int, offset: int) -> None:
        """Mark a plan near the head applied."""
        self.both(
            lambda store: store.mark_applied(
                name, _head(store, name) - back, epoch=store.epoch + offset
            )
        )

    @rule(name=NAMES, sequence=SEQUENCES, offset=OFFSETS, request_id=REQUEST_IDS)
    def record(self, name: str, sequence: int, offset: int, request_id: str) -> None:
        """Enter a decision."""
        self.both(
            lambda store: store.record(
                name,
                builders.decision(sequence),
                epoch=store.epoch + offset,
                request=_request(request_id, "record"),
                now_s=0.0,
            )
        )

    @rule(
        name=NAMES,
        participant=st.sampled_from("abcd"),
        started=st.sampled_from([1, 1, 1, 2]),
        digest=st.sampled_from(["d1", "d2", "d3"]),
        offset=OFFSETS,
    )
    def park(self, name: str, participant: str, started: int, digest: str, offset: int) -> None:
        """Park a placement."""
        parked = builders.parked(participant, started, digest)
        self.both(lambda store: store.park(name, parked, epoch=store.epoch + offset))

    @rule(name=NAMES, incarnation=st.sampled_from(["i1", "i2", "i3", "i4"]), offset=OFFSETS)
    def supersede(self, name: str, incarnation: str, offset: int) -> None:
        """Supersede an incarnation."""
        self.both(lambda store: store.supersede(name, incarnation, epoch=store.epoch + offset))

    @rule(name=NAMES, version=st.integers(0, 12), epoch=st.integers(0, 12))
    def raise_counters(self, name: str, version: int, epoch: int) -> None:
        """Raise the counters."""
        self.both(lambda store: store.raise_counters(name, version=version, epoch=epoch))

    @rule(name=NAMES, generation=st.integers(1, 3), checkpoint=st.binary(max_size=4))
    def save_forecast(self, name: str, generation: int, checkpoint: bytes) -> None:
        """Save a forecast, perhaps of another generation."""
        self.both(lambda store: store.save_forecast(name, generation, checkpoint, now_s=0.0))

    @rule(name=NAMES, version=VERSIONS, sequence=SEQUENCES, num_plans=st.integers(0, 3))
    def look(self, name: str, version: int, sequence: int, num_plans: int) -> None:
        """Ask for single things."""
        self.both(lambda store: store.plan(name, version))
        self.both(lambda store: store.decision(name, sequence))
        self.both(lambda store: store.recover(name, num_plans=num_plans))

    @rule()
    def reopen(self) -> None:
        """Restart the owner; memory can only pretend."""
        self.sqlite.close()
        self.sqlite = SqliteStore(self.path, keep_plans=KEEP_PLANS)
        self.memory._epoch += 1

    @invariant()
    def same(self) -> None:
        """Both stores hold the same."""
        self.both(lambda store: store.epoch)
        self.both(lambda store: store.deployments())
        for request_id in ("r1", "r2"):
            self.both(lambda store, asked=request_id: store.answered(asked))  # type: ignore[misc]  # bound in the loop
        for name in ("a/a", "b/b"):
            self.both(lambda store, name=name: store.recover(name, num_plans=99))  # type: ignore[misc]  # bound in the loop
            for generation in (1, 2, 3):
                self.both(
                    lambda store, name=name, generation=generation: store.forecast(  # type: ignore[misc]  # bound in the loop
                        name, generation
                    )
                )

    @invariant()
    def sound(self) -> None:
        """Heads never fall; one plan is in force, the committed one; the rest is bounded."""
        for deployment in self.sqlite.deployments():
            name = deployment.name
            assert deployment.committed <= deployment.head
            assert deployment.head >= self.heads.get(name, 0)
            self.heads[name] = deployment.head
            plans = self.sqlite.plans(name, below=2**62, limit=99)
            in_force = [plan.version for plan in plans if plan.state.is_in_force]
            assert in_force == ([deployment.committed] if deployment.committed else [])
            over = [
                plan
                for plan in plans[KEEP_PLANS:]
                if plan.state in (PlanState.ABORTED, PlanState.SUPERSEDED)
            ]
            # They go with the next plan.
            assert len(over) <= 2


def _request(request_id: str, call: str) -> Request | None:
    """Return a request, or none."""
    return Request(request_id, call) if request_id else None


def _deployment(store: Store, name: str) -> Deployment | None:
    return next((each for each in store.deployments() if each.name == name), None)


def _head(store: Store, name: str) -> int:
    found = _deployment(store, name)
    return found.head if found is not None else 0


def _etag(store: Store, name: str) -> str:
    found = _deployment(store, name)
    return found.etag if found is not None else "etag"


def _comparable(answer: Any) -> Any:
    """Return an answer without etags, which are random, and arrays, which do not compare."""
    match answer:
        case list() | tuple():
            return [_comparable(each) for each in answer]
        case Deployment():
            return replace(answer, etag="")
        case Plan():
            return answer.version, answer.epoch, answer.state, answer.digest, answer.draft.parent
        case Recovered():
            return (
                _comparable(answer.deployment),
                _comparable(answer.plans),
                *(answer.decisions, answer.parked, answer.superseded),
            )
        case _:
            return answer


def test_any_order_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of them, in whatever order, both stores answer and hold the same."""
    monkeypatch.setattr(limits, "MAX_JOURNAL", 4)
    monkeypatch.setattr(limits, "MAX_MEMBERS", 3)
    monkeypatch.setattr(bounds, "MAX_PARKED", 2)
    monkeypatch.setattr(bounds, "MAX_REQUESTS", 1)
    run_state_machine_as_test(
        StoreMachine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None)
    )
