"""What operators see of one deployment: its events and effects, counted and logged."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.plan import Reason


if TYPE_CHECKING:
    from expertplane_server.core.group import Group
    from expertplane_server.core.plan import Decision, Plan
    from expertplane_server.runtime.services import Services

logger = logging.getLogger(__name__)


class Instruments:
    """The metrics of one deployment.

    Args:
        group: the core; read, never changed.
        services: metrics and clock.
    """

    def __init__(self, group: Group, services: Services) -> None:
        self._group = group
        self._name = group.deployment.name
        self._clock = services.clock
        self._metrics = services.metrics
        self.label = services.metrics.label(self._name)
        self._solve_asked_at_s: float | None = None
        self._hello: int | None = None

    def on_event(self, event: ev.Event) -> None:
        """Counts what has happened."""
        match event:
            case ev.Hello(stream=stream):
                self._hello = stream
            case ev.Ack(phase=phase):
                self._metrics.acks.labels(self.label, phase).inc()
            case ev.Nack(is_transient=is_transient):
                kind = "transient" if is_transient else "permanent"
                self._metrics.nacks.labels(self.label, kind).inc()

    def on_effect(self, effect: fx.Effect) -> None:
        """Counts what is done about it."""
        match effect:
            case fx.Send(stream, message):
                self._on_message(stream, message)
            case fx.EndStream(stream):
                self.on_hello_answered(stream, "refused")
            case fx.CountSample(fate):
                self._metrics.samples.labels(self.label, fate).inc()
            case fx.Solve():
                self._solve_asked_at_s = time.perf_counter()
            case fx.Record(decision):
                self._on_decision(decision, is_stored=effect.is_stored)
            case fx.Announce(plan):
                self._on_announced(plan)
            case _:
                self._on_progress(effect)

    def on_hello_answered(self, stream: int, outcome: str) -> None:
        """Counts the answer to the Hello that is being handled, if it is the stream's."""
        if stream == self._hello:
            self._hello = None
            self._metrics.hellos.labels(outcome).inc()

    def count_members(self) -> None:
        """Notes how many participants there are."""
        self._metrics.participants.labels(self.label).set(len(self._group.members))

    def look(self, queue_length: int) -> None:
        """Notes where the deployment stands; takes time in proportion to its participants.

        Args:
            queue_length: events that wait for the core.
        """
        group, metrics = self._group, self._metrics
        applied = [member.applied.version for member in group.members]
        now_s = self._clock.now().monotonic_s
        oldest_s = min((member.reported_at_s for member in group.members), default=now_s)
        for gauge, value in (
            (metrics.staging_version, group.staging_version),
            (metrics.paused, group.deployment.is_paused),
            (metrics.applied_min_version, min(applied, default=0)),
            (metrics.applied_max_version, max(applied, default=0)),
            (metrics.oldest_report_age, now_s - oldest_s),
            (metrics.queue_length, queue_length),
        ):
            gauge.labels(self.label).set(value)

    def _on_message(self, stream: int, message: fx.Message) -> None:
        match message:
            case fx.Refused(error=error):
                self._metrics.refused.labels(error.reason).inc()
            case fx.Welcome(verdict=verdict):
                self.on_hello_answered(stream, verdict)
            case fx.ReportAck():
                now_s = self._clock.now().wall_s
                self._metrics.last_report_timestamp.labels(self.label).set(now_s)

    def _on_decision(self, decision: Decision, *, is_stored: bool) -> None:
        """Logs and counts a decision."""
        metrics = self._metrics
        metrics.decisions.labels(self.label, decision.reason).inc()
        if is_stored and decision.reason is not Reason.FAILED_ROLLOUT:
            metrics.plans.labels(self.label, "published").inc()
        elif decision.reason is Reason.FAILED_STORE:
            metrics.plans.labels(self.label, "failed").inc()
        if decision.evaluation is not None:
            self._time_decision(decision)
            for placement, value in (
                ("incumbent", decision.balancedness_before),
                ("candidate", decision.balancedness_after),
            ):
                if value > 0:  # an incumbent that has lost experts has none
                    metrics.balancedness.labels(self.label, placement).set(value)
        logger.info("%s: %s %s", self._name, decision.reason, decision.message)

    def _time_decision(self, decision: Decision) -> None:
        """Notes how long a solve took to come to its decision, once."""
        asked_at_s = self._solve_asked_at_s
        # What operators order is scored without a solve, also while one is under way.
        if asked_at_s is None or decision.reason.holds_down:
            return
        self._solve_asked_at_s = None
        self._metrics.decision_seconds.observe(time.perf_counter() - asked_at_s)

    def _on_announced(self, plan: Plan | None) -> None:
        """Notes what is in force, and what it promises."""
        metrics = self._metrics
        version = plan.version if plan is not None else 0
        metrics.committed_version.labels(self.label).set(version)
        created_s = plan.created_at_s if plan is not None else 0.0
        promised = plan.draft.solution.balance.balancedness if plan is not None else 0.0
        for gauge, value in (
            (metrics.plan_created_timestamp, created_s),
            (metrics.promised_balancedness, promised),
        ):
            if value > 0:
                gauge.labels(self.label).set(value)
            else:
                gauge.remove_by_labels({"deployment": self.label})

    def _on_progress(self, effect: fx.Effect) -> None:
        """Counts how roll-outs go, and how well plans do."""
        metrics = self._metrics
        match effect:
            case fx.Reached(milestone, duration_s):
                metrics.rollout_seconds.labels(milestone).observe(duration_s)
                if milestone is not fx.Milestone.STAGED:
                    metrics.plans.labels(self.label, milestone).inc()
            case fx.Observed(balancedness):
                metrics.observed_balancedness.labels(self.label).set(balancedness)
            case fx.Regressed(version, loss):
                metrics.regressions.labels(self.label).inc()
                logger.warning(
                    "%s: v%d does worse than its predecessor, by %.1f %%",
                    self._name,
                    version,
                    100 * loss,
                )
