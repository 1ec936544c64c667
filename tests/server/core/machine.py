"""A group over a store that fails now and then, and models of what must be true of the two."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.errors import ServiceError
from expertplane_server.core.parameters import MigrationParameters
from expertplane_server.core.plan import PlanRef
from expertplane_server.core.spec import RolloutMode

from .. import builders
from .observed import observe
from .stored import Mishap, publish, rollout
from .watched import MAX_WINDOW, WatchedConversation


ROWS = [(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 1, 3)]
PLACEMENTS = [(one, other) for one in ROWS for other in ROWS[:2]]
WRITES = (fx.StorePlan, fx.CommitPlan, fx.AbortPlan, fx.StorePause, fx.StoreSpec)


class GroupMachine(WatchedConversation):
    """Two layers on two ranks, which a and b answer for, or c alone.

    Attributes:
        mishap_rate: how often a write goes wrong.
    """

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.mishap_rate = rng.choice([0.0, 0.2, 0.3])
        self.started = 1
        self.next_stream = 1
        self.next_step = 100
        super().__init__(
            builders.spec(
                layer_ids=(3, 4),
                window_samples=rng.randint(1, MAX_WINDOW),
                min_coverage=rng.choice([0.5, 0.75, 1.0]),
                deadline_s=2.0,
                cooldown_s=rng.choice([0.0, 0.0, 3.0]),
                rollout_mode=rng.choice([RolloutMode.ADVISORY] + [RolloutMode.COORDINATED] * 2),
                rollout=rollout(stage_deadline_s=20.0, hold_down_s=rng.choice([0.0, 2.0])),
                migration=MigrationParameters(bytes_per_expert=10),
            )
        )

    def effects_of(self, event: ev.Event) -> list[fx.Effect]:
        """Hand an event over, and return all effects that it has led to."""
        before = len(self.effects)
        self.tell(event)
        return self.effects[before:]

    def _answer(self, effect: fx.Effect) -> ev.Event | None:
        rate = 0.3 * (self.mishap_rate > 0) if isinstance(effect, fx.ReadBack) else 0.0
        if isinstance(effect, WRITES):
            rate = self.mishap_rate
        if self.rng.random() < rate:
            mishap = self.rng.choice(list(Mishap))
            self.reached[f"{type(effect).__name__} {mishap.value}"] += 1
            self.mishaps[type(effect)].append(mishap)
        return super()._answer(effect)

    # What happens.

    def hello(self) -> None:
        """A participant comes, perhaps wrongly."""
        rng = self.rng
        participant = rng.choice("aaaabbbbc")
        own = {"a": (0,), "b": (1,), "c": (0, 1)}[participant]
        highest = rng.choice([0] * 18 + [3, 50])
        committed, staged = self.group.committed, self.group.staging_version
        refs = [builders.ref(plan) for plan in (committed, self._find(staged)) if plan]
        hello = builders.hello(
            self.next_stream,
            participant,
            rng.choice([own] * 8 + [(0, 1), (1, 2)]),
            started=rng.choice([self.started, self.started, self.started, 1, 2]),
            engine_run_id=rng.choice(["run-1"] * 5 + ["run-2"]),
            generation=rng.choice([0] * 8 + [1, 2]),
            highest_version=highest,
            highest_epoch=highest // 2,
            staged=rng.choice([None, None, *refs]),
            max_staged_bytes=rng.choice([0, 0, 10, 20]),
            initial_phy2log=rng.choice([None, None, None, np.array([[3, 2, 1, 0]] * 2)]),
        )
        before = observe(self.group)
        effects = self.effects_of(hello)
        if any(isinstance(e, fx.EndStream) and e.stream == hello.stream for e in effects):
            assert observe(self.group) == before, "a refused Hello changed something"
        self.next_stream += 1

    def both_come(self) -> None:
        """Whoever is missing of a and b comes."""
        for participant, ranks in (("a", (0,)), ("b", (1,))):
            if not self.group.members.ranks >= set(ranks):
                wanted = builders.hello(self.next_stream, participant, ranks, started=self.started)
                self.tell(wanted)
                self.next_stream += 1

    def report(self) -> None:
        """Somebody reports, perhaps wrongly."""
        rng = self.rng
        width = rng.choice([4, 4, 4, 2])
        samples = [tuple(rng.randrange(4) for _ in range(width)) for _ in range(rng.randint(1, 3))]
        self._report(
            *samples,
            stream=self._some_stream(),
            first_step=self.next_step - rng.randrange(6),
            steps_per_sample=rng.choice([1, 1, 1, 2]),
            plan_version=rng.choice([0, self.group.deployment.committed, 3]),
            kind=rng.choice([ev.LoadKind.LOGICAL, ev.LoadKind.LOGICAL, ev.LoadKind.PHYSICAL]),
            scope=rng.choice([ev.LoadScope.PARTICIPANT] * 4 + [ev.LoadScope.DEPLOYMENT]),
        )

    def all_report(self) -> None:
        """Every member reports the next step, so that samples do get complete."""
        self.next_step += 1
        most = self.rng.choice([1] + [4] * 9)
        counts = tuple(self.rng.randrange(most) for _ in range(4))
        version = self.rng.choice([0] * 9 + [1])
        for member in list(self.group.members):
            stream, step = member.hello.stream, self.next_step
            self._report(counts, stream=stream, first_step=step, plan_version=version)

    def _report(self, *samples: tuple[float, ...], **fields: Any) -> None:
        one_layer = builders.report(*samples, **fields)
        report = replace(one_layer, counts=np.repeat(one_layer.counts, 2, axis=1))
        before, member = observe(self.group), self.group.members.get(report.stream)
        effects = self.effects_of(report)
        if any(isinstance(e, fx.Send) and isinstance(e.message, fx.Refused) for e in effects):
            assert len(effects) == 1
            assert observe(self.group) == before, "a refused report changed something"
        elif member is None:
            assert effects == []
        else:
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
        version, layers = self.rng.randrange(8), self.rng.choice(PLACEMENTS)
        ref = builders.ref(builders.plan(*layers, version=version)) if version else PlanRef()
        self._ack(self._some_stream(), ref, self.rng.choice(list(ev.AckPhase)))

    def _ack(self, stream: int, ref: PlanRef, phase: ev.AckPhase) -> None:
        staging = self._find(self.group.staging_version)
        is_asked = staging is not None and ref == builders.ref(staging)
        if is_asked and phase is ev.AckPhase.STAGED:
            self.staged_by.add((stream, ref.version))
        before = observe(self.group)
        effects = self.effects_of(ev.Ack(stream=stream, ref=ref, phase=phase))
        if any(isinstance(e, fx.Send) and isinstance(e.message, fx.Refused) for e in effects):
            assert observe(self.group) == before

    def some_stage(self) -> None:
        """Most members stage what they are asked to."""
        for member in list(self.group.members):
            staging = self._find(self.group.staging_version)
            if staging is not None and self.rng.random() < 0.8:
                self._ack(member.hello.stream, builders.ref(staging), ev.AckPhase.STAGED)

    def all_apply(self) -> None:
        """Every member applies the committed plan, if it has not refused it."""
        for member in list(self.group.members):
            plan = self.group.committed
            if plan is not None and plan.digest not in member.refused:
                self.tell(builders.applied(plan, stream=member.hello.stream))

    def nack(self) -> None:
        """Somebody refuses the plan under way, or the committed one, or the one before."""
        stream, is_transient = self._some_stream(), self.rng.random() < 0.6
        committed, member = self.group.deployment.committed, self.group.members.get(stream)
        staging = self.group.staging_version
        version = max(0, staging or committed - self.rng.choice([0, 0, 0, 1]))
        known = [self.group.committed, self._find(staging)]
        plan = next((each for each in known if each and each.version == version), None)
        if member and plan and not is_transient:
            self.reached["refused for good"] += 1
            self.parked.add((member.hello.incarnation, plan.digest))
        self.staged_by.discard((stream, version))
        self.tell(builders.nack(version, stream=stream, is_transient=is_transient))

    def ask_for_time(self) -> None:
        """Somebody cannot stage the plan yet, and is asked again five seconds later."""
        stream, version = self._some_stream(), self.group.staging_version
        if version:
            self.staged_by.discard((stream, version))
            self.tell(builders.nack(version, stream=stream, is_transient=True))
            self.now_s += 5.0
            self.tell(ev.Tick())

    def lose(self) -> None:
        """A stream ends, and its process perhaps with it."""
        self.tell(ev.StreamEnded(stream=self._some_stream(), is_goodbye=False))
        self.started += self.rng.randrange(2)

    def pass_time(self) -> None:
        """Time passes."""
        self.now_s += self.rng.choice([0.25, 0.25, 0.25, 1.0, 2.0, 5.0, 16.0])
        self.tell(ev.Tick(self.rng.choice([0.0, 0.0, 0.7])))

    def answer(self) -> None:
        """The solver answers, if it was asked."""
        number, self.solving = self.solving, None
        if number is None:
            return
        if self.rng.random() < 0.1:
            self.tell(ev.SolveFailed(solve=number, message="lost"))
            return
        gain, layers = self.rng.choice([0.0, 0.5, 0.5, 0.5]), self.rng.choice(PLACEMENTS)
        self.tell(ev.Solved(solve=number, solution=builders.solution(*layers, gain=gain)))

    def stray_answer(self) -> None:
        """The solver answers what nobody asked."""
        before = observe(self.group)
        solution = builders.solution(*PLACEMENTS[0])

        assert self.effects_of(ev.Solved(solve=10**6, solution=solution)) == []
        assert observe(self.group) == before

    def operate(self) -> None:
        """An operator asks for something."""
        rng, deployment = self.rng, self.group.deployment
        spec = deployment.spec
        modes = [spec.rollout_mode] * 3 + [RolloutMode.ADVISORY, RolloutMode.COORDINATED]
        wanted = replace(
            spec,
            trigger=replace(spec.trigger, window_samples=rng.randint(1, MAX_WINDOW)),
            rollout_mode=rng.choice(modes),
        )
        actions: list[orders.Action] = [
            publish(*rng.choice(PLACEMENTS)),
            publish((0, 0, 0, 0), (0, 1, 2, 3)),
            orders.RollBack(self.group.committed),
            orders.RollBack(None),
            orders.Rebalance(),
            orders.Rebalance(),
            orders.Pause("x"),
            orders.Resume(),
            orders.Resume(),
            orders.Update(wanted, deployment.etag),
            orders.Update(wanted, "old"),
        ]
        action = rng.choice(actions)
        before, num_effects = observe(self.group), len(self.effects)
        self.order(action, expected_head=rng.choice([None] * 4 + [deployment.head, 1]))
        match self.effects[num_effects:]:
            case [fx.Answer(_, answer)] if isinstance(answer, ServiceError):
                assert observe(self.group) == before, "a refusal changed something"
                self.reached["order refused"] += 1
            case _:
                self.reached["order taken"] += 1

    def crash(self) -> None:
        """The planner restarts on its store; what nobody wrote down is gone."""
        self.sent.clear()
        self.counted.clear()
        self.staged_by.clear()
        self.solving = None
        self.answered.update(set(range(1, self.asked + 1)) - set(self.answered))
        self.restart()

    def _some_stream(self) -> int:
        """Return a member's stream, or now and then one that is over or never was."""
        streams = [member.hello.stream for member in self.group.members]
        return self.rng.choice([*streams, *streams, *streams, self.next_stream - 2, 10**6])

    # The end.

    def come_to_rest(self) -> None:
        """Nothing goes wrong any more, and everybody does as it is told."""
        self.mishap_rate = 0.0
        self.started = 1000 + self.next_stream  # processes that have refused nothing
        for member in list(self.group.members):
            self.tell(ev.StreamEnded(stream=member.hello.stream, is_goodbye=True))
        for _ in range(12):
            self.both_come()
            self.now_s += 1.0
            self.tell(ev.Tick())
            self.answer()
            for member in list(self.group.members):
                staging = self._find(self.group.staging_version)
                if staging is not None:
                    self._ack(member.hello.stream, builders.ref(staging), ev.AckPhase.STAGED)
            self.all_apply()
            self.check()
