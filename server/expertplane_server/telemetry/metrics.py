"""Every metric of the service, in one place.

Base units, `_total` on counters, labels from bounded sets only: never a rank, a layer, an expert
or a digest. Deployments beyond the first hundred share the label `_other`.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase

from expertplane_server.core.effects import Milestone, SampleFate
from expertplane_server.core.events import AckPhase
from expertplane_server.core.plan import Reason


HELLO_OUTCOMES = (
    "up_to_date",
    "take_this_plan",
    "no_plan_yet",
    "deployment_unknown",
    "refused",
)
NACK_KINDS = ("transient", "permanent")
PLAN_OUTCOMES = ("published", "committed", "applied", "aborted", "failed")
SLOW_READER_CAUSES = ("overflow", "write_timeout")
SOLVE_PHASES = ("forecast", "plan", "measure")
DEVICE_FAILURES = ("out_of_memory", "lost")
_MAX_DEPLOYMENT_LABELS = 100
_OTHER = "_other"
_FAST_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
_SLOW_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_PHASE_S = (0.0005, 0.001, 0.002, *_SLOW_S)
_BATCH_SOLVES = (1, 2, 4, 8, 16, 32)
_ROLLOUT_S = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


class Metrics:
    """The service's metrics, in a registry of their own.

    Args:
        registry: where they are registered; a fresh one when left out.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        # A creation-time series beside every counter tells nobody anything.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it bare
        self.registry = registry if registry is not None else CollectorRegistry()
        self._deployments: set[str] = set()
        self._define_requests()
        self._define_streams()
        self._define_deployments()
        self._define_plans()
        self._define_forecasts()
        self._define_solver()
        self._define_machinery()

    def _define_requests(self) -> None:
        """Defines what concerns unary calls."""
        self.requests = Counter(
            "expertplane_requests_total",
            "Finished calls by method and gRPC status code.",
            ["method", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "expertplane_request_duration_seconds",
            "Duration of unary calls.",
            ["method"],
            buckets=_SLOW_S,
            registry=self.registry,
        )

    def _define_streams(self) -> None:
        """Defines what concerns streams."""
        self.streams = Gauge(
            "expertplane_streams",
            "Open streams by method.",
            ["method"],
            registry=self.registry,
        )
        self.hellos = Counter(
            "expertplane_hellos_total",
            "Hellos by outcome: the verdict of the Welcome, or refused.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in HELLO_OUTCOMES:
            self.hellos.labels(outcome)
        self.outbox_dropped = Counter(
            "expertplane_outbox_dropped_messages_total",
            "Messages that gave way to a newer one before their stream took them.",
            registry=self.registry,
        )
        self.slow_readers = Counter(
            "expertplane_slow_readers_total",
            "Streams ended because their peer does not read: overflow, write_timeout.",
            ["cause"],
            registry=self.registry,
        )
        for cause in SLOW_READER_CAUSES:
            self.slow_readers.labels(cause)
        self.refused = Counter(
            "expertplane_refused_messages_total",
            "Messages refused in band, by reason.",
            ["reason"],
            registry=self.registry,
        )

    def _define_deployments(self) -> None:
        """Defines what concerns deployments."""
        self.participants = self._of_deployments(
            "expertplane_participants",
            "Live participants.",
        )
        self.samples = Counter(
            "expertplane_samples_total",
            "Load samples by what became of them.",
            ["deployment", "fate"],
            registry=self.registry,
        )
        self.last_report_timestamp = self._of_deployments(
            "expertplane_last_report_timestamp_seconds",
            "Wall-clock time of the latest load report that was accepted.",
        )
        self.oldest_report_age = self._of_deployments(
            "expertplane_oldest_report_age_seconds",
            "Age of the latest load report of the participant that has not reported for longest.",
        )
        self.queue_length = self._of_deployments(
            "expertplane_event_queue_length",
            "Events that wait for the control core.",
        )
        self.paused = self._of_deployments(
            "expertplane_paused",
            "1 while automatic publication is paused, else 0.",
        )
        self.decisions = Counter(
            "expertplane_decisions_total",
            "Decisions by reason.",
            ["deployment", "reason"],
            registry=self.registry,
        )
        self.decision_seconds = Histogram(
            "expertplane_decision_duration_seconds",
            "From the last sample of a window to its decision, the plan being on its way.",
            buckets=_SLOW_S,
            registry=self.registry,
        )
        self._define_balance()

    def _define_balance(self) -> None:
        """Defines what concerns the balance that plans promise and keep."""
        self.balancedness = Gauge(
            "expertplane_balancedness_ratio",
            "Balancedness of the latest evaluated window, under the incumbent and the candidate.",
            ["deployment", "placement"],
            registry=self.registry,
        )
        self.promised_balancedness = self._of_deployments(
            "expertplane_promised_balancedness_ratio",
            "Balancedness that the committed plan promised; absent where it was not evaluated.",
        )
        self.observed_balancedness = self._of_deployments(
            "expertplane_observed_balancedness_ratio",
            "Balancedness of the placement in force on the latest window.",
        )
        self.regressions = Counter(
            "expertplane_regressions_total",
            "Plans that did worse than their predecessor on the load that followed.",
            ["deployment"],
            registry=self.registry,
        )

    def _define_plans(self) -> None:
        """Defines what concerns plans and their roll-out."""
        self.committed_version = self._of_deployments(
            "expertplane_committed_version",
            "Committed plan version of this generation; 0 before the first plan.",
        )
        self.staging_version = self._of_deployments(
            "expertplane_staging_version", "Version being staged; 0 when there is none."
        )
        self.applied_min_version = self._of_deployments(
            "expertplane_applied_min_version",
            "Lowest version that a live participant serves with; 0 without participants.",
        )
        self.applied_max_version = self._of_deployments(
            "expertplane_applied_max_version",
            "Highest version that a live participant serves with; 0 without participants.",
        )
        self.plan_created_timestamp = self._of_deployments(
            "expertplane_plan_created_timestamp_seconds",
            "Wall-clock time at which the committed plan was made; absent without one.",
        )
        self.plans = Counter(
            "expertplane_plans_total",
            "Plans by what became of them: published (given a version), committed, applied, "
            "aborted, failed (not stored).",
            ["deployment", "outcome"],
            registry=self.registry,
        )
        self.acks = Counter(
            "expertplane_acks_total",
            "Plans that participants accepted, by phase.",
            ["deployment", "phase"],
            registry=self.registry,
        )
        self.nacks = Counter(
            "expertplane_nacks_total",
            "Plans that participants refused: transient, to be tried again, or permanent.",
            ["deployment", "kind"],
            registry=self.registry,
        )
        self.rollout_seconds = Histogram(
            "expertplane_rollout_duration_seconds",
            "Steps of roll-outs by milestone: Stage to all staged or aborted, decision to "
            "committed, Commit to all applied.",
            ["milestone"],
            buckets=_ROLLOUT_S,
            registry=self.registry,
        )
        for milestone in Milestone:
            self.rollout_seconds.labels(milestone)

    def _define_forecasts(self) -> None:
        """Defines what concerns forecasts."""
        self.forecast_windows = self._of_deployments(
            "expertplane_forecast_windows",
            "Windows that the forecast has seen, those before a restart included.",
        )
        self.forecast_drifts = Counter(
            "expertplane_forecast_drifts_total",
            "Windows that departed from their forecast far more than usual.",
            ["deployment"],
            registry=self.registry,
        )
        self.forecast_lost_windows = Counter(
            "expertplane_forecast_lost_windows_total",
            "Windows that the forecast was not shown: the solver was behind or lost, or the store "
            "could not be read.",
            ["deployment"],
            registry=self.registry,
        )
        self.forecast_checkpoints = Counter(
            "expertplane_forecast_checkpoints_total",
            "Checkpoints of forecasts by outcome: saved, restored, refused, failed.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("saved", "restored", "refused", "failed"):
            self.forecast_checkpoints.labels(outcome)

    def _define_solver(self) -> None:
        """Defines what concerns the solver process."""
        self.solves = Counter(
            "expertplane_solves_total",
            "Plans asked of the solver process by outcome: answer, rejection, failure.",
            ["outcome"],
            registry=self.registry,
        )
        self.solve_seconds = Histogram(
            "expertplane_solve_duration_seconds",
            "Time in the solver process, the pipe included.",
            buckets=_SLOW_S,
            registry=self.registry,
        )
        self.solver_phase_seconds = Histogram(
            "expertplane_solver_phase_seconds",
            "Time of a solve by phase: forecast, plan (all plans made together), measure.",
            ["phase"],
            buckets=_PHASE_S,
            registry=self.registry,
        )
        for phase in SOLVE_PHASES:
            self.solver_phase_seconds.labels(phase)
        self.solver_batch_solves = Histogram(
            "expertplane_solver_batch_solves",
            "Solves that went to the solver process together; one at a time on a CPU.",
            buckets=_BATCH_SOLVES,
            registry=self.registry,
        )
        self.solver_restarts = Counter(
            "expertplane_solver_restarts_total",
            "Solver processes that were lost.",
            registry=self.registry,
        )
        self._define_device()

    def _define_device(self) -> None:
        """Defines what concerns the device that the solver process plans on."""
        self.solver_device = Gauge(
            "expertplane_solver_device_info",
            "The device that the solver process plans on, and what its maker calls it.",
            ["device", "name"],
            registry=self.registry,
        )
        self.solver_device_used_bytes = Gauge(
            "expertplane_solver_device_memory_used_bytes",
            "Memory of the device that the solver process has taken, cache included; 0 on a CPU.",
            registry=self.registry,
        )
        self.solver_device_total_bytes = Gauge(
            "expertplane_solver_device_memory_total_bytes",
            "Memory of the device; 0 on a CPU.",
            registry=self.registry,
        )
        self.solver_device_failures = Counter(
            "expertplane_solver_device_failures_total",
            "Device failures, each followed by a time on the CPU: out_of_memory, lost.",
            ["reason"],
            registry=self.registry,
        )
        for reason in DEVICE_FAILURES:
            self.solver_device_failures.labels(reason)

    def _define_machinery(self) -> None:
        """Defines what concerns loop, store and core."""
        self.loop_lag_seconds = Histogram(
            "expertplane_event_loop_lag_seconds",
            "By how much a short sleep on the event loop overruns.",
            buckets=_FAST_S,
            registry=self.registry,
        )
        self.store_seconds = Histogram(
            "expertplane_store_duration_seconds",
            "Duration of store operations, waiting included.",
            ["operation"],
            buckets=_FAST_S,
            registry=self.registry,
        )
        self.store_errors = Counter(
            "expertplane_store_errors_total",
            "Store operations that failed.",
            ["operation"],
            registry=self.registry,
        )
        self.core_errors = Counter(
            "expertplane_core_errors_total",
            "Events that the control core failed on: defects.",
            registry=self.registry,
        )
        self.epoch = Gauge(
            "expertplane_epoch",
            "The planner's term.",
            registry=self.registry,
        )

    def _of_deployments(self, name: str, meaning: str) -> Gauge:
        """Returns a gauge with a series for each deployment."""
        return Gauge(name, meaning, ["deployment"], registry=self.registry)

    def families(self) -> list[Metric]:
        """Returns every metric, with or without series."""
        return list(self.registry.collect())

    def labels_of(self, name: str) -> tuple[str, ...]:
        """Returns the label names of a metric, by its name without `_total`."""
        return next(each._labelnames for each in self._all() if each._name == name)

    def label(self, deployment: str) -> str:
        """Returns the label value of a deployment, from a bounded set."""
        if deployment in self._deployments:
            return deployment
        if len(self._deployments) >= _MAX_DEPLOYMENT_LABELS:
            return _OTHER
        self._deployments.add(deployment)
        for metric, values in (
            (self.decisions, Reason),
            (self.samples, SampleFate),
            (self.plans, PLAN_OUTCOMES),
            (self.acks, AckPhase),
            (self.nacks, NACK_KINDS),
        ):
            for value in values:
                metric.labels(deployment, value)
        for counter in (self.forecast_drifts, self.forecast_lost_windows, self.regressions):
            counter.labels(deployment)
        return deployment

    def forget(self, deployment: str) -> None:
        """Drops the series of a deleted deployment."""
        if deployment not in self._deployments:
            return
        self._deployments.discard(deployment)
        for metric in self._all():
            if "deployment" in metric._labelnames:
                metric.remove_by_labels({"deployment": deployment})

    def _all(self) -> list[MetricWrapperBase]:
        """Returns the metrics, in the order of their definition."""
        return [each for each in vars(self).values() if isinstance(each, MetricWrapperBase)]
