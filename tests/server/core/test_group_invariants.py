"""Any order of events, with a store that fails now and then: what must hold after each of them."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from expertplane_server.core import effects as fx, events as ev, limits
from expertplane_server.core.group import Group
from expertplane_server.core.plan import Plan, PlanRef, PlanState
from expertplane_server.store import MemoryStore

from .. import builders


PLACEMENTS = [(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 1, 3)]
NUM_SEEDS = 40
NUM_STEPS = 200


class GroupMachine:
    """A group over a store, with a model of what was counted and what was refused."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        window, coverage = rng.randint(1, 3), rng.choice([0.5, 0.75, 1.0])
        cooldown_s = rng.choice([0.0, 0.0, 3.0])
        self.fails = False
        self.started = 1
        self.store = MemoryStore()
        wanted = builders.spec(
            window_samples=window, min_coverage=coverage, deadline_s=2.0, cooldown_s=cooldown_s
        )
        self.store.create_deployment(builders.NAME, wanted, request_id="", now_s=0.0)
        self.now_s = 0.0
        self.next_stream = 1
        self.next_step = 100
        self.sent: dict[int, list[int]] = {}
        self.versions: list[int] = []
        self.solving: int | None = None
        # How often the interesting things happened.
        self.reached: Counter[str] = Counter()
        # (incarnation, digest) that was refused for good.
        self.parked: set[tuple[str, str]] = set()
        # By open sample: the ranks that were counted, and their logical tokens.
        self.counted: dict[tuple[str, int], tuple[set[int], float]] = {}
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
                self.reached["sent again"] += self.sent[stream].count(plan.version) > 1
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
                self.reached["applied"] += 1
            case fx.RaiseCounters(_, version, epoch):
                head, raised = self.store.raise_counters(
                    builders.NAME, version=version, epoch=epoch
                )
                self.tell(ev.CountersRaised(head=head, epoch=raised))
                self.reached["raised"] += 1
            case fx.Solve():
                assert self.solving is None
                assert (
                    1 <= len(effect.samples) <= self.group.deployment.spec.trigger.window_samples
                )
                assert sum(sample.sum() for sample in effect.samples) > 0
                self.solving = effect.solve
            case fx.CountSample(fate):
                self.reached[fate] += 1

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
            self.reached["store failed"] += 1
            self.tell(ev.StoreFailed(message="disk full"))
            return
        self.reached["published"] += 1
        plan = self.store.publish(draft, epoch=self.group.epoch, now_s=self.now_s)
        assert not self.versions or plan.version > self.versions[-1]
        self.versions.append(plan.version)
        self.tell(ev.Stored(plan=plan))

    def hello(self) -> None:
        """A participant comes, perhaps wrongly."""
        rng = self.rng
        participant = rng.choice("aaabbbc")
        own = {"a": (0,), "b": (1,), "c": (0, 1)}[participant]
        highest = rng.choice([0] * 18 + [3, 50])
        hello = builders.hello(
            self.next_stream,
            participant,
            rng.choice([own] * 8 + [(0, 1), (1, 2)]),
            started=rng.choice([self.started, self.started, self.started, 1, 2]),
            engine_run_id=rng.choice(["run-1"] * 5 + ["run-2"]),
            generation=rng.choice([0] * 8 + [1, 2]),
            highest_version=highest,
            highest_epoch=highest // 2,
            initial_phy2log=rng.choice([None, None, None, np.array([[3, 2, 1, 0]])]),
        )
        before = _observe(self.group)
        effects = self.tell(hello)
        if any(isinstance(e, fx.EndStream) and e.stream == hello.stream for e in effects):
            assert _observe(self.group) == before, "a refused Hello changed something"
        self.next_stream += 1

    def report(self) -> None:
        """Somebody reports, perhaps wrongly."""
        rng = self.rng
        stream = self._some_stream()
        width = rng.choice([4, 4, 4, 2])
        samples = [tuple(rng.randrange(4) for _ in range(width)) for _ in range(rng.randint(1, 3))]
        report = builders.report(
            *samples,
            stream=stream,
            first_step=self.next_step - rng.randrange(6),
            steps_per_sample=rng.choice([1, 1, 1, 2]),
            plan_version=rng.choice([0, self.group.deployment.committed, 3]),
            kind=rng.choice([ev.LoadKind.LOGICAL, ev.LoadKind.LOGICAL, ev.LoadKind.PHYSICAL]),
            scope=rng.choice([ev.LoadScope.PARTICIPANT] * 4 + [ev.LoadScope.DEPLOYMENT]),
        )
        before = _observe(self.group)
        member = self.group.members.get(stream)
        effects = self.tell(report)
        if any(isinstance(e, fx.Send) and isinstance(e.message, fx.Refused) for e in effects):
            assert len(effects) == 1
            assert _observe(self.group) == before, "a refused report changed something"
        elif member is None:
            assert effects == []
        else:
            self._count(report, member.hello)

    def all_report(self) -> None:
        """Every member reports the next step, so that samples do get complete."""
        self.next_step += 1
        most = self.rng.choice([1] + [4] * 9)
        counts = tuple(self.rng.randrange(most) for _ in range(4))
        for member in list(self.group.members):
            report = builders.report(
                counts,
                stream=member.hello.stream,
                first_step=self.next_step,
                plan_version=self.rng.choice([0] * 9 + [1]),
            )
            effects = self.tell(report)
            if fx.Send(report.stream, fx.ReportAck(report.sequence)) in effects:
                self._count(report, member.hello)

    def _count(self, report: ev.LoadReport, hello: ev.Hello) -> None:
        """Keep the books on an accepted report, the slow way."""
        for k, counts in enumerate(report.counts):
            key = (hello.engine_run_id, report.first_step + k * report.steps_per_sample)
            ranks, tokens = self.counted.setdefault(key, (set(), 0.0))
            if ranks.isdisjoint(hello.ranks):
                ranks.update(hello.ranks)
                self.counted[key] = ranks, tokens + float(counts.sum())

    def ack(self) -> None:
        """Somebody claims to have a plan, which may not exist."""
        version, placement = self.rng.randrange(5), self.rng.choice(PLACEMENTS)
        ref = builders.ref(builders.plan(placement, version=version)) if version else PlanRef()
        phase = self.rng.choice([ev.AckPhase.STAGED, ev.AckPhase.APPLIED])
        before = _observe(self.group)
        effects = self.tell(ev.Ack(stream=self._some_stream(), ref=ref, phase=phase))
        if any(isinstance(e, fx.Send) and isinstance(e.message, fx.Refused) for e in effects):
            assert _observe(self.group) == before

    def all_apply(self) -> None:
        """Every member applies the committed plan, if it has not refused it."""
        plan = self.group.committed
        for member in list(self.group.members):
            if plan is not None and plan.digest not in member.refused:
                self.tell(builders.applied(plan, stream=member.hello.stream))

    def nack(self) -> None:
        """Somebody refuses the committed plan, or the one before it."""
        stream, is_transient = self._some_stream(), self.rng.random() < 0.5
        committed, member = self.group.committed, self.group.members.get(stream)
        version = max(0, self.group.deployment.committed - self.rng.choice([0, 0, 0, 1]))
        self.tell(builders.nack(version, stream=stream, is_transient=is_transient))
        if not is_transient and committed and member and committed.version == version:
            self.reached["refused for good"] += 1
            self.parked.add((member.hello.incarnation, committed.digest))

    def lose(self) -> None:
        """A stream ends, and its process perhaps with it."""
        self.tell(ev.StreamEnded(stream=self._some_stream(), is_goodbye=False))
        self.started += self.rng.randrange(2)

    def wait(self) -> None:
        """Time passes."""
        self.now_s += self.rng.choice([0.25, 0.25, 1.0, 2.0, 5.0, 16.0])
        self.tell(ev.Tick())

    def answer(self) -> None:
        """The solver answers; the store may fail."""
        number, self.solving = self.solving, None
        if number is None:
            return
        if self.rng.random() < 0.1:
            self.tell(ev.SolveFailed(solve=number, message="lost"))
            return
        committed = self.group.deployment.committed
        self.fails = self.rng.random() < 0.2
        gain = self.rng.choice([0.0, 0.5, 0.5, 0.5])
        placement = self.rng.choice(PLACEMENTS)
        self.tell(ev.Solved(solve=number, solution=builders.solution(placement, gain=gain)))
        if self.fails:
            assert self.group.deployment.committed == committed

    def stray_answer(self) -> None:
        """The solver answers what nobody asked."""
        before = _observe(self.group)

        assert self.tell(ev.Solved(solve=10**6, solution=builders.solution())) == []
        assert _observe(self.group) == before

    def restart(self) -> None:
        """The planner restarts on its store; soft state is gone."""
        self.parked.clear()
        self.sent.clear()
        self.counted.clear()
        self._load()

    def _some_stream(self) -> int:
        """Return a member's stream, or now and then one that is over or never was."""
        streams = [member.hello.stream for member in self.group.members]
        return self.rng.choice([*streams, *streams, *streams, self.next_stream - 2, 10**6])

    def check(self) -> None:
        """Check what must hold between any two events."""
        self.bounded()
        self.consistent()
        self.counted_once()

    def bounded(self) -> None:
        """Nothing grows beyond its cap."""
        sampler = self.group._intake._sampler
        assert len(sampler._open) <= limits.MAX_OPEN_SAMPLES
        assert len(sampler._closed) <= limits.MAX_CLOSED_KEYS
        assert len(self.group._cycle._window.samples) < (
            self.group.deployment.spec.trigger.window_samples
        )

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

    def counted_once(self) -> None:
        """A sample holds the tokens of each rank once, and is accepted once at most."""
        sampler = self.group._intake._sampler
        assert self.group.num_samples <= len(sampler._closed)
        for key, sample in sampler._open.items():
            ranks, tokens = self.counted[key]
            assert sample.reported == ranks
            assert sample.total.sum() == tokens


def _observe(group: Group) -> object:
    """Return everything about a group that an event may change, but for signs of life."""
    sampler = group._intake._sampler
    return (
        group.deployment,
        group.epoch,
        group.committed,
        group.num_samples,
        group.num_dropped_samples,
        [(m.hello.stream, m.applied, m.refused, m.wants_retry) for m in group.members],
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


ACTIONS = {
    GroupMachine.hello: 8,
    GroupMachine.all_report: 12,
    GroupMachine.report: 6,
    GroupMachine.all_apply: 6,
    GroupMachine.answer: 10,
    GroupMachine.wait: 8,
    GroupMachine.nack: 5,
    GroupMachine.ack: 2,
    GroupMachine.lose: 3,
    GroupMachine.stray_answer: 1,
    GroupMachine.restart: 1,
}


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_any_order_of_events(seed: int) -> None:
    """Whatever happens in whatever order, the invariants hold after every event."""
    machine = GroupMachine(seed)
    for action in machine.rng.choices(list(ACTIONS), list(ACTIONS.values()), k=NUM_STEPS):
        action(machine)
        machine.check()


def test_the_interesting_happens() -> None:
    """The random walks do get to plans, refusals, store failures, retries and raised counters."""
    reached: Counter[str] = Counter()
    for seed in range(NUM_SEEDS):
        machine = GroupMachine(seed)
        for action in machine.rng.choices(list(ACTIONS), list(ACTIONS.values()), k=NUM_STEPS):
            action(machine)
        reached += machine.reached

    few = {what: number for what, number in reached.items() if number < 3}
    assert few == {}
    assert set(reached) >= {
        "published",
        "store failed",
        "applied",
        "refused for good",
        "sent again",
        "raised",
        *fx.SampleFate,
    } - {fx.SampleFate.DROPPED_OVERFLOW}
