"""From a placement worth having to one that every member serves with; one at a time.

A plan is durable before anybody sees it, and its commit before anybody may switch to it. Where the
store does not say what became of a write, nothing goes on until it has been read back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.obstacles import Refusal, paused, staging_obstacle
from expertplane_server.core.offers import Asked, Offer, Part, in_parts
from expertplane_server.core.plan import Plan, PlanDraft, PlanState, Reason
from expertplane_server.core.rollout import Rollout
from expertplane_server.core.verification import Verification, is_watched


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from expertplane_server.core.errors import ServiceError
    from expertplane_server.core.members import Member
    from expertplane_server.core.recovered import Recovered
    from expertplane_server.core.state import State


@dataclass(slots=True)
class _Writing:
    """A plan that the store was asked to keep; head and epoch as they were then."""

    effect: fx.StorePlan
    asked: Asked | None
    epoch: int
    error: ServiceError | None = None


class Publication:
    """The way of plans to the members.

    Invariants: at most one plan is being written or staged; a commit follows only on `STAGED` from
    every member, with members for every rank that is not masked.

    Attributes:
        published_at_s: monotonic time of the latest publication; None before the first.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._writing: _Writing | None = None
        self._rollout: Rollout | None = None
        self._parts: list[Part] = []
        self._is_next_part = False
        self._verification: Verification | None = None
        self._is_in_doubt = False
        self._decided_at_s = 0.0
        self._committed_at_s: float | None = None
        self.published_at_s: float | None = None

    @property
    def staging_version(self) -> int:
        """The version that members are staging; 0 when there is none."""
        return self._rollout.plan.version if self._rollout is not None else 0

    def digest_of(self, version: int) -> str:
        """Returns the digest of the plan under way or in force; empty for any other version."""
        plan = self._plan_of(version)
        return plan.digest if plan is not None else ""

    @property
    def is_in_doubt(self) -> bool:
        """Whether the store has yet to tell what became of a write."""
        return self._is_in_doubt

    # Whether.

    def obstacle(
        self, phy2log: np.ndarray | None = None, digest: str = "", *, is_order: bool = False
    ) -> Refusal | None:
        """Returns what speaks against a publication now, or None.

        Args:
            phy2log: [L, P], the placement; None when it is yet to be solved.
            digest: of the placement; empty when it is yet to be solved.
            is_order: an operator asks. In advisory mode a plan that not all members have applied
                may then be followed by another: they skip versions.
        """
        state = self._state
        if self._is_in_doubt:
            return Reason.FAILED_STORE, "The store has yet to tell what became of the last write."
        is_settled = state.is_settled or (is_order and not state.is_coordinated)
        if self._writing or self._rollout or self._parts or not is_settled:
            message = "An earlier plan is still being solved or applied; it is not pre-empted."
            return Reason.SKIPPED_ROLLOUT_IN_FLIGHT, message
        if not state.is_coordinated:
            return None
        return staging_obstacle(state, phy2log, digest)

    # Publish.

    def publish(
        self, offer: Offer, now: ev.Instant, asked: Asked | None = None
    ) -> list[fx.Effect]:
        """Asks the store for a version. The caller has found no obstacle."""
        first, *self._parts = in_parts(offer, self._state)
        self._is_next_part = False
        return self._store(first.made(self._state), now, asked)

    def _store(self, offer: Offer, now: ev.Instant, asked: Asked | None) -> list[fx.Effect]:
        """Has a placement stored with its decision."""
        state = self._state
        decision = state.draft(
            offer.reason,
            offer.message,
            now,
            num_samples=offer.num_samples,
            solution=offer.solution,
        )
        effect = fx.StorePlan(
            draft=PlanDraft(
                deployment=state.deployment.name,
                generation=state.deployment.generation,
                parent=state.committed.version if state.committed is not None else 0,
                reason=offer.reason,
                solution=offer.solution,
                comment=offer.comment,
            ),
            state=PlanState.STAGING if state.is_coordinated else PlanState.COMMITTED,
            decision=decision,
            expected_head=state.deployment.head,
            request=asked.request if asked is not None else None,
        )
        self._decided_at_s = now.monotonic_s
        self._writing = _Writing(effect, asked, state.epoch)
        return [effect]

    def on_stored(self, plan: Plan, now: ev.Instant) -> list[fx.Effect]:
        """Goes on with a plan that is durable: to the members, or to all at once."""
        state, writing = self._state, self._writing
        assert writing is not None, "the store answered a question that was not asked"
        self._writing = None
        state.note(plan)
        state.deployment = state.deployment.with_head(plan.version)
        decision = replace(writing.effect.decision, plan_version=plan.version)
        state.journal.enter(decision)
        self.published_at_s = now.monotonic_s
        if plan.draft.reason.holds_down:
            state.hold_down(now.monotonic_s)
        done: list[fx.Effect] = [fx.Record(decision, is_stored=True)]
        if writing.asked is not None:
            answer = decision if writing.asked.is_for_decision else plan
            done.append(fx.Answer(writing.asked.order, answer))
        if plan.state is not PlanState.STAGING:
            return [*done, *self._adopt(plan, now, staged=frozenset())]
        streams = [member.hello.stream for member in state.members]
        # Members may have come and gone while the store did not say whether it was done.
        refusal = staging_obstacle(state, plan.phy2log, plan.digest)
        self._rollout = Rollout(state, plan, streams if refusal is None else (), now)
        ended = self.abort(refusal[1], now) if refusal is not None else []
        return [*done, *(ended or self._rollout.begin(now))]

    # Stage.

    def on_staged(self, stream: int, version: int, now: ev.Instant) -> list[fx.Effect]:
        """Notes that a member has staged a version; the last one of them makes the commit."""
        if version != self.staging_version or self._rollout is None:
            return []
        return self._rollout.on_staged(stream, now)

    def on_committed(self, version: int, now: ev.Instant) -> list[fx.Effect]:
        """Goes on with a staged plan whose commit is durable."""
        rollout = self._rollout
        if rollout is None or rollout.plan.version != version:
            return []
        self._rollout = None
        plan = rollout.plan.with_state(PlanState.COMMITTED)
        return self._adopt(plan, now, staged=rollout.staged)

    def abort(self, reason: str, now: ev.Instant) -> list[fx.Effect]:
        """Gives up what is being staged, durably first; nothing happens after the commit."""
        return self._rollout.abort(reason, now) if self._rollout is not None else []

    def on_aborted(self, version: int, now: ev.Instant) -> list[fx.Effect]:
        """Tells the members to drop what they have staged."""
        rollout = self._rollout
        if rollout is None or rollout.plan.version != version:
            return []
        self._rollout = None
        self._parts.clear()
        if rollout.plan.draft.reason.holds_down:
            self._state.release()
        return rollout.end(now)

    def on_refused(self, member: Member, event: ev.Nack, now: ev.Instant) -> list[fx.Effect]:
        """Takes a member's refusal: asks again later, or never again."""
        state, plan = self._state, self._plan_of(event.version)
        if event.is_transient:
            if plan is None:
                return []
            if self._rollout is not None and event.version == self.staging_version:
                self._rollout.on_unstaged(member.hello.stream)
            member.ask_later(plan, now.monotonic_s, state.heartbeat_interval_s)
            return []
        digest = state.digests.get(event.version)
        if digest is None:
            return []
        done = [fx.StoreParked(parked) for parked in member.refuse(digest)]
        why = f"{member.hello.participant} refuses it: {event.message}"
        aborted = self.abort(why, now) if event.version == self.staging_version else []
        return [*done, *aborted, *self.check_applied(now)]

    def _plan_of(self, version: int) -> Plan | None:
        """Returns the plan under way or in force that has this version."""
        if self._rollout is not None and self._rollout.plan.version == version:
            return self._rollout.plan
        committed = self._state.committed
        return committed if committed is not None and committed.version == version else None

    # Switch.

    def _adopt(
        self, plan: Plan, now: ev.Instant, staged: frozenset[int] | set[int]
    ) -> list[fx.Effect]:
        """Makes a durably committed plan the one in force, and tells everybody."""
        state = self._state
        # The parts of a chain are judged together, against what was before the first.
        earlier = self._verification if self._is_next_part else None
        self._verification = self._watch(plan, earlier) if is_watched(plan) else None
        state.note(plan)
        state.committed, state.in_force = plan, plan.phy2log
        state.deployment = state.deployment.with_committed(plan.version)
        state.intake.learn_plan(plan)
        self._committed_at_s = now.monotonic_s
        commits = [
            fx.Send(member.hello.stream, fx.Commit(plan, member.hello.stream in staged))
            for member in state.members
            if plan.digest not in member.refused
        ]
        decided_s = now.monotonic_s - self._decided_at_s
        return [
            fx.Announce(plan),
            *commits,
            fx.Reached(fx.Milestone.COMMITTED, decided_s),
            *self.check_applied(now),
        ]

    def _watch(self, plan: Plan, earlier: Verification | None) -> Verification:
        """Returns the watch over a plan, against what was in force before it."""
        if earlier is not None:
            return Verification(plan, earlier.previous, earlier.origin)
        committed = self._state.committed
        origin = committed.draft.solution if committed is not None else None
        return Verification(plan, self._state.in_force, origin)

    def check_applied(self, now: ev.Instant) -> list[fx.Effect]:
        """Notes, once, that every member serves with the committed plan; the next part follows."""
        state = self._state
        plan = state.committed
        if plan is None or not len(state.members):
            return []
        done: list[fx.Effect] = []
        if plan.state is PlanState.COMMITTED and all(
            member.has_applied(plan) for member in state.members
        ):
            state.committed = plan.with_state(PlanState.APPLIED)
            if self._verification is not None:
                self._verification.is_applied = True
            done.append(fx.StoreApplied(plan.version))
            if self._committed_at_s is not None:  # in this term, else nobody knows when
                applied_s = now.monotonic_s - self._committed_at_s
                done.append(fx.Reached(fx.Milestone.APPLIED, applied_s))
        return [*done, *self._next_part(now)]

    def _next_part(self, now: ev.Instant) -> list[fx.Effect]:
        """Publishes the next part of a chain, once the part before it is where it should be."""
        state = self._state
        if not self._parts or self._writing or self._rollout or not state.is_settled:
            return []
        part, *parts = self._parts
        self._parts = []
        offer = part.made(state)
        solution = offer.solution
        refusal = self.obstacle(solution.phy2log, solution.digest)
        if state.deployment.is_paused:
            refusal = paused(state)
        if refusal is not None:
            reason, why = refusal
            decision = state.draft(reason, f"{why} {offer.message}", now, solution=solution)
            state.journal.enter(decision)
            return [fx.Record(decision)]
        self._parts = parts
        self._is_next_part = True
        return self._store(offer, now, None)

    def verify(self, samples: Sequence[np.ndarray]) -> Verification | None:
        """Shows the latest plan a window that came after it; returns it if it does too badly."""
        watch = self._verification
        if watch is None:
            return None
        watch.add(samples, self._state.spec.topology)
        if watch.loss > self._state.spec.rollout.regression_tolerance:
            return watch
        if watch.is_over:
            self._verification = None
        return None

    # Time, and doubt.

    def tick(self, now: ev.Instant) -> list[fx.Effect]:
        """Gives up what is overdue, sends again what members wanted later, resolves doubts."""
        if self._is_in_doubt:
            return [fx.ReadBack()]
        if self._rollout is not None:
            return self._rollout.tick(now)
        state, plan = self._state, self._state.committed
        if plan is None:
            return []
        return [
            fx.Send(member.hello.stream, fx.Commit(plan))
            for member in state.members
            if not member.is_settled(plan)
            and member.is_due(plan, now.monotonic_s, state.heartbeat_interval_s)
        ]

    def on_store_failed(self, error: ServiceError) -> list[fx.Effect]:
        """Stops until it is known what the store has done."""
        if self._writing is not None:
            self._writing.error = error
        self._is_in_doubt = True
        return [fx.ReadBack()]

    def on_read_back(self, recovered: Recovered, now: ev.Instant) -> list[fx.Effect]:
        """Goes on from what the store really holds. Also the way back after a restart."""
        self._is_in_doubt = False
        state = self._state
        state.deployment = state.deployment.with_head(recovered.deployment.head)
        done = self._resolve_writing(recovered, now)
        done += self._resolve_rollout(recovered, now)
        return [*done, *self._resolve_committed(recovered, now)]

    def _resolve_writing(self, recovered: Recovered, now: ev.Instant) -> list[fx.Effect]:
        """Finds out whether the plan was stored after all."""
        writing = self._writing
        if writing is None:
            return []
        digest, known = writing.effect.draft.solution.digest, writing.effect.expected_head
        for plan in recovered.plans:
            is_ours = plan.digest == digest and plan.epoch == writing.epoch
            # One that a later owner has given up, or gone beyond, is no longer to be shown.
            is_alive = plan.state is PlanState.STAGING or plan.state.is_in_force
            if plan.version > known and is_ours and is_alive:
                return self.on_stored(plan, now)
        assert writing.error is not None
        self._writing = None
        self._parts.clear()
        decision = replace(
            writing.effect.decision, reason=Reason.FAILED_STORE, message=writing.error.message
        )
        self._state.journal.enter(decision)
        done: list[fx.Effect] = [fx.Record(decision)]
        if writing.asked is not None:
            done.append(fx.Answer(writing.asked.order, writing.error))
        return done

    def _resolve_rollout(self, recovered: Recovered, now: ev.Instant) -> list[fx.Effect]:
        """Finds out what became of a staging plan."""
        rollout = self._rollout
        staging = next((p for p in recovered.plans if p.state is PlanState.STAGING), None)
        if rollout is None:
            if staging is None:
                return []
            self._rollout = Rollout(self._state, staging, (), now)
            return self.abort("The planner that rolled it out is gone.", now)
        version = rollout.plan.version
        if staging is not None and staging.version == version:
            # Not committed, so whatever has come between may still give it up: with the next tick.
            rollout.reopen()
            return []
        found = next((plan for plan in recovered.plans if plan.version == version), None)
        if found is not None and found.state.is_in_force:
            return self.on_committed(version, now)
        return self.on_aborted(version, now)

    def _resolve_committed(self, recovered: Recovered, now: ev.Instant) -> list[fx.Effect]:
        """Takes over a committed plan that the core has missed."""
        state = self._state
        generation = state.deployment.generation
        newest = next((plan for plan in recovered.plans if plan.state.is_in_force), None)
        if newest is None or newest.draft.generation != generation:
            return []
        known = state.committed.version if state.committed is not None else 0
        return self._adopt(newest, now, staged=frozenset()) if newest.version > known else []

    def forget(self) -> None:
        """Ends the watch over the latest plan, and drops the rest of a chain."""
        self._verification = None
        self._parts.clear()
