"""One plan on its way to all members: staged by every one of them, then committed, or given up."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from expertplane_server.core import effects as fx
from expertplane_server.core.plan import Reason


if TYPE_CHECKING:
    from collections.abc import Iterable

    from expertplane_server.core.events import Instant
    from expertplane_server.core.plan import Decision, Plan
    from expertplane_server.core.state import State


class Phase(enum.Enum):
    """How far a roll-out has come."""

    STAGING = enum.auto()
    """Members are fetching weights; it can still be given up."""
    COMMITTING = enum.auto()
    """All have staged it, and the store was asked to commit it: only the store knows the end."""
    ABORTING = enum.auto()
    """The store was asked to give it up."""


class Rollout:
    """The members' progress with a staging plan.

    Invariants: `staged` and the streams waited for are disjoint, and only those that were sent a
    `Stage` are in either; it leaves STAGING for COMMITTING only when nobody is waited for.

    Attributes:
        plan: durable, in state STAGING.
        phase: how far it has come.
        staged: streams of the members that have staged it.

    Args:
        state: where the deployment stands.
        plan: what to roll out.
        streams: of the members; none where a plan was left behind by a planner that is gone.
        now: when it begins.
    """

    def __init__(self, state: State, plan: Plan, streams: Iterable[int], now: Instant) -> None:
        self.plan = plan
        self.phase = Phase.STAGING
        self.staged: set[int] = set()
        self._state = state
        self._waiting = set(streams)
        self._began_at_s = now.monotonic_s
        self._deadline_s = state.spec.rollout.stage_deadline_s
        self._reason = ""
        self._abortion: Decision | None = None

    def begin(self, now: Instant) -> list[fx.Effect]:
        """Asks every member to stage the plan."""
        return self._stage(sorted(self._waiting), now)

    def on_staged(self, stream: int, now: Instant) -> list[fx.Effect]:
        """Notes that a member has the plan in its buffers; the last of them makes the commit."""
        if stream in self._waiting:
            self._waiting.remove(stream)
            self.staged.add(stream)
        return self._commit_if_staged(now)

    def on_unstaged(self, stream: int) -> None:
        """Notes that a member does not have the plan any more, or not yet."""
        if stream in self.staged:
            self.staged.remove(stream)
            self._waiting.add(stream)

    def abort(self, reason: str, now: Instant) -> list[fx.Effect]:
        """Gives the plan up, durably first; nothing happens after the commit.

        While the store has yet to tell whether it has committed, the reason is kept for later.
        """
        if self.phase is Phase.ABORTING:
            return []
        self._reason = self._reason or reason
        if self.phase is Phase.COMMITTING:
            return []
        self.phase = Phase.ABORTING
        version = self.plan.version
        self._abortion = self._state.draft(
            Reason.FAILED_ROLLOUT,
            f"Version {version} is given up before its commit. {self._reason}",
            now,
            plan_version=version,
        )
        return [fx.AbortPlan(version, self._abortion)]

    def end(self, now: Instant) -> list[fx.Effect]:
        """Tells the members to drop what they have staged, the end being durable."""
        if self._abortion is None:
            # Somebody else has given it up.
            self.phase = Phase.STAGING
            self.abort("The store has given it up.", now)
        decision = self._abortion
        assert decision is not None
        self._state.journal.enter(decision)
        version = self.plan.version
        told = self._waiting | self.staged
        # Who came amid the staging may have the plan from its last stream.
        told |= {
            member.hello.stream
            for member in self._state.members
            if member.hello.staged is not None and member.hello.staged.version == version
        }
        return [
            fx.Record(decision, is_stored=True),
            *(
                fx.Send(member.hello.stream, fx.Abort(version, self._reason))
                for member in self._state.members
                if member.hello.stream in told
            ),
            fx.Reached(fx.Milestone.ABORTED, now.monotonic_s - self._began_at_s),
        ]

    def reopen(self) -> None:
        """Notes that the store has not committed the plan after all; the next tick goes on."""
        if self.phase is Phase.COMMITTING:
            self.phase = Phase.STAGING

    def tick(self, now: Instant) -> list[fx.Effect]:
        """Gives up what is overdue, and asks again those who wanted to be asked later."""
        if self.phase is Phase.ABORTING:
            assert self._abortion is not None
            return [fx.AbortPlan(self.plan.version, self._abortion)]
        if self._reason:
            return self.abort(self._reason, now)
        if now.monotonic_s - self._began_at_s >= self._deadline_s:
            reason = f"Not all members had staged it within {self._deadline_s:g} s."
            return self.abort(reason, now)
        wait_s = self._state.heartbeat_interval_s
        again = [
            member.hello.stream
            for member in self._state.members
            if member.hello.stream in self._waiting
            and member.is_due(self.plan, now.monotonic_s, wait_s)
        ]
        return [*self._stage(again, now), *self._commit_if_staged(now)]

    def _stage(self, streams: Iterable[int], now: Instant) -> list[fx.Effect]:
        """Asks members to stage the plan in what is left of the time."""
        left_s = max(0.0, self._began_at_s + self._deadline_s - now.monotonic_s)
        return [fx.Send(stream, fx.Stage(self.plan, left_s)) for stream in streams]

    def _commit_if_staged(self, now: Instant) -> list[fx.Effect]:
        """Asks for the commit once all members have staged the plan."""
        if self.phase is not Phase.STAGING or self._waiting or self._reason:
            return []
        self.phase = Phase.COMMITTING
        return [
            fx.Reached(fx.Milestone.STAGED, now.monotonic_s - self._began_at_s),
            fx.CommitPlan(self.plan.version),
        ]
