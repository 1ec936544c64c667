"""From samples to a decision: gather a window, watch the plan in force, ask for a solve, judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.handmade import START, describe
from expertplane_server.core.obstacles import Refusal, held_down, max_moved_slots, paused
from expertplane_server.core.offers import Asked, Offer
from expertplane_server.core.placements import check_placement, experts_held
from expertplane_server.core.plan import Reason, Solution
from expertplane_server.core.scoring import balance
from expertplane_server.core.trigger import Situation, Trigger, Window


if TYPE_CHECKING:
    import numpy.typing as npt

    from expertplane_server.core.publication import Publication
    from expertplane_server.core.spec import DeploymentSpec
    from expertplane_server.core.state import State
    from expertplane_server.core.verification import Verification

    Samples = tuple[np.ndarray[Any, Any], ...]

_SOLVING = Reason.SKIPPED_ROLLOUT_IN_FLIGHT, "An earlier plan is still being solved."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Solving:
    """The solve under way, the size of its window, what it starts from, and who asked for it."""

    solve: int
    num_samples: int
    incumbent: np.ndarray[Any, Any]
    asked: Asked | None


class PlanningCycle:
    """One window after another; at most one solve at a time.

    Invariants: every window that closes with samples ends in exactly one decision, and goes to the
    forecast exactly once: with its solve, or without one. An order to plan ends in one as well.
    """

    def __init__(self, state: State, publication: Publication) -> None:
        self._state = state
        self._publication = publication
        self._trigger = Trigger(state.spec)
        self._window = Window()
        self._num_solves = 0
        self._solving: _Solving | None = None

    def change(self, before: DeploymentSpec, now: ev.Instant) -> list[fx.Effect]:
        """Goes on under the spec that is in force now; what is being solved is for the old one."""
        spec = self._state.spec
        self._trigger = Trigger(spec)
        is_same_load = (
            spec.layer_ids == before.layer_ids
            and spec.num_logical_experts == before.num_logical_experts
        )
        if not is_same_load:
            self._window, self._state.recent = Window(), ()
        solving, self._solving = self._solving, None
        if solving is None:
            return []
        message = "The deployment has changed while a plan was being solved for it."
        return self._decide(
            (Reason.FAILED_SOLVE, message),
            now,
            num_samples=solving.num_samples,
            asked=solving.asked,
        )

    def add(self, counts: npt.NDArray[np.float64], now: ev.Instant) -> None:
        """Adds a sample [num_layers, num_logical_experts], tokens, to the window."""
        self._window.add(counts, now.monotonic_s)

    def note_idle(self, now: ev.Instant) -> list[fx.Effect]:
        """Records SKIPPED_ZERO_LOAD once for a stretch of idle samples between two windows."""
        latest = self._state.journal.latest
        if latest is not None and latest.reason is Reason.SKIPPED_ZERO_LOAD:
            return []
        if self._window.samples or self._solving is not None:
            return []
        message = "No tokens were routed: idle, or profiling."
        return self._decide((Reason.SKIPPED_ZERO_LOAD, message), now)

    # Windows.

    def close_window(self, now: ev.Instant) -> list[fx.Effect]:
        """Asks for a solve, or says why not, once the window is due."""
        if not self._trigger.is_due(self._window, now.monotonic_s):
            return []
        window, samples = self._window, self._take_window()
        done = self._observe(samples)
        watch = self._publication.verify(samples)
        if watch is not None:
            return [*done, *self._take_back(watch, samples, now), fx.Learn(samples)]
        state, publication = self._state, self._publication
        situation = Situation(
            now_s=now.monotonic_s,
            published_at_s=publication.published_at_s,
            obstacles=(
                paused(state),
                held_down(state, now.monotonic_s),
                _SOLVING if self._solving is not None else publication.obstacle(),
            ),
        )
        refusal = self._trigger.why_not_solve(window, situation)
        if refusal is not None:
            decided = self._decide(refusal, now, num_samples=len(samples))
            return [*done, *decided, fx.Learn(samples)]
        return [*done, self._solve(samples)]

    def _take_window(self) -> Samples:
        """Closes the window and returns its samples."""
        samples = tuple(self._window.samples)
        self._window, self._state.recent = Window(), samples
        return samples

    def _observe(self, samples: Samples) -> list[fx.Effect]:
        """Tells how the placement in force did on a window."""
        state = self._state
        if not experts_held(state.in_force, state.spec.num_logical_experts).all():
            return []
        found = balance(state.in_force, samples, state.spec.topology)
        return [fx.Observed(found.balancedness)]

    def _take_back(
        self, watch: Verification, samples: Samples, now: ev.Instant
    ) -> list[fx.Effect]:
        """Goes back to the plan before one that does worse than it on the same load."""
        state, publication, plan = self._state, self._publication, watch.plan
        done: list[fx.Effect] = []
        if not watch.is_reported:
            watch.is_reported = True
            done = [fx.Regressed(plan.version, watch.loss)]
        message = (
            f"Version {plan.version} waits {watch.loss:.2%} longer for its most loaded ranks than "
            f"its predecessor would on the same load, beyond the tolerance of "
            f"{state.spec.rollout.regression_tolerance:.2%}."
        )
        solution = describe(
            watch.previous,
            state.in_force,
            state.spec,
            samples,
            origin=watch.origin,
            policy=START,
        )
        refusal = paused(state) or publication.obstacle(watch.previous, solution.digest)
        if refusal is not None:
            told = refusal[0], f"{refusal[1]} {message}"
            return [*done, *self._decide(told, now, num_samples=len(samples))]
        offer = Offer(
            solution=solution,
            reason=Reason.ROLLED_BACK_REGRESSION,
            message=message,
            num_samples=len(samples),
        )
        return [*done, *publication.publish(offer, now)]

    # Solves.

    def _solve(
        self, samples: Samples, *, is_new: bool = True, asked: Asked | None = None
    ) -> fx.Solve:
        """Asks for a plan."""
        self._num_solves += 1
        incumbent = self._state.in_force
        self._solving = _Solving(
            solve=self._num_solves,
            num_samples=len(samples),
            incumbent=incumbent,
            asked=asked,
        )
        return fx.Solve(
            solve=self._num_solves,
            samples=samples,
            incumbent=incumbent,
            max_moved_slots=max_moved_slots(self._state),
            is_new=is_new,
        )

    def rebalance(self, asked: Asked, now: ev.Instant) -> list[fx.Effect]:
        """Plans now, for the window so far, or for the one before where it is empty."""
        refusal = _SOLVING if self._solving else self._publication.obstacle(is_order=True)
        if refusal is None and self._window.samples:
            samples = self._take_window()
            return [*self._observe(samples), self._solve(samples, asked=asked)]
        if refusal is None and self._state.recent:
            return [self._solve(self._state.recent, is_new=False, asked=asked)]
        if refusal is None:
            message = "Expected load to plan for, got no sample yet."
            refusal = Reason.SKIPPED_FEW_SAMPLES, message
        return self._decide(refusal, now, asked=asked)

    def on_solved(self, event: ev.Solved, now: ev.Instant) -> list[fx.Effect]:
        """Judges the candidate; one worth publishing goes on its way."""
        solving = self._finish_solve(event.solve)
        if solving is None:
            return []
        solution, asked = event.solution, solving.asked
        reason, message = self._trigger.judge(solution)
        if reason is Reason.PUBLISHED:
            refusal = self._why_not_publish(solution, solving, now)
            if refusal is not None:
                reason, message = refusal[0], f"{refusal[1]} {message}"
        if reason is not Reason.PUBLISHED:
            return self._decide(
                (reason, message),
                now,
                num_samples=solving.num_samples,
                solution=solution,
                asked=asked,
            )
        offer = Offer(
            solution=solution,
            reason=reason,
            message=message,
            num_samples=solving.num_samples,
        )
        return self._publication.publish(offer, now, asked)

    def _why_not_publish(
        self, solution: Solution, solving: _Solving, now: ev.Instant
    ) -> Refusal | None:
        """Returns what has come up while the candidate was being solved, or None."""
        state, is_order = self._state, solving.asked is not None
        try:
            check_placement(solution.phy2log, state.spec, "phy2log")
        except InvalidArgumentError as error:
            return Reason.FAILED_SOLVE, error.message
        stopped = None if is_order else paused(state) or held_down(state, now.monotonic_s)
        if stopped is None and not np.array_equal(solving.incumbent, state.in_force):
            # Its moves and its gain are told from a placement that is over.
            message = "Another placement has come into force since the solve began."
            stopped = Reason.SKIPPED_ROLLOUT_IN_FLIGHT, message
        return stopped or self._publication.obstacle(
            solution.phy2log, solution.digest, is_order=is_order
        )

    def on_solve_failed(self, event: ev.SolveFailed, now: ev.Instant) -> list[fx.Effect]:
        """Gives the window up; the next one tries again."""
        solving = self._finish_solve(event.solve)
        if solving is None:
            return []
        return self._decide(
            (Reason.FAILED_SOLVE, event.message),
            now,
            num_samples=solving.num_samples,
            asked=solving.asked,
        )

    def _finish_solve(self, solve: int) -> _Solving | None:
        """Returns the solve of this number when it is the one under way."""
        solving = self._solving
        if solving is None or solving.solve != solve:
            return None
        self._solving = None
        return solving

    def _decide(
        self,
        verdict: Refusal,
        now: ev.Instant,
        *,
        num_samples: int = 0,
        solution: Solution | None = None,
        asked: Asked | None = None,
    ) -> list[fx.Effect]:
        """Enters a decision that publishes nothing in the journal, and answers whoever asked."""
        reason, message = verdict
        decision = self._state.draft(
            reason, message, now, num_samples=num_samples, solution=solution
        )
        self._state.journal.enter(decision)
        if asked is None:
            return [fx.Record(decision)]
        return [
            fx.Record(decision, request=asked.request),
            fx.Answer(asked.order, decision),
        ]
