"""I1 to I9 of the protocol, checked at every place where one of them could break.

What is true comes from the models: what lies on the disk, what a process has really staged, what
was really measured. The core is asked for nothing but the state that its users see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane.wire import digest_phy2log
from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.plan import Plan, PlanRef, PlanState
from expertplane_server.core.spec import RolloutMode

from .loop import ViolationError
from .scenario import flaw


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from expertplane_server.core.group import Group

    from .network import Stream
    from .participant_model import Process
    from .planner_model import Planner
    from .world import World


_COMMITTED = (PlanState.COMMITTED, PlanState.APPLIED, PlanState.SUPERSEDED)
_MESSAGES = (ev.Hello, ev.LoadReport, ev.Ack, ev.Nack, ev.Heartbeat, ev.Refuse, ev.Order)
_WRITES = (
    fx.StorePlan,
    fx.CommitPlan,
    fx.AbortPlan,
    fx.StorePause,
    fx.StoreSpec,
    fx.StoreApplied,
    fx.StoreParked,
    fx.StoreSuperseded,
    fx.RaiseCounters,
)


def expect(holds: bool, invariant: str, message: str) -> None:
    """Raise ViolationError unless the invariant holds."""
    if not holds:
        raise ViolationError(invariant, message)


class Watch:
    """Sees everything and forgets nothing but what a restored backup takes back."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._highest_version = 0
        # By incarnation: the highest epoch that it has acted upon.
        self._epochs: dict[str, int] = {}
        self._attempted: set[tuple[int, int]] = set()
        self._maps: dict[str, np.ndarray[Any, Any]] = {}
        self._actives = [world.scenario.spec.topology.active_ranks]
        initial = world.scenario.initial
        if initial is not None:
            self._maps[digest_phy2log(initial)] = initial

    # The store.

    def written(
        self,
        method: str,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
        answer: Any,
        epoch: int,
    ) -> None:
        """See a transaction that has become durable, whatever the planner will hear of it."""
        if "epoch" in options and method != "raise_counters":
            expect(
                options["epoch"] == epoch,
                "I4",
                f"Expected {method} of epoch {options['epoch']} to be refused in epoch {epoch}.",
            )
        if method == "publish":
            self._published(answer)
        elif method == "update_deployment":
            active = answer.spec.topology.active_ranks
            if active not in self._actives:
                self._actives.append(active)
        elif method == "commit":
            self._committed(arguments[1])

    def _published(self, plan: Plan) -> None:
        deployment = self._world.disk.deployment
        expect(
            plan.version > self._highest_version,
            "I1",
            f"Expected a version above {self._highest_version}, got {plan.version}.",
        )
        self._highest_version = plan.version
        self._maps[plan.digest] = plan.phy2log
        broken = flaw(deployment.spec, plan.phy2log)
        expect(not broken, "I8", f"Expected a sound placement in v{plan.version}, got {broken}.")
        expect(
            digest_phy2log(plan.phy2log) == plan.digest,
            "I8",
            f"Expected the digest of its content in v{plan.version}, got {plan.digest}.",
        )
        expect(
            plan.draft.generation == deployment.generation,
            "I8",
            f"Expected generation {deployment.generation}, got {plan.draft.generation}.",
        )
        is_coordinated = deployment.spec.rollout_mode is RolloutMode.COORDINATED
        expect(
            not is_coordinated or plan.state is PlanState.STAGING,
            "I3",
            f"Expected v{plan.version} to be staged before its commit.",
        )
        staging = [
            each.version
            for each in self._world.disk.stored()
            if each.state is PlanState.STAGING and each.version != plan.version
        ]
        expect(not staging, "I3", f"Expected one roll-out, got v{plan.version} beside {staging}.")

    def asks_to_commit(self, planner: Planner, version: int) -> None:
        """See a planner ask for a commit; the first time all members must have staged it."""
        if (planner.number, version) in self._attempted:
            return
        self._attempted.add((planner.number, version))
        plan = self._world.disk.plan(version)
        if plan is None or plan.state is not PlanState.STAGING:
            return
        ref = PlanRef(version=version, digest=plan.digest)
        covered: set[int] = set()
        for member in planner.group.members:
            process = self._world.processes.get(member.hello.incarnation)
            expect(
                process is not None and ref in process.acked_staged,
                "I3",
                f"Expected {member.hello.incarnation} to have staged v{version} by its commit.",
            )
            covered.update(member.hello.ranks)
        self._expect_covered(covered, version)

    def _committed(self, version: int) -> None:
        plan = self._world.disk.plan(version)
        assert plan is not None
        ref = PlanRef(version=version, digest=plan.digest)
        covered: set[int] = set()
        for process in self._world.processes.values():
            if ref in process.acked_staged:
                covered.update(process.site.ranks)
        self._expect_covered(covered, version)

    def _expect_covered(self, covered: set[int], version: int) -> None:
        active = self._world.disk.deployment.spec.topology.active_ranks
        missing = [rank for rank in active if rank not in covered]
        expect(not missing, "I3", f"Expected all ranks to have staged v{version}, not {missing}.")

    def store_restored(self) -> None:
        """See an older state of the store come back: versions since then were never assigned."""
        self._highest_version = self._world.disk.deployment.head
        self._attempted.clear()
        self._world.operators.store_restored()

    # What leaves a planner.

    def sends(self, planner: Planner, stream: Stream, message: fx.Message) -> None:
        """See a message that is on its way to a participant."""
        match message:
            case fx.Welcome(plan=plan):
                self._welcomes(planner, stream)
                if plan is not None:
                    self._sends_plan(planner, stream, plan)
                    self.shows(plan)
            case fx.Commit(plan):
                self._sends_plan(planner, stream, plan)
                self.shows(plan)
            case fx.Stage(plan):
                self._sends_plan(planner, stream, plan)
                durable = self._world.disk.plan(plan.version)
                expect(
                    durable is not None and durable.digest == plan.digest,
                    "I2",
                    f"Expected v{plan.version} to be durable before it is staged.",
                )
            case fx.PlannerHeartbeat(head=head, committed=committed):
                deployment = self._world.disk.deployment
                expect(
                    head <= deployment.head and committed <= deployment.committed,
                    "I2",
                    f"Expected at most v{deployment.head} and v{deployment.committed}, "
                    f"got v{head} and v{committed}.",
                )

    def _welcomes(self, planner: Planner, stream: Stream) -> None:
        hello, head = stream.hello, self._world.disk.deployment.head
        assert hello is not None
        seen = max(hello.highest_version, hello.applied.version)
        expect(
            seen <= head and hello.highest_epoch <= planner.group.epoch,
            "I1",
            f"Expected the counters above v{seen} of epoch {hello.highest_epoch} before a "
            f"welcome, got v{head} of epoch {planner.group.epoch}.",
        )

    def _sends_plan(self, planner: Planner, stream: Stream, plan: Plan) -> None:
        stream.sent[plan.version] = plan.digest
        parked = (stream.process.incarnation, plan.digest)
        expect(
            parked not in planner.parked,
            "I6",
            f"Expected v{plan.version} not to be sent again to {parked[0]}, which refused it.",
        )

    def shows(self, plan: Plan) -> None:
        """See a plan that somebody takes for published."""
        durable = self._world.disk.plan(plan.version)
        expect(
            durable is not None and durable.digest == plan.digest,
            "I2",
            f"Expected v{plan.version} to be durable before anybody sees it.",
        )

    def announced(self, plan: Plan | None) -> None:
        """See a plan that is shown to the watchers."""
        if plan is not None:
            self._expect_committed(plan)

    def _expect_committed(self, plan: Plan) -> None:
        durable = self._world.disk.plan(plan.version)
        expect(
            durable is not None and durable.digest == plan.digest and durable.state in _COMMITTED,
            "I2",
            f"Expected v{plan.version} to be committed durably before anybody sees it.",
        )

    # What a planner makes of an event.

    def before(self, planner: Planner, event: ev.Event) -> tuple[Any, ...]:
        """Note the state that a refusal must leave as it is."""
        return _state(planner.group) if isinstance(event, _MESSAGES) else ()

    def after(
        self,
        planner: Planner,
        event: ev.Event,
        effects: Sequence[fx.Effect],
        before: tuple[Any, ...],
    ) -> None:
        """See what a planner makes of an event, before any of it is carried out."""
        group = planner.group
        if isinstance(event, ev.Nack) and not event.is_transient:
            self._parks(planner, event)
        for effect in effects:
            if isinstance(effect, fx.CommitPlan):
                self.asks_to_commit(planner, effect.version)
        if before and _is_refused(event, effects):
            writes = [type(effect).__name__ for effect in effects if isinstance(effect, _WRITES)]
            expect(not writes, "I9", f"Expected no writes with a refusal, got {writes}.")
            now = _state(group)
            changed = [pair for pair in zip(before, now, strict=True) if pair[0] != pair[1]]
            expect(not changed, "I9", f"Expected a refusal to change nothing, got {changed}.")
        if group.committed is not None:
            self._expect_committed(group.committed)

    def _parks(self, planner: Planner, event: ev.Nack) -> None:
        stream = planner.stream(event.stream)
        is_member = any(member.hello.stream == event.stream for member in planner.group.members)
        if stream is not None and is_member and event.version in stream.sent:
            planner.parked.add((stream.process.incarnation, stream.sent[event.version]))

    def samples(
        self,
        planner: Planner,
        samples: Sequence[np.ndarray[Any, Any]],
        *,
        is_new: bool,
    ) -> None:
        """See the samples of a window on their way to the solver."""
        group = planner.group
        if self._world.scenario.initial is None:
            self._maps[""] = group.initial
        numbers = [
            self._world.load.recognise(sample, self._actives, self._maps) for sample in samples
        ]
        counted = planner.samples_seen if is_new else set[tuple[int, int]]()
        for number in numbers:
            key = group.deployment.generation, number
            expect(key not in counted, "I7", f"Expected sample {number} to count once.")
            counted.add(key)

    # What a participant makes of a message.

    def acts(self, process: Process, epoch: int, message: fx.Message) -> None:
        """See a participant act upon a message."""
        highest = self._epochs.get(process.incarnation, process.highest_epoch)
        expect(
            epoch >= highest,
            "I4",
            f"Expected {process.incarnation} to ignore epoch {epoch} after epoch {highest}.",
        )
        self._epochs[process.incarnation] = epoch
        plan, applied = getattr(message, "plan", None), process.applied
        if isinstance(plan, Plan) and plan.version == applied.version:
            # Only a later term may say that an earlier one's version was another's: the store
            # that knew better is lost.
            expect(
                plan.digest == applied.digest or epoch > process.applied_epoch,
                "I1",
                f"Expected one content of v{plan.version} in epoch {epoch}, got another.",
            )


def _state(group: Group) -> tuple[Any, ...]:
    """Return what users see of a group."""
    latest = group.journal.latest
    return (
        group.epoch,
        group.deployment,
        None if group.committed is None else (group.committed.version, group.committed.state),
        group.staging_version,
        [(member.hello.stream, member.applied, member.refused) for member in group.members],
        group.num_samples,
        group.num_dropped_samples,
        None if latest is None else latest.sequence,
    )


def _is_refused(event: ev.Event, effects: Sequence[fx.Effect]) -> bool:
    """Tell whether an event was turned down."""
    for effect in effects:
        match effect:
            case fx.Send(_, fx.Refused()):
                return True
            case fx.EndStream(stream) if isinstance(event, ev.Hello) and stream == event.stream:
                return True
            case fx.Answer(order, answer) if isinstance(event, ev.Order) and order == event.order:
                return isinstance(answer, Exception)
    return False
