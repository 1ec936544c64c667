"""Any order of events, with a store that fails now and then: what must hold after each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from expertplane_server.core import effects as fx, events as ev, limits
from expertplane_server.core.group import Group
from expertplane_server.core.plan import Plan, PlanRef, PlanState
from expertplane_server.store import MemoryStore

from .. import builders


STREAMS = st.integers(1, 6)
PLACEMENTS = st.sampled_from([(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 1, 3)])
COUNTS = st.lists(st.integers(0, 3), min_size=4, max_size=4).map(tuple)
REFUSALS = (fx.Refused,)


class GroupMachine(RuleBasedStateMachine):
    """A group over a store, with a model of what was counted and what was refused."""

    @initialize(
        window=st.integers(1, 3),
        coverage=st.sampled_from([0.5, 0.75, 1.0]),
        cooldown_s=st.sampled_from([0.0, 0.0, 3.0]),
    )
    def start(self, window: int, coverage: float, cooldown_s: float) -> None:
        """Create the deployment."""
        self.store = MemoryStore()
        wanted = builders.spec(
            window_samples=window, min_coverage=coverage, deadline_s=2.0, cooldown_s=cooldown_s
        )
        self.store.create_deployment(builders.NAME, wanted, request_id="", now_s=0.0)
        self.now_s = 0.0
        self.next_stream = 1
        self.next_step = 100
        self.sent: dict[int, list[int]] = {}
        self.epochs: list[int] = []
        self.versions: list[int] = []
        self.solving: int | None = None
        self.num_accepted = 0
        self.samples_of_steps: set[tuple[str, int]] = set()
        # (incarnation, digest) that was refused for good.
        self.parked: set[tuple[str, str]] = set()
        self.hellos: dict[int, ev.Hello] = {}
        # By open sample: the ranks that were counted, and their logical tokens.
        self.counted: dict[tuple[str, int], tuple[set[int], np.ndarray[Any, Any]]] = {}
        self._load()

    def _load(self) -> None:
        (stored,) = self.store.deployments()
        plans = self.store.plans(builders.NAME, below=2**63 - 1, limit=16)
        self.group = Group(stored, plans, epoch=self.store.epoch, heartbeat_interval_s=5.0)
        self.solving = None

    def tell(self, event: ev.Event) -> list[fx.Effect]:
        """Hand an event over and carry its effects out, as the driver does."""
        effects = self.group.handle(event, builders.at(self.now_s))
        for effect in effects:
            self._carry_out(effect)
        return effects

    def _carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Send(stream, fx.Commit(plan)):
                self._saw_plan(stream, plan)
            case fx.Send(stream, fx.Welcome(plan=plan)) if plan is not None:
                self._saw_plan(stream, plan)
            case fx.Announce(plan):
                assert self.store.plan(builders.NAME, plan.version).digest == plan.digest
            case fx.StorePlan(draft):
                self._store(draft)
            case fx.StoreApplied(version):
                before = self.store.plan(builders.NAME, version)
                assert before.state is PlanState.COMMITTED
                self.store.mark_applied(builders.NAME, version)
            case fx.RaiseCounters(_, version, epoch):
                head, raised = self.store.raise_counters(
                    builders.NAME, version=version, epoch=epoch
                )
                self.tell(ev.CountersRaised(head=head, epoch=raised))
            case fx.Solve():
                assert self.solving is None
                assert (
                    1 <= len(effect.samples) <= self.group.deployment.spec.trigger.window_samples
                )
                assert sum(sample.sum() for sample in effect.samples) > 0
                self.solving = effect.solve
            case fx.CountSample(fx.SampleFate.ACCEPTED):
                self.num_accepted += 1

    def _saw_plan(self, stream: int, plan: Plan) -> None:
        stored = self.store.plan(builders.NAME, plan.version)
        assert stored.digest == plan.digest, "seen before it was stored"
        member = self.group.members.get(stream)
        assert member is not None, "sent to a stranger"
        assert (member.hello.incarnation, plan.digest) not in self.parked, "sent again"
        seen = self.sent.setdefault(stream, [])
        assert not seen or plan.version >= seen[-1], "an older plan after a newer one"
        seen.append(plan.version)

    def _store(self, draft: Any) -> None:
        if self.fails:
            self.tell(ev.StoreFailed(message="disk full"))
            return
        plan = self.store.publish(draft, epoch=self.group.epoch, now_s=self.now_s)
        assert not self.versions or plan.version > self.versions[-1]
        self.versions.append(plan.version)
        self.tell(ev.Stored(plan=plan))

    fails = False

    @rule(
        participant=st.sampled_from("abc"),
        ranks=st.sampled_from([(0,), (1,), (0, 1), (1, 2)]),
        started=st.integers(1, 3),
        run=st.sampled_from(["run-1", "run-2"]),
        generation=st.sampled_from([0, 0, 0, 1, 2]),
        highest=st.sampled_from([0, 0, 0, 3, 50]),
        has_start=st.booleans(),
    )
    def hello(self, has_start: bool, **fields: Any) -> None:
        """A participant comes, perhaps wrongly."""
        highest = fields.pop("highest")
        run = fields.pop("run")
        hello = builders.hello(
            self.next_stream,
            engine_run_id=run,
            highest_version=highest,
            highest_epoch=highest // 2,
            initial_phy2log=np.array([[3, 2, 1, 0]]) if has_start else None,
            **fields,
        )
        before = _observe(self.group)
        effects = self.tell(hello)
        if any(isinstance(e, fx.EndStream) and e.stream == hello.stream for e in effects):
            assert _observe(self.group) == before, "a refused Hello changed something"
        else:
            self.hellos[hello.stream] = hello
        self.next_stream += 1

    @rule(
        stream=STREAMS,
        samples=st.lists(COUNTS, min_size=1, max_size=3),
        first_step=st.integers(0, 6),
        steps_per_sample=st.integers(1, 2),
        plan_version=st.integers(0, 3),
        kind=st.sampled_from(ev.LoadKind),
        scope=st.sampled_from(ev.LoadScope),
        half=st.booleans(),
    )
    def report(self, stream: int, samples: list[Any], half: bool, **fields: Any) -> None:
        """Somebody reports, perhaps wrongly."""
        stream = self.next_stream - stream
        if half:
            samples = [each[:2] for each in samples]
        before = _observe(self.group)
        member = self.group.members.get(stream)
        report = builders.report(*samples, stream=stream, **fields)
        effects = self.tell(report)
        if any(isinstance(e, fx.Send) and isinstance(e.message, fx.Refused) for e in effects):
            assert len(effects) == 1
            assert _observe(self.group) == before, "a refused report changed something"
        elif member is None:
            assert effects == []
        else:
            self._count(report, member.hello)

    def _count(self, report: ev.LoadReport, hello: ev.Hello) -> None:
        """Keep the books on an accepted report, the slow way."""
        for k, counts in enumerate(report.counts):
            key = (hello.engine_run_id, report.first_step + k * report.steps_per_sample)
            ranks, tokens = self.counted.setdefault(key, (set(), np.zeros(1)))
            if ranks.isdisjoint(hello.ranks):
                ranks.update(hello.ranks)
                self.counted[key] = ranks, tokens + counts.sum()

    @rule(counts=COUNTS)
    def all_report(self, counts: Any) -> None:
        """Every member reports the next step, so that samples do get complete."""
        self.next_step += 1
        for member in list(self.group.members):
            report = builders.report(counts, stream=member.hello.stream, first_step=self.next_step)
            self.tell(report)
            self._count(report, member.hello)

    @rule()
    def all_apply(self) -> None:
        """Every member applies the committed plan, if it has not refused it."""
        plan = self.group.committed
        for member in list(self.group.members):
            if plan is not None and member.refused_digest != plan.digest:
                self.tell(builders.applied(plan, stream=member.hello.stream))

    @rule(stream=STREAMS, version=st.integers(0, 4), placement=PLACEMENTS, staged=st.booleans())
    def ack(self, stream: int, version: int, placement: tuple[int, ...], staged: bool) -> None:
        """Somebody claims to have a plan."""
        ref = builders.ref(builders.plan(placement, version=version)) if version else PlanRef()
        phase = ev.AckPhase.STAGED if staged else ev.AckPhase.APPLIED
        before = _observe(self.group)
        effects = self.tell(ev.Ack(stream=self.next_stream - stream, ref=ref, phase=phase))
        if any(isinstance(e, fx.Send) and isinstance(e.message, fx.Refused) for e in effects):
            assert _observe(self.group) == before

    @rule(stream=STREAMS)
    def apply(self, stream: int) -> None:
        """Somebody applies the committed plan."""
        if self.group.committed is not None:
            self.tell(builders.applied(self.group.committed, stream=self.next_stream - stream))

    @rule(stream=STREAMS, age=st.sampled_from([0, 0, 0, 1]), is_transient=st.booleans())
    def nack(self, stream: int, age: int, is_transient: bool) -> None:
        """Somebody refuses the committed plan, or the one before it."""
        stream = self.next_stream - stream
        committed, member = self.group.committed, self.group.members.get(stream)
        version = max(0, self.group.deployment.committed - age)
        self.tell(builders.nack(version, stream=stream, is_transient=is_transient))
        if not is_transient and committed and member and committed.version == version:
            self.parked.add((member.hello.incarnation, committed.digest))

    @rule(stream=STREAMS)
    def lose(self, stream: int) -> None:
        """A stream ends."""
        self.tell(ev.StreamEnded(stream=self.next_stream - stream, is_goodbye=False))

    @rule(span_s=st.sampled_from([0.25, 1.0, 2.0, 16.0]))
    def wait(self, span_s: float) -> None:
        """Time passes."""
        self.now_s += span_s
        self.tell(ev.Tick())

    @precondition(lambda self: self.solving is not None)
    @rule(placement=PLACEMENTS, gain=st.sampled_from([0.0, 0.5, 0.5]), fails=st.booleans())
    def solved(self, placement: tuple[int, ...], gain: float, fails: bool) -> None:
        """The solver answers; the store may fail."""
        number, self.solving = self.solving, None
        assert number is not None
        self.fails = fails
        committed = self.group.deployment.committed
        self.tell(ev.Solved(solve=number, solution=builders.solution(placement, gain=gain)))
        if fails:
            assert self.group.deployment.committed == committed
        self.fails = False

    @precondition(lambda self: self.solving is not None)
    @rule()
    def solve_failed(self) -> None:
        """The solver fails."""
        number, self.solving = self.solving, None
        assert number is not None
        self.tell(ev.SolveFailed(solve=number, message="lost"))

    @rule(number=st.integers(100, 101))
    def stray_answer(self, number: int) -> None:
        """The solver answers what nobody asked."""
        before = _observe(self.group)

        assert self.tell(ev.Solved(solve=number, solution=builders.solution())) == []
        assert _observe(self.group) == before

    @rule()
    def restart(self) -> None:
        """The planner restarts on its store; soft state is gone."""
        for member in list(self.group.members):
            self.tell(ev.StreamEnded(stream=member.hello.stream, is_goodbye=False))
        self.parked.clear()
        self.sent.clear()
        self.counted.clear()
        self._load()

    @invariant()
    def bounded(self) -> None:
        """Nothing grows beyond its cap."""
        sampler = self.group._intake._sampler
        assert len(sampler._open) <= limits.MAX_OPEN_SAMPLES
        assert len(sampler._closed) <= limits.MAX_CLOSED_KEYS
        assert len(self.group._cycle._window.samples) < (
            self.group.deployment.spec.trigger.window_samples
        )

    @invariant()
    def consistent(self) -> None:
        """The group and the store agree; members share no rank."""
        (stored,) = self.store.deployments()
        assert (self.group.deployment.head, self.group.deployment.committed) == (
            stored.head,
            stored.committed,
        )
        assert self.group.epoch == self.store.epoch
        assert stored.committed <= stored.head
        if stored.committed:
            assert self.group.committed is not None
            assert self.group.committed == self.store.plan(builders.NAME, stored.committed)
        ranks = [rank for member in self.group.members for rank in member.hello.ranks]
        assert len(ranks) == len(set(ranks))
        assert set(ranks) == set(self.group.members.ranks)

    @invariant()
    def counted_once(self) -> None:
        """A sample holds the tokens of each rank once, and is accepted once at most."""
        sampler = self.group._intake._sampler
        assert self.group.num_samples <= len(sampler._closed)
        for key, sample in sampler._open.items():
            ranks, tokens = self.counted[key]
            assert sample.reported == ranks
            assert sample.total.sum() == tokens.sum()


def _observe(group: Group) -> object:
    """Return everything about a group that an event may change, but for signs of life."""
    sampler = group._intake._sampler
    return (
        group.deployment,
        group.epoch,
        group.committed,
        group.num_samples,
        group.num_dropped_samples,
        [(m.hello.stream, m.applied, m.refused_digest, m.wants_retry) for m in group.members],
        dict(group.members._departed),
        list(group.members._superseded),
        {
            key: (
                sample.total.tolist(),
                set(sample.missing),
                set(sample.reported),
                set(sample.versions),
                sample.deadline_s,
            )
            for key, sample in sampler._open.items()
        },
        list(sampler._closed),
        len(group._cycle._window.samples),
        group._cycle.is_busy,
        group.journal.latest,
        group._intake.initial.tolist(),
    )


GroupMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_any_order_of_events = GroupMachine.TestCase
