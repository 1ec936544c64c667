"""Who comes, and what they are told: the planner's opinion of the plan that they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_server.core import effects as fx
from expertplane_server.core.admission import check_hello, check_same_start
from expertplane_server.core.errors import FailedPreconditionError, ServiceError
from expertplane_server.core.placements import without_masked


if TYPE_CHECKING:
    from expertplane_server.core import events as ev
    from expertplane_server.core.members import Member
    from expertplane_server.core.pacing import Pacer
    from expertplane_server.core.plan import Plan
    from expertplane_server.core.publication import Publication
    from expertplane_server.core.state import State


class Reception:
    """Answers every Hello with a full verdict: a participant may have forgotten what it has."""

    def __init__(self, state: State, publication: Publication, pacer: Pacer) -> None:
        self._state = state
        self._publication = publication
        self._pacer = pacer

    def on_hello(self, hello: ev.Hello, now: ev.Instant) -> list[fx.Effect]:
        """Admits a participant, or ends its stream. Who comes amid a staging ends the staging."""
        state = self._state
        elected_before = state.members.elected()
        try:
            check_hello(hello, state.deployment, state.epoch)
            if state.committed is None:
                check_same_start(hello, state.intake.initial, state.members)
            ended = state.members.admit(hello, now.monotonic_s)
        except ServiceError as error:
            return [fx.EndStream(hello.stream, error)]
        done: list[fx.Effect] = []
        if ended.stream is not None:
            done.append(fx.EndStream(ended.stream, _superseded(hello.participant)))
        if ended.incarnation is not None:
            done.append(fx.StoreSuperseded(ended.incarnation))
        self._take_start(hello)
        return [
            *done,
            *self._raise(hello),
            self.welcome(hello.stream),
            *self._unstage(hello),
            *self.welcome_elected(elected_before, hello),
            *self._publication.abort(f"{hello.participant} has joined.", now),
        ]

    def _raise(self, hello: ev.Hello) -> list[fx.Effect]:
        """Makes counters jump past what a participant knows: a restored backup, an empty disk."""
        state = self._state
        version, head = max(hello.highest_version, hello.applied.version), state.deployment.head
        if hello.highest_epoch >= state.epoch and state.is_ahead(hello.applied):
            version = max(version, head + 1)
        if version <= head and hello.highest_epoch <= state.epoch:
            return []
        return [fx.RaiseCounters(hello.stream, version, hello.highest_epoch)]

    def _take_start(self, hello: ev.Hello) -> None:
        """Takes over the start placement that a participant tells."""
        state, initial = self._state, hello.initial_phy2log
        if initial is None:
            return
        state.intake.initial = initial
        # Ranks may still serve with the plan of an earlier generation.
        if state.committed is None and hello.applied.version == 0:
            state.in_force = without_masked(initial, state.spec.topology)

    def welcome(self, stream: int) -> fx.Send:
        """Tells a member what the planner makes of its plan."""
        state = self._state
        member = state.members.get(stream)
        assert member is not None
        verdict, plan = self._verdict(member)
        return fx.Send(
            stream,
            fx.Welcome(
                verdict=verdict,
                plan=plan,
                generation=state.deployment.generation,
                is_elected_reporter=state.members.elected() == stream,
                report_interval_s=self._pacer.interval_s,
            ),
        )

    def welcome_elected(
        self, elected_before: int | None, newcomer: ev.Hello | None = None
    ) -> list[fx.Effect]:
        """Tells a member that it has become the elected reporter, unless it has just come."""
        elected = self._state.members.elected()
        is_told = newcomer is not None and elected == newcomer.stream
        if elected is None or elected == elected_before or is_told:
            return []
        return [self.welcome(elected)]

    def _verdict(self, member: Member) -> tuple[fx.Verdict, Plan | None]:
        """Compares by digest, not by version alone: a participant may be wrong about itself."""
        plan = self._state.committed
        if plan is None:
            return fx.Verdict.NO_PLAN_YET, None
        if member.has_applied(plan):
            return fx.Verdict.UP_TO_DATE, None
        if plan.digest in member.refused:
            return fx.Verdict.NO_PLAN_YET, None
        return fx.Verdict.TAKE_THIS_PLAN, plan

    def _unstage(self, hello: ev.Hello) -> list[fx.Effect]:
        """Tells a newcomer to drop a plan that nobody will commit any more."""
        staged, committed = hello.staged, self._state.committed
        if staged is None or (committed is not None and staged.version == committed.version):
            return []
        if staged.version == self._publication.staging_version:
            return []  # told when its end is durable
        return [fx.Send(hello.stream, fx.Abort(staged.version, "It is no longer rolled out."))]


def _superseded(participant: str) -> FailedPreconditionError:
    """Tells an older stream that it is over."""
    return FailedPreconditionError(
        f"Expected the latest stream of {participant}; it has opened another.",
        reason="SUPERSEDED",
    )
