"""The latest decisions of a deployment, numbered, in bounded memory."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

from expertplane_server.core import limits
from expertplane_server.core.plan import Decision, Reason, Solution


if TYPE_CHECKING:
    from collections.abc import Iterable

    from expertplane_server.core.events import Instant


class Journal:
    """Numbers decisions from 1 on, over restarts, and keeps the latest.

    Args:
        decisions: the latest of earlier terms, oldest first.
    """

    def __init__(self, decisions: Iterable[Decision] = ()) -> None:
        self._decisions = list(decisions)[-limits.MAX_JOURNAL :]
        self._last = self._decisions[-1].sequence if self._decisions else 0

    @property
    def latest(self) -> Decision | None:
        """The latest decision, or None when there is none yet."""
        return self._decisions[-1] if self._decisions else None

    def after(self, sequence: int, limit: int) -> list[Decision]:
        """Returns the latest `limit` decisions with a higher sequence, oldest first."""
        return [entry for entry in self._decisions if entry.sequence > sequence][-limit:]

    def draft(
        self,
        reason: Reason,
        message: str,
        now: Instant,
        *,
        epoch: int,
        incumbent: int,
        num_samples: int = 0,
        plan_version: int = 0,
        solution: Solution | None = None,
    ) -> Decision:
        """Numbers a decision without keeping it: what it is about is yet to become durable."""
        self._last += 1
        return Decision(
            sequence=self._last,
            epoch=epoch,
            reason=reason,
            message=message,
            decided_at_s=now.wall_s,
            num_samples=num_samples,
            incumbent=incumbent,
            plan_version=plan_version,
            **_figures(solution),
        )

    def enter(self, decision: Decision) -> None:
        """Keeps a decision; one whose outcome was long in doubt goes to its place."""
        bisect.insort(self._decisions, decision, key=lambda entry: entry.sequence)
        if len(self._decisions) > limits.MAX_JOURNAL:
            del self._decisions[0]


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
