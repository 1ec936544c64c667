"""What must be true of a group and its store, at every effect and between any two events."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from expertplane_server.core import effects as fx, limits
from expertplane_server.core.plan import Plan, PlanState

from .. import builders
from .stored import StoredConversation


if TYPE_CHECKING:
    from expertplane_server.core.spec import DeploymentSpec


MAX_WINDOW = 3


class WatchedConversation(StoredConversation):
    """A conversation that is checked at every effect.

    Attributes:
        reached: how often the interesting things happened.
        parked: (incarnation, digest) that was refused for good.
        staged_by: (stream, version) that is staged.
        counted: by open sample, the ranks that were counted, and their logical tokens.
    """

    def __init__(self, wanted: DeploymentSpec) -> None:
        self.sent: dict[tuple[int, type], list[int]] = {}
        self.solving: int | None = None
        self.may_drop_solve = False
        self.reached: Counter[str] = Counter()
        self.heads: list[int] = []
        self.parked: set[tuple[str, str]] = set()
        self.staged_by: set[tuple[int, int]] = set()
        self.counted: dict[tuple[str, int], tuple[set[int], float]] = {}
        super().__init__(wanted)

    # What must be true of every effect.

    def saw(self, effect: fx.Effect) -> None:
        """Check an effect before it is carried out."""
        super().saw(effect)
        match effect:
            case fx.Send(stream, message):
                self._saw_message(stream, message)
            case fx.Announce(plan):
                assert plan is not None
                assert self.plan(plan.version).state.is_in_force, "announced before its commit"
            case fx.StorePlan():
                assert self._staging() is None, "a second plan beside a staging one"
            case fx.CommitPlan(version):
                self._saw_commit(version)
            case fx.StoreApplied(version):
                is_over = self.group._publication.is_in_doubt  # its successor may be there
                assert is_over or self.plan(version).state is PlanState.COMMITTED
                self.reached["applied"] += 1
            case fx.Solve():
                assert self.solving is None or self.may_drop_solve, "two solves at a time"
                assert 1 <= len(effect.samples) <= MAX_WINDOW
                assert sum(sample.sum() for sample in effect.samples) > 0
                self.solving, self.may_drop_solve = effect.solve, False
            case fx.Answer(order):
                assert self.answered[order] == 1, "answered twice"
                assert 1 <= order <= self.asked
            case _:
                self._count_effect(effect)

    def _count_effect(self, effect: fx.Effect) -> None:
        match effect:
            case fx.CountSample(fate):
                self.reached[fate] += 1
            case fx.Record(decision):
                self.reached[decision.reason] += 1
            case fx.RaiseCounters():
                self.reached["raised"] += 1
            case fx.StoreSpec():
                self.may_drop_solve = True

    def _saw_message(self, stream: int, message: fx.Message) -> None:
        match message:
            case fx.Stage(plan):
                assert self.plan(plan.version).state is PlanState.STAGING
                self._saw_plan(stream, plan, fx.Stage)
            case fx.Commit(plan, is_staged):
                assert self.plan(plan.version).state.is_in_force, "permitted before its commit"
                assert not is_staged or (stream, plan.version) in self.staged_by
                self._saw_plan(stream, plan, fx.Commit)
            case fx.Welcome(plan=plan) if plan is not None:
                self._saw_plan(stream, plan, fx.Commit)
            case fx.Abort(version):
                found = self._find(version)
                is_over = found is None or found.state in (PlanState.ABORTED, PlanState.SUPERSEDED)
                assert is_over, "told to drop what is not over"

    def _saw_plan(self, stream: int, plan: Plan, kind: type) -> None:
        assert self.plan(plan.version).digest == plan.digest, "seen before it was stored"
        member = self.group.members.get(stream)
        assert member is not None, "sent to a stranger"
        assert (member.hello.incarnation, plan.digest) not in self.parked, "sent again"
        seen = self.sent.setdefault((stream, kind), [])
        assert not seen or plan.version >= seen[-1], "an older plan after a newer one"
        self.reached[f"{kind.__name__} again"] += plan.version in seen
        seen.append(plan.version)

    def _saw_commit(self, version: int) -> None:
        """Nobody asks for a commit unless all ranks have members, and all of them staged it."""
        members = list(self.group.members)
        ranks = {rank for member in members for rank in member.hello.ranks}
        assert ranks >= set(self.group.deployment.spec.topology.active_ranks)
        assert all((member.hello.stream, version) in self.staged_by for member in members)
        self.reached["commit"] += 1

    def _staging(self) -> Plan | None:
        plans = self.store.plans(builders.NAME, below=2**63 - 1, limit=64)
        staging = [plan for plan in plans if plan.state is PlanState.STAGING]
        assert len(staging) <= 1
        return staging[0] if staging else None

    def _find(self, version: int) -> Plan | None:
        plans = self.store.plans(builders.NAME, below=version + 1, limit=1)
        return plans[0] if plans and plans[0].version == version else None

    # What must be true between any two events.

    def check(self) -> None:
        """Check what must hold between any two events."""
        self._bounded()
        self._consistent()
        self._counted_once()

    def _bounded(self) -> None:
        """Nothing grows beyond its cap."""
        sampler = self.group._state.intake._sampler
        assert len(sampler._open) <= limits.MAX_OPEN_SAMPLES
        assert len(sampler._closed) <= limits.MAX_CLOSED_KEYS
        assert len(self.group._cycle._window.samples) < MAX_WINDOW

    def _consistent(self) -> None:
        """The group and the store agree, unless the group knows that it does not know."""
        group = self.group
        assert group.epoch == self.store.epoch
        ranks = [rank for member in group.members for rank in member.hello.ranks]
        assert len(ranks) == len(set(ranks))
        assert set(ranks) == set(group.members.ranks)
        if group._publication.is_in_doubt:
            return
        (stored,) = self.store.deployments()
        assert group.deployment == stored
        assert stored.committed <= stored.head
        if stored.committed:
            assert group.committed == self.plan(stored.committed)
            assert group.in_force is group.committed.phy2log
        staging = self._staging()
        assert group.staging_version == (staging.version if staging else 0)
        assert stored.head > max(self.heads, default=-1) or stored.head in self.heads
        self.heads.append(stored.head)
        journal = group.journal.after(0, limits.MAX_JOURNAL)
        kept = self.store.recover(builders.NAME, num_plans=1).decisions
        assert [each for each in kept if each not in journal] == []

    def _counted_once(self) -> None:
        """A sample holds the tokens of each rank once, and is accepted once at most."""
        sampler = self.group._state.intake._sampler
        assert self.group.num_samples <= len(sampler._closed)
        for key, sample in sampler._open.items():
            ranks, tokens = self.counted[key]
            assert sample.reported == ranks
            assert sample.total.sum() == tokens
