"""From samples to a decision: gather a window, ask for a solve, judge it, have it stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.journal import Journal
from expertplane_server.core.plan import PlanDraft, Reason, Solution
from expertplane_server.core.trigger import Situation, Trigger, Window


if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from expertplane_server.core.spec import Deployment, DeploymentSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the deployment stands when the cycle is asked to act.

    Attributes:
        epoch: the planner's term.
        deployment: as the store has it.
        incumbent: [num_layers, num_slots] int32, the placement in force.
        is_settled: every member serves with the committed plan, or has refused it.
    """

    epoch: int
    deployment: Deployment
    incumbent: np.ndarray[Any, Any]
    is_settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Solving:
    """The solve under way, and the size of its window."""

    solve: int
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Publishing:
    """What the decision will say once its plan is durable."""

    message: str
    num_samples: int
    solution: Solution


class PlanningCycle:
    """One window after another; at most one solve or publication at a time.

    Invariants: every window that closes with samples ends in exactly one decision, and goes to the
    forecast exactly once: with its solve, or without one.
    """

    def __init__(self, spec: DeploymentSpec) -> None:
        self.journal = Journal()
        self._trigger = Trigger(spec)
        self._window = Window()
        self._num_solves = 0
        self._solving: _Solving | None = None
        self._publishing: _Publishing | None = None
        self._published_at_s: float | None = None

    @property
    def is_busy(self) -> bool:
        """A plan is being solved or stored."""
        return self._solving is not None or self._publishing is not None

    def add(self, counts: npt.NDArray[np.float64], now: ev.Instant) -> None:
        """Adds a sample [num_layers, num_logical_experts], tokens, to the window."""
        self._window.add(counts, now.monotonic_s)

    def note_idle(self, standing: Standing, now: ev.Instant) -> list[fx.Effect]:
        """Records SKIPPED_ZERO_LOAD once for a stretch of idle samples between two windows."""
        latest = self.journal.latest
        if latest is not None and latest.reason is Reason.SKIPPED_ZERO_LOAD:
            return []
        if self._window.samples or self.is_busy:
            return []
        message = "No tokens were routed: idle, or profiling."
        return [self._decide(Reason.SKIPPED_ZERO_LOAD, message, standing, now, num_samples=0)]

    def close_window(self, standing: Standing, now: ev.Instant) -> list[fx.Effect]:
        """Asks for a solve, or says why not, once the window is due."""
        if not self._trigger.is_due(self._window, now.monotonic_s):
            return []
        window, self._window = self._window, Window()
        samples = tuple(window.samples)
        num_samples = len(samples)
        situation = Situation(
            now_s=now.monotonic_s,
            published_at_s=self._published_at_s,
            is_busy=self.is_busy or not standing.is_settled,
        )
        skipped = self._trigger.why_not_solve(window, situation)
        if skipped is not None:
            decided = self._decide(*skipped, standing, now, num_samples=num_samples)
            return [decided, fx.Learn(samples)]
        self._num_solves += 1
        self._solving = _Solving(solve=self._num_solves, num_samples=num_samples)
        return [fx.Solve(solve=self._num_solves, samples=samples, incumbent=standing.incumbent)]

    def on_solved(self, event: ev.Solved, standing: Standing, now: ev.Instant) -> list[fx.Effect]:
        """Judges the candidate; one worth publishing is stored first."""
        solving = self._finish_solve(event.solve)
        if solving is None:
            return []
        solution = event.solution
        reason, message = self._trigger.judge(solution)
        if reason is not Reason.PUBLISHED:
            num_samples = solving.num_samples
            return [
                self._decide(
                    reason, message, standing, now, num_samples=num_samples, solution=solution
                )
            ]
        self._publishing = _Publishing(
            message=message, num_samples=solving.num_samples, solution=solution
        )
        draft = PlanDraft(
            deployment=standing.deployment.name,
            generation=standing.deployment.generation,
            parent=standing.deployment.committed,
            reason=reason,
            solution=solution,
        )
        return [fx.StorePlan(draft)]

    def on_solve_failed(
        self, event: ev.SolveFailed, standing: Standing, now: ev.Instant
    ) -> list[fx.Effect]:
        """Gives the window up; the next one tries again."""
        solving = self._finish_solve(event.solve)
        if solving is None:
            return []
        return [
            self._decide(
                Reason.FAILED_SOLVE, event.message, standing, now, num_samples=solving.num_samples
            )
        ]

    def on_stored(self, event: ev.Stored, standing: Standing, now: ev.Instant) -> fx.Record:
        """Records the publication. `standing` is from before it."""
        publishing = self._finish_publication()
        self._published_at_s = now.monotonic_s
        return self._decide(
            Reason.PUBLISHED,
            publishing.message,
            standing,
            now,
            num_samples=publishing.num_samples,
            plan_version=event.plan.version,
            solution=publishing.solution,
        )

    def on_store_failed(
        self, event: ev.StoreFailed, standing: Standing, now: ev.Instant
    ) -> list[fx.Effect]:
        """Gives the plan up: what is not durable is shown to nobody."""
        publishing = self._finish_publication()
        return [
            self._decide(
                Reason.FAILED_STORE,
                event.message,
                standing,
                now,
                num_samples=publishing.num_samples,
                solution=publishing.solution,
            )
        ]

    def _finish_solve(self, solve: int) -> _Solving | None:
        """Returns the solve of this number when it is the one under way."""
        solving = self._solving
        if solving is None or solving.solve != solve:
            return None
        self._solving = None
        return solving

    def _finish_publication(self) -> _Publishing:
        """Returns the publication under way."""
        publishing = self._publishing
        assert publishing is not None, "the store answered a question that was not asked"
        self._publishing = None
        return publishing

    def _decide(
        self,
        reason: Reason,
        message: str,
        standing: Standing,
        now: ev.Instant,
        *,
        num_samples: int,
        plan_version: int = 0,
        solution: Solution | None = None,
    ) -> fx.Record:
        """Enters a decision in the journal."""
        decision = self.journal.enter(
            reason,
            message,
            now,
            epoch=standing.epoch,
            num_samples=num_samples,
            incumbent=standing.deployment.committed,
            plan_version=plan_version,
            solution=solution,
        )
        return fx.Record(decision)
