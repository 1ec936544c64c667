"""SQLite against memory: any order of calls, also across restarts, and both say the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from expertplane_server.core.errors import ServiceError
from expertplane_server.store import MemoryStore, SqliteStore

from .. import builders


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane_server.core.spec import Deployment
    from expertplane_server.store import Store


NAMES = st.sampled_from(["a/a", "b/b"])
REQUEST_IDS = st.sampled_from(["", "", "r1", "r2"])


class StoreMachine(RuleBasedStateMachine):
    """Two stores that hear the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "planner.db"
        self.sqlite = SqliteStore(self.path)
        self.memory = MemoryStore()

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

    @rule(name=NAMES, offset=st.sampled_from([0, 0, 0, -1]))
    def publish(self, name: str, offset: int) -> None:
        """Publish a plan, perhaps in a term that is over."""
        self.both(
            lambda store: (
                store.publish(
                    builders.draft(name=name), epoch=store.epoch + offset, now_s=0.0
                ).version
            )
        )

    @rule(name=NAMES, version=st.integers(0, 9))
    def mark_applied(self, name: str, version: int) -> None:
        """Mark a plan applied."""
        self.both(lambda store: store.mark_applied(name, version))

    @rule(name=NAMES, version=st.integers(0, 12), epoch=st.integers(0, 12))
    def raise_counters(self, name: str, version: int, epoch: int) -> None:
        """Raise the counters."""
        self.both(lambda store: store.raise_counters(name, version=version, epoch=epoch))

    @rule(name=NAMES, generation=st.integers(1, 2), checkpoint=st.binary(max_size=4))
    def save_forecast(self, name: str, generation: int, checkpoint: bytes) -> None:
        """Save a forecast, perhaps of another generation."""
        self.both(lambda store: store.save_forecast(name, generation, checkpoint, now_s=0.0))

    @rule()
    def reopen(self) -> None:
        """Restart the owner; memory can only pretend."""
        self.sqlite.close()
        self.sqlite = SqliteStore(self.path)
        self.memory._epoch += 1

    @invariant()
    def same(self) -> None:
        """Deployments, plans and term are the same."""
        self.both(lambda store: store.epoch)
        self.both(lambda store: store.deployments())
        for name in ("a/a", "b/b"):
            self.both(lambda store, name=name: store.forecast(name, 1))  # type: ignore[misc]  # bound in the loop
            self.both(
                lambda store, name=name: [  # type: ignore[misc]  # bound in the loop
                    (plan.version, plan.epoch, plan.state, plan.digest)
                    for plan in store.plans(name, below=2**63 - 1, limit=50)
                ]
            )


def _comparable(answer: Any) -> Any:
    """Return an answer without the etags, which are random."""
    match answer:
        case list():
            return [_comparable(each) for each in answer]
        case (deployment, bool() as is_new):
            return _fields(deployment), is_new
        case _ if hasattr(answer, "etag"):
            return _fields(answer)
        case _:
            return answer


def _fields(deployment: Deployment) -> tuple[object, ...]:
    return (
        deployment.name,
        deployment.spec,
        deployment.generation,
        deployment.head,
        deployment.committed,
    )


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_any_order_of_calls = StoreMachine.TestCase
