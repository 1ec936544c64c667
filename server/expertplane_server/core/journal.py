"""The latest decisions of a deployment, numbered, in bounded memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from expertplane_server.core import limits
from expertplane_server.core.plan import Decision, Reason, Solution


if TYPE_CHECKING:
    from expertplane_server.core.events import Instant


class Journal:
    """Numbers decisions from 1 on, since the planner started, and keeps the latest."""

    def __init__(self) -> None:
        self._decisions: deque[Decision] = deque(maxlen=limits.MAX_JOURNAL)
        self._num_decisions = 0

    @property
    def latest(self) -> Decision | None:
        """The latest decision, or None when there is none yet."""
        return self._decisions[-1] if self._decisions else None

    def after(self, sequence: int, limit: int) -> list[Decision]:
        """Returns the latest `limit` decisions with a higher sequence, oldest first."""
        return [entry for entry in self._decisions if entry.sequence > sequence][-limit:]

    def enter(
        self,
        reason: Reason,
        message: str,
        now: Instant,
        *,
        epoch: int,
        num_samples: int,
        incumbent: int,
        plan_version: int = 0,
        solution: Solution | None = None,
    ) -> Decision:
        """Numbers a decision and keeps it."""
        self._num_decisions += 1
        decision = Decision(
            sequence=self._num_decisions,
            epoch=epoch,
            reason=reason,
            message=message,
            decided_at_s=now.wall_s,
            num_samples=num_samples,
            incumbent=incumbent,
            plan_version=plan_version,
            **_figures(solution),
        )
        self._decisions.append(decision)
        return decision


def _figures(solution: Solution | None) -> dict[str, Any]:
    """Returns what a decision keeps of the solution that it judged."""
    if solution is None:
        return {}
    before = solution.balance_before
    return {
        "evaluation": solution.evaluation,
        "balancedness_before": before.balancedness if before is not None else 0.0,
        "balancedness_after": solution.balance.balancedness,
        "gain": solution.gain,
        "gain_s": solution.gain_s,
        "cost_s": solution.cost_s,
        "moved_slots": solution.moved_slots,
        "solve_s": solution.solve_s,
    }
