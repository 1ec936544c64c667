"""When to plan, and whether a plan is worth publishing. The default answer is: do not move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from expertplane_server.core.plan import Necessity, Reason, Solution
from expertplane_server.core.spec import DeploymentSpec, RolloutMode


if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from expertplane_server.core.obstacles import Refusal


_NECESSITIES = {
    Necessity.LOST_EXPERTS: "The placement in force has lost experts",
    Necessity.ENGINE_RULES: "The placement in force breaks a rule of the engine",
    Necessity.MODE: "The placement in force breaks the mode",
}


@dataclass(slots=True)
class Window:
    """The samples between two decisions; bounded by `window_samples`."""

    samples: list[npt.NDArray[np.float64]] = field(default_factory=list)
    opened_at_s: float = 0.0

    def add(self, counts: npt.NDArray[np.float64], now_s: float) -> None:
        """Appends a sample [L, E]."""
        if not self.samples:
            self.opened_at_s = now_s
        self.samples.append(counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the trigger must know besides the window.

    Attributes:
        now_s: monotonic time.
        published_at_s: when the last plan was published; None when there is none.
        obstacles: what speaks against a publication, the most telling first.
    """

    now_s: float
    published_at_s: float | None
    obstacles: tuple[Refusal | None, ...]


class Trigger:
    """Applies a deployment's trigger parameters."""

    def __init__(self, spec: DeploymentSpec) -> None:
        self._parameters = spec.trigger
        self._max_moved_slots = spec.policy.max_moved_slots
        self._rollout_mode = spec.rollout_mode

    def is_due(self, window: Window, now_s: float) -> bool:
        """Tells whether the window closes now."""
        if not window.samples:
            return False
        is_full = len(window.samples) >= self._parameters.window_samples
        return is_full or now_s - window.opened_at_s >= self._parameters.max_window_s

    def why_not_solve(self, window: Window, situation: Situation) -> tuple[Reason, str] | None:
        """Returns the reason to skip this window without a solve, or None to go ahead."""
        parameters = self._parameters
        if len(window.samples) < parameters.min_samples:
            message = (
                f"Expected at least {parameters.min_samples} samples in the window, "
                f"got {len(window.samples)}."
            )
            return Reason.SKIPPED_FEW_SAMPLES, message
        if situation.published_at_s is not None:
            age_s = situation.now_s - situation.published_at_s
            if age_s < parameters.cooldown_s:
                message = (
                    f"The last plan is {age_s:.1f} s old, younger than the cool-down of "
                    f"{parameters.cooldown_s:g} s."
                )
                return Reason.SKIPPED_COOLDOWN, message
        return next(filter(None, situation.obstacles), None)

    def judge(self, solution: Solution) -> tuple[Reason, str]:
        """Decides on a solved candidate."""
        reason, message = self._weigh(solution)
        if solution.is_drifting:
            message += " The window departed from its forecast far more than usual."
        return reason, message

    def _weigh(self, solution: Solution) -> tuple[Reason, str]:
        """Sets gain against cost, where there is a choice."""
        if solution.necessity is not None:
            return self._put_right(solution.necessity, solution)
        before = solution.balance_before
        span = (
            f" ({before.balancedness:.3f} to {solution.balance.balancedness:.3f})"
            if before is not None
            else ""
        )
        numbers = f"{solution.gain:+.2%}{span} for {solution.moved_slots} moved slots"
        parameters = self._parameters
        if solution.gain <= parameters.min_gain:
            message = (
                f"The predicted gain is {numbers}, not above min_gain {parameters.min_gain:.2%}."
            )
            return Reason.SKIPPED_GAIN_TOO_SMALL, message
        if solution.gain_s <= parameters.safety * solution.cost_s:
            message = (
                f"The predicted gain is {numbers}: {solution.gain_s:.3g} s over the horizon, not "
                f"above {parameters.safety:g} times the {solution.cost_s:.3g} s that the "
                "migration takes away."
            )
            return Reason.SKIPPED_MIGRATION_TOO_DEAR, message
        if solution.cost_s > 0:
            numbers += f", {solution.gain_s:.3g} s against {solution.cost_s:.3g} s of migration"
        if self._rollout_mode is RolloutMode.SHADOW:
            return Reason.SHADOW, f"Would have gained {numbers}; shadow mode publishes nothing."
        return Reason.PUBLISHED, f"The predicted gain is {numbers}."

    def _put_right(self, necessity: Necessity, solution: Solution) -> tuple[Reason, str]:
        """Publishes what cannot wait for a gain: neither gain, cost nor budget may refuse it."""
        message = f"{_NECESSITIES[necessity]}. Its successor moves {solution.moved_slots} slots"
        budget, most = self._max_moved_slots, solution.most_moved_slots
        if budget is not None and most > budget:
            message += f", up to {most} in a layer, beyond the budget of {budget}"
        if self._rollout_mode is RolloutMode.SHADOW:
            return Reason.SHADOW, f"{message}; shadow mode publishes nothing."
        return Reason.PUBLISHED, f"{message}."
