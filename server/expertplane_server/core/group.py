"""One deployment's state machine: members, load, decisions, roll-out, orders.

`handle(event, now)` changes the state and returns effects; the caller carries them out in order
and feeds the answers back as events. Persistence comes first: a plan is shown only after `Stored`,
and nobody may switch to a staged one before `PlanCommitted`.

    Group            which part an event is for, what time it is, what has changed in the store
      Reception      who comes, and what they are told
      PlanningCycle  samples -> window -> solve -> decision
      OrderDesk      what operators ask for
      Publication    decision -> version -> staged -> committed -> applied
      State          what the parts share
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.admission import check_hello
from expertplane_server.core.cycle import PlanningCycle
from expertplane_server.core.desk import OrderDesk
from expertplane_server.core.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    ServiceError,
)
from expertplane_server.core.pacing import Pacer
from expertplane_server.core.placements import without_masked
from expertplane_server.core.publication import Publication
from expertplane_server.core.reception import Reception
from expertplane_server.core.recovery import recovered_age_s, state_from
from expertplane_server.core.spec import RolloutMode


if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from expertplane_server.core.journal import Journal
    from expertplane_server.core.members import Member, Membership
    from expertplane_server.core.plan import Plan, PlanRef
    from expertplane_server.core.recovered import Recovered
    from expertplane_server.core.spec import Deployment, DeploymentSpec


class Group:
    """The control state of one deployment. One task touches it.

    Args:
        recovered: what the store holds of it.
        epoch: the planner's term.
        heartbeat_interval_s: how often heartbeats go out; three missed ones mean lost.
        report_interval_s: the shortest time between two reports of a member, without pressure.
    """

    def __init__(
        self,
        recovered: Recovered,
        *,
        epoch: int,
        heartbeat_interval_s: float,
        report_interval_s: float = 1.0,
    ) -> None:
        self.num_samples = 0
        self.num_dropped_samples = 0
        self._recovered = recovered
        self._state = state_from(recovered, epoch, heartbeat_interval_s)
        self._publication = Publication(self._state)
        self._cycle = PlanningCycle(self._state, self._publication)
        self._desk = OrderDesk(self._state, self._publication, self._cycle)
        self._pacer = Pacer(report_interval_s)
        self._reception = Reception(self._state, self._publication, self._pacer)
        self._is_term_in_doubt = False
        self._heartbeat_at_s = float("-inf")
        self._ticked_at_s = float("-inf")
        self._handlers: dict[type, Callable[[Any, ev.Instant], list[fx.Effect]]] = {
            ev.Hello: self._reception.on_hello,
            ev.LoadReport: self._on_report,
            ev.Ack: self._on_ack,
            ev.Nack: self._on_nack,
            ev.Heartbeat: self._on_heartbeat,
            ev.StreamEnded: self._on_stream_ended,
            ev.Refuse: self._on_refuse,
            ev.Tick: self._on_tick,
            ev.Solved: self._cycle.on_solved,
            ev.SolveFailed: self._cycle.on_solve_failed,
            ev.Stored: lambda event, now: self._publication.on_stored(event.plan, now),
            ev.PlanCommitted: lambda event, now: self._publication.on_committed(
                event.version, now
            ),
            ev.PlanAborted: lambda event, now: self._publication.on_aborted(event.version, now),
            ev.DeploymentStored: self._on_deployment_stored,
            ev.StoreFailed: self._on_store_failed,
            ev.ReadBack: self._on_read_back,
            ev.Order: self._desk.take,
            ev.CountersRaised: self._on_counters_raised,
            ev.RaiseFailed: self._on_raise_failed,
        }

    @property
    def deployment(self) -> Deployment:
        """The deployment as the store has it."""
        return self._state.deployment

    @property
    def epoch(self) -> int:
        """The planner's term."""
        return self._state.epoch

    @property
    def members(self) -> Membership:
        """Who takes part."""
        return self._state.members

    @property
    def committed(self) -> Plan | None:
        """The committed plan of the present generation; None before the first."""
        return self._state.committed

    @property
    def in_force(self) -> np.ndarray[Any, Any]:
        """[L, P] int32, what the ranks are to serve with."""
        return self._state.in_force

    @property
    def initial(self) -> np.ndarray[Any, Any]:
        """[L, P], the engine's start placement: version 0."""
        return self._state.intake.initial

    @property
    def staging_version(self) -> int:
        """The version that members are staging; 0 when there is none."""
        return self._publication.staging_version

    @property
    def journal(self) -> Journal:
        """The latest decisions."""
        return self._state.journal

    def hold_down_s(self, now_s: float) -> float:
        """Returns how much longer automatic publication rests, in seconds; 0 when it does not."""
        return max(0.0, self._state.held_until_s - now_s)

    def begin(self, now: ev.Instant) -> list[fx.Effect]:
        """Takes up where an earlier planner has left off; called once, before any event."""
        published_s, held_s = recovered_age_s(self._recovered, now.wall_s)
        if published_s is not None:
            self._publication.published_at_s = now.monotonic_s - published_s
        if held_s is not None:
            self._state.hold_down(now.monotonic_s - held_s)
            self._state.held_before_s = self._state.held_until_s
        return self._publication.on_read_back(self._recovered, now)

    def handle(self, event: ev.Event, now: ev.Instant) -> list[fx.Effect]:
        """Takes one event and returns what is to be done about it, in order."""
        return self._handlers[type(event)](event, now)

    # Members.

    def _on_stream_ended(self, event: ev.StreamEnded, now: ev.Instant) -> list[fx.Effect]:
        elected_before = self.members.elected()
        member = self.members.remove(event.stream)
        if member is None:
            return []
        how = "has left" if event.is_goodbye else "is lost"
        return [
            *self._publication.abort(f"{member.hello.participant} {how}.", now),
            *self._close_samples(now),
            *self._reception.welcome_elected(elected_before),
            *self._publication.check_applied(now),
        ]

    def _on_heartbeat(self, event: ev.Heartbeat, now: ev.Instant) -> list[fx.Effect]:
        member = self._seen(event.stream, now)
        if member is None:
            return []
        if event.applied.version > self.deployment.head:
            error = self._unknown_version(event.applied.version, "heartbeat.applied.version")
            return [fx.Send(event.stream, fx.Refused(sequence=0, error=error))]
        return self._take_applied(member, event.applied, now)

    def _take_applied(self, member: Member, applied: PlanRef, now: ev.Instant) -> list[fx.Effect]:
        """Notes what a member's ranks serve with."""
        is_news, member.applied = member.applied != applied, applied
        if is_news and self._state.is_ahead(applied):
            # A switch from before the store was restored has come to its end only now.
            return [fx.RaiseCounters(None, self.deployment.head + 1, self.epoch)]
        return self._publication.check_applied(now)

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
            fates = self._state.intake.take(report, member, self.members, now.monotonic_s)
        except ServiceError as error:
            return [fx.Send(report.stream, fx.Refused(sequence=report.sequence, error=error))]
        member.reported_at_s = now.monotonic_s
        self.num_dropped_samples += len(fates)
        return [
            *(fx.CountSample(fate) for fate in fates),
            fx.Send(report.stream, fx.ReportAck(report.sequence)),
            *self._close_samples(now),
        ]

    def _close_samples(self, now: ev.Instant) -> list[fx.Effect]:
        """Closes what is complete or overdue, and the window with it when it is full."""
        done: list[fx.Effect] = []
        for fate, counts in self._state.intake.close_due(self.members, now.monotonic_s):
            done.append(fx.CountSample(fate))
            if fate is fx.SampleFate.ACCEPTED:
                self.num_samples += 1
                self._cycle.add(counts, now)
                done.extend(self._cycle.close_window(now))
            else:
                self.num_dropped_samples += 1
            if fate is fx.SampleFate.DROPPED_IDLE:
                # Idle never triggers a plan, but whoever asks is told why nothing happens.
                done.extend(self._cycle.note_idle(now))
        return done

    # Plans.

    def _on_ack(self, event: ev.Ack, now: ev.Instant) -> list[fx.Effect]:
        member = self._seen(event.stream, now)
        if member is None:
            return []
        refusal = self._why_not_acked(event)
        if refusal is not None:
            return [fx.Send(event.stream, fx.Refused(sequence=0, error=refusal))]
        if event.phase is ev.AckPhase.STAGED:
            return self._publication.on_staged(event.stream, event.ref.version, now)
        return self._take_applied(member, event.ref, now)

    def _why_not_acked(self, event: ev.Ack) -> InvalidArgumentError | None:
        """Returns what is wrong with an Ack, or None."""
        if event.ref.version > self.deployment.head:
            return self._unknown_version(event.ref.version, "ack.version")
        digest = self._publication.digest_of(event.ref.version)
        if digest not in ("", event.ref.digest):
            return InvalidArgumentError(
                f"Expected digest {digest} for version {event.ref.version}, "
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
        return self._publication.on_refused(member, event, now) if member is not None else []

    # The store's answers.

    def _on_deployment_stored(
        self, event: ev.DeploymentStored, now: ev.Instant
    ) -> list[fx.Effect]:
        return [*self._take_over(event.deployment, now), *self._desk.on_deployment_stored()]

    def _take_over(self, found: Deployment, now: ev.Instant) -> list[fx.Effect]:
        """Goes on with the deployment as it is in the store now; its counters are not touched."""
        state, before = self._state, self.deployment
        state.deployment = replace(found, head=before.head, committed=before.committed)
        if found.spec == before.spec:
            return []
        num_ended = state.intake.change(found.spec)
        self.num_dropped_samples += num_ended
        done: list[fx.Effect] = [fx.CountSample(fx.SampleFate.DROPPED_PARTIAL)] * num_ended
        done.extend(self._cycle.change(before.spec, now))
        if found.spec.rollout_mode is not before.spec.rollout_mode:
            done.extend(self._publication.abort("The roll-out mode has changed.", now))
        if found.spec.rollout_mode is RolloutMode.SHADOW:
            self._publication.forget()  # shadow mode publishes nothing, nor takes anything back
        if found.generation == before.generation:
            return done
        given_up = self._publication.abort("The ranks of the deployment have changed.", now)
        return [*done, *given_up, *self._begin_generation(before.spec)]

    def _begin_generation(self, before: DeploymentSpec) -> list[fx.Effect]:
        """Lets go of plans and members that belong to other ranks."""
        state, spec = self._state, self._state.spec
        is_same_shape = (
            spec.map_shape == before.map_shape
            and spec.num_logical_experts == before.num_logical_experts
        )
        in_force = state.in_force if is_same_shape else self.initial
        state.in_force = without_masked(in_force, spec.topology)
        state.committed = None
        self._publication.forget()
        done: list[fx.Effect] = [fx.Announce(None)]
        for member in list(self.members):
            hello = member.hello
            try:
                check_hello(replace(hello, initial_phy2log=None), self.deployment, self.epoch)
            except ServiceError as error:
                self.members.remove(hello.stream)
                done.append(fx.EndStream(hello.stream, error))
        welcomes = [self._reception.welcome(member.hello.stream) for member in self.members]
        return [*done, *welcomes]

    def _on_store_failed(self, event: ev.StoreFailed, now: ev.Instant) -> list[fx.Effect]:
        if self._desk.is_waiting:
            return self._desk.on_store_failed(event)
        return self._publication.on_store_failed(event.error)

    def _on_read_back(self, event: ev.ReadBack, now: ev.Instant) -> list[fx.Effect]:
        if event.recovered is None:
            return []  # the next tick asks again
        found = event.recovered.deployment
        return [
            *self._take_over(found, now),
            *self._publication.on_read_back(event.recovered, now),
            *self._desk.on_read_back(found),
        ]

    def _on_counters_raised(self, event: ev.CountersRaised, now: ev.Instant) -> list[fx.Effect]:
        self._is_term_in_doubt = False
        self._state.epoch = event.epoch
        self._state.deployment = self.deployment.with_head(event.head)
        return []

    def _on_raise_failed(self, event: ev.RaiseFailed, now: ev.Instant) -> list[fx.Effect]:
        self._is_term_in_doubt = True
        return []

    # Time.

    def _on_tick(self, event: ev.Tick, now: ev.Instant) -> list[fx.Effect]:
        now_s = now.monotonic_s
        done = [*self._close_samples(now), *self._cycle.close_window(now)]
        if self._is_term_in_doubt:
            # Asks for nothing above what there is, and so tells the term that the store is in.
            done.append(fx.RaiseCounters(None, 0, 0))
        done.extend(self._publication.tick(now))
        since_tick_s, self._ticked_at_s = now_s - self._ticked_at_s, now_s
        if since_tick_s > self._state.heartbeat_interval_s:
            # It was this planner that stood still: what the members said meanwhile is to be read.
            self.members.excuse(now_s)
        done.extend(self._end_silent(now))
        if now_s - self._heartbeat_at_s >= self._state.heartbeat_interval_s:
            self._heartbeat_at_s = now_s
            beat = fx.PlannerHeartbeat(
                head=self.deployment.head, committed=self.deployment.committed
            )
            done.extend(fx.Send(member.hello.stream, beat) for member in self.members)
        if self._pacer.note(event.queue_fill, now_s):
            flow = fx.Flow(self._pacer.interval_s)
            done.extend(fx.Send(member.hello.stream, flow) for member in self.members)
        return done

    def _end_silent(self, now: ev.Instant) -> list[fx.Effect]:
        """Ends the streams of members that have not been heard for too long."""
        silence_s = 3 * self._state.heartbeat_interval_s
        error = FailedPreconditionError(
            f"Expected a message within {silence_s:g} s, got none.", reason="SILENT"
        )
        done: list[fx.Effect] = []
        for stream in self.members.silent_since(now.monotonic_s - silence_s):
            done.append(fx.EndStream(stream, error))
            ended = ev.StreamEnded(stream=stream, is_goodbye=False)
            done.extend(self._on_stream_ended(ended, now))
        return done
