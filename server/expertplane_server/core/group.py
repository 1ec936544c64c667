"""One deployment's state machine: members, samples, window, decision, publication.

`handle(event, now)` changes the state and returns effects; the caller carries them out in order
and feeds the answers back as events. Persistence comes first: a plan is sent only after `Stored`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.admission import check_hello, check_same_start
from expertplane_server.core.cycle import PlanningCycle, Standing
from expertplane_server.core.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    ServiceError,
    UnservedError,
)
from expertplane_server.core.intake import LoadIntake
from expertplane_server.core.members import Member, Membership
from expertplane_server.core.plan import Plan, PlanState


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from expertplane_server.core.journal import Journal
    from expertplane_server.core.spec import Deployment


class Group:
    """The control state of one deployment. One task touches it.

    Args:
        deployment: as the store has it.
        plans: the latest stored plans, in any order.
        epoch: the planner's term.
        heartbeat_interval_s: how often heartbeats go out; three missed ones mean lost.
    """

    def __init__(
        self,
        deployment: Deployment,
        plans: Sequence[Plan],
        *,
        epoch: int,
        heartbeat_interval_s: float,
    ) -> None:
        spec = deployment.spec
        self.deployment = deployment
        self.epoch = epoch
        self.members = Membership()
        self.num_samples = 0
        self.num_dropped_samples = 0
        self._heartbeat_interval_s = heartbeat_interval_s
        self._heartbeat_at_s = float("-inf")
        self._ticked_at_s = float("-inf")
        self._intake = LoadIntake(spec)
        self._cycle = PlanningCycle(spec)
        self.committed: Plan | None = None
        for plan in sorted(plans, key=lambda plan: plan.version):
            self._adopt(plan)
        self._handlers: dict[type, Callable[[Any, ev.Instant], list[fx.Effect]]] = {
            ev.Hello: self._on_hello,
            ev.LoadReport: self._on_report,
            ev.Ack: self._on_ack,
            ev.Nack: self._on_nack,
            ev.Heartbeat: self._on_heartbeat,
            ev.StreamEnded: self._on_stream_ended,
            ev.Refuse: self._on_refuse,
            ev.Tick: self._on_tick,
            ev.Solved: self._on_solved,
            ev.SolveFailed: self._on_solve_failed,
            ev.Stored: self._on_stored,
            ev.StoreFailed: self._on_store_failed,
            ev.CountersRaised: self._on_counters_raised,
        }

    @property
    def journal(self) -> Journal:
        """The latest decisions."""
        return self._cycle.journal

    def handle(self, event: ev.Event, now: ev.Instant) -> list[fx.Effect]:
        """Takes one event and returns what is to be done about it, in order."""
        return self._handlers[type(event)](event, now)

    # Members.

    def _on_hello(self, hello: ev.Hello, now: ev.Instant) -> list[fx.Effect]:
        elected_before = self.members.elected()
        try:
            check_hello(hello, self.deployment, self.epoch)
            if self.committed is None:
                check_same_start(hello, self._intake.initial, self.members)
            superseded = self.members.admit(hello, now.monotonic_s)
        except ServiceError as error:
            return [fx.EndStream(hello.stream, error)]
        done: list[fx.Effect] = []
        if superseded is not None:
            done.append(fx.EndStream(superseded, _superseded(hello.participant)))
        if hello.initial_phy2log is not None:
            self._intake.initial = hello.initial_phy2log
        version = max(hello.highest_version, hello.applied.version)
        if version > self.deployment.head or hello.highest_epoch > self.epoch:
            # A participant has seen more than the store has: a restored backup, an empty disk.
            done.append(fx.RaiseCounters(hello.stream, version, hello.highest_epoch))
        return [*done, self._welcome(hello.stream), *self._welcome_elected(elected_before, hello)]

    def _welcome(self, stream: int) -> fx.Send:
        """Tells a member what the planner makes of its plan."""
        member = self.members.get(stream)
        assert member is not None
        verdict, plan = self._verdict(member)
        return fx.Send(
            stream,
            fx.Welcome(
                verdict=verdict,
                plan=plan,
                generation=self.deployment.generation,
                is_elected_reporter=self.members.elected() == stream,
            ),
        )

    def _welcome_elected(
        self, elected_before: int | None, newcomer: ev.Hello | None = None
    ) -> list[fx.Effect]:
        """Tells a member that it has become the elected reporter, unless it has just come."""
        elected = self.members.elected()
        is_told = newcomer is not None and elected == newcomer.stream
        if elected is None or elected == elected_before or is_told:
            return []
        return [self._welcome(elected)]

    def _verdict(self, member: Member) -> tuple[fx.Verdict, Plan | None]:
        """Compares by digest, not by version alone: a participant may be wrong about itself."""
        plan = self.committed
        if plan is None:
            return fx.Verdict.NO_PLAN_YET, None
        if (member.applied.version, member.applied.digest) == (plan.version, plan.digest):
            return fx.Verdict.UP_TO_DATE, None
        if plan.digest in member.refused:
            return fx.Verdict.NO_PLAN_YET, None
        return fx.Verdict.TAKE_THIS_PLAN, plan

    def _on_stream_ended(self, event: ev.StreamEnded, now: ev.Instant) -> list[fx.Effect]:
        elected_before = self.members.elected()
        if self.members.remove(event.stream) is None:
            return []
        done = self._close_samples(now)
        return [*done, *self._welcome_elected(elected_before), *self._mark_applied()]

    def _on_heartbeat(self, event: ev.Heartbeat, now: ev.Instant) -> list[fx.Effect]:
        member = self._seen(event.stream, now)
        if member is None:
            return []
        if event.applied.version > self.deployment.head:
            error = self._unknown_version(event.applied.version, "heartbeat.applied.version")
            return [fx.Send(event.stream, fx.Refused(sequence=0, error=error))]
        member.applied = event.applied
        return self._mark_applied()

    def _on_refuse(self, event: ev.Refuse, now: ev.Instant) -> list[fx.Effect]:
        self._seen(event.stream, now)
        return [fx.Send(event.stream, fx.Refused(sequence=event.sequence, error=event.error))]

    def _seen(self, stream: int, now: ev.Instant) -> Member | None:
        """Notes that a member is alive."""
        member = self.members.get(stream)
        if member is not None:
            member.last_seen_s = now.monotonic_s
        return member

    # Load.

    def _on_report(self, report: ev.LoadReport, now: ev.Instant) -> list[fx.Effect]:
        member = self._seen(report.stream, now)
        if member is None:
            return []
        try:
            fates = self._intake.take(report, member, self.members, now.monotonic_s)
        except ServiceError as error:
            return [fx.Send(report.stream, fx.Refused(sequence=report.sequence, error=error))]
        self.num_dropped_samples += len(fates)
        return [
            *(fx.CountSample(fate) for fate in fates),
            fx.Send(report.stream, fx.ReportAck(report.sequence)),
            *self._close_samples(now),
        ]

    def _close_samples(self, now: ev.Instant) -> list[fx.Effect]:
        """Closes what is complete or overdue, and the window with it when it is full."""
        done: list[fx.Effect] = []
        for fate, counts in self._intake.close_due(self.members, now.monotonic_s):
            done.append(fx.CountSample(fate))
            if fate is fx.SampleFate.ACCEPTED:
                self.num_samples += 1
                self._cycle.add(counts, now)
                done.extend(self._cycle.close_window(self._standing(), now))
            else:
                self.num_dropped_samples += 1
            if fate is fx.SampleFate.DROPPED_IDLE:
                # Idle never triggers a plan, but whoever asks is told why nothing happens.
                done.extend(self._cycle.note_idle(self._standing(), now))
        return done

    # Decide and publish.

    def _standing(self) -> Standing:
        """Tells the planning cycle where the deployment stands."""
        plan = self.committed
        return Standing(
            epoch=self.epoch,
            deployment=self.deployment,
            incumbent=self._intake.initial if plan is None else plan.phy2log,
            is_settled=plan is None or all(member.is_settled(plan) for member in self.members),
        )

    def _on_solved(self, event: ev.Solved, now: ev.Instant) -> list[fx.Effect]:
        return self._cycle.on_solved(event, self._standing(), now)

    def _on_solve_failed(self, event: ev.SolveFailed, now: ev.Instant) -> list[fx.Effect]:
        return self._cycle.on_solve_failed(event, self._standing(), now)

    def _on_store_failed(self, event: ev.StoreFailed, now: ev.Instant) -> list[fx.Effect]:
        return self._cycle.on_store_failed(event, self._standing(), now)

    def _on_stored(self, event: ev.Stored, now: ev.Instant) -> list[fx.Effect]:
        record = self._cycle.on_stored(event, self._standing(), now)
        self._adopt(event.plan)
        self.deployment = self.deployment.with_head(event.plan.version)
        commits = [
            fx.Send(member.hello.stream, fx.Commit(event.plan))
            for member in self.members
            if event.plan.digest not in member.refused
        ]
        return [record, fx.Announce(event.plan), *commits]

    def _adopt(self, plan: Plan) -> None:
        """Makes a stored plan the committed one, and keeps its map for physical counts."""
        self.committed = plan
        self._intake.learn_plan(plan.version, plan.phy2log)

    def _on_ack(self, event: ev.Ack, now: ev.Instant) -> list[fx.Effect]:
        member = self._seen(event.stream, now)
        if member is None:
            return []
        refusal = self._why_not_acked(event)
        if refusal is not None:
            return [fx.Send(event.stream, fx.Refused(sequence=0, error=refusal))]
        member.applied = event.ref
        return self._mark_applied()

    def _why_not_acked(self, event: ev.Ack) -> ServiceError | None:
        """Returns what is wrong with an Ack, or None."""
        if event.phase is ev.AckPhase.STAGED:
            return UnservedError(
                "Staging belongs to the coordinated roll-out, which this release does not serve.",
                field="ack.phase",
            )
        if event.ref.version > self.deployment.head:
            return self._unknown_version(event.ref.version, "ack.version")
        plan = self.committed
        if (
            plan is not None
            and event.ref.version == plan.version
            and event.ref.digest != plan.digest
        ):
            return InvalidArgumentError(
                f"Expected digest {plan.digest} for version {plan.version}, "
                f"got {event.ref.digest}.",
                field="ack.digest",
                reason="DIGEST_MISMATCH",
            )
        return None

    def _unknown_version(self, version: int, at: str) -> InvalidArgumentError:
        """Returns the refusal of a plan that was never made."""
        return InvalidArgumentError(
            f"Expected a version up to {self.deployment.head}, got {version}.",
            field=at,
            reason="UNKNOWN_PLAN_VERSION",
        )

    def _on_nack(self, event: ev.Nack, now: ev.Instant) -> list[fx.Effect]:
        member = self._seen(event.stream, now)
        plan = self.committed
        if member is None or plan is None or event.version != plan.version:
            return []
        if event.is_transient:
            member.wants_retry = True
        else:
            member.refuse(plan)
        return self._mark_applied()

    def _mark_applied(self) -> list[fx.Effect]:
        """Notes, once, that every member serves with the committed plan."""
        plan = self.committed
        if plan is None or plan.state is not PlanState.COMMITTED or not len(self.members):
            return []
        if any(member.applied.digest != plan.digest for member in self.members):
            return []
        self.committed = plan.with_state(PlanState.APPLIED)
        return [fx.StoreApplied(plan.version)]

    # Time.

    def _on_tick(self, event: ev.Tick, now: ev.Instant) -> list[fx.Effect]:
        done = [*self._close_samples(now), *self._cycle.close_window(self._standing(), now)]
        since_tick_s, self._ticked_at_s = now.monotonic_s - self._ticked_at_s, now.monotonic_s
        if since_tick_s > self._heartbeat_interval_s:
            # It was this planner that stood still: what the members said meanwhile is to be read.
            self.members.excuse(now.monotonic_s)
        lost_before_s = now.monotonic_s - 3 * self._heartbeat_interval_s
        for stream in self.members.silent_since(lost_before_s):
            error = FailedPreconditionError(
                f"Expected a message within {3 * self._heartbeat_interval_s:g} s, got none.",
                reason="SILENT",
            )
            done.append(fx.EndStream(stream, error))
            done.extend(
                self._on_stream_ended(ev.StreamEnded(stream=stream, is_goodbye=False), now)
            )
        if now.monotonic_s - self._heartbeat_at_s >= self._heartbeat_interval_s:
            self._heartbeat_at_s = now.monotonic_s
            done.extend(self._heartbeats())
        return done

    def _heartbeats(self) -> list[fx.Effect]:
        """Tells every member the state, and sends the plan again to those who asked for time."""
        deployment = self.deployment
        beat = fx.PlannerHeartbeat(head=deployment.head, committed=deployment.committed)
        done: list[fx.Effect] = []
        for member in self.members:
            done.append(fx.Send(member.hello.stream, beat))
            plan, wants_retry, member.wants_retry = self.committed, member.wants_retry, False
            if wants_retry and plan is not None and not member.is_settled(plan):
                done.append(fx.Send(member.hello.stream, fx.Commit(plan)))
        return done

    def _on_counters_raised(self, event: ev.CountersRaised, now: ev.Instant) -> list[fx.Effect]:
        self.epoch = event.epoch
        self.deployment = replace(self.deployment, head=max(self.deployment.head, event.head))
        return []


def _superseded(participant: str) -> FailedPreconditionError:
    """Tells an older stream that it is over."""
    return FailedPreconditionError(
        f"Expected the latest stream of {participant}; it has opened another.",
        reason="SUPERSEDED",
    )
