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

from expertplane_server.core.effects import SampleFate
from expertplane_server.core.plan import Reason


_MAX_DEPLOYMENT_LABELS = 100
_OTHER = "_other"
_FAST_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
_SLOW_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


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
        self._define_deployments()
        self._define_forecasts()
        self._define_machinery()

    def _define_requests(self) -> None:
        """Defines what concerns calls and streams."""
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
        self.streams = Gauge(
            "expertplane_streams",
            "Open streams by method.",
            ["method"],
            registry=self.registry,
        )
        self.refused = Counter(
            "expertplane_refused_messages_total",
            "Messages refused in band, by reason.",
            ["reason"],
            registry=self.registry,
        )

    def _define_deployments(self) -> None:
        """Defines what concerns deployments."""
        self.participants = Gauge(
            "expertplane_participants",
            "Live participants.",
            ["deployment"],
            registry=self.registry,
        )
        self.samples = Counter(
            "expertplane_samples_total",
            "Load samples by what became of them.",
            ["deployment", "fate"],
            registry=self.registry,
        )
        self.decisions = Counter(
            "expertplane_decisions_total",
            "Decisions by reason.",
            ["deployment", "reason"],
            registry=self.registry,
        )
        self.committed_version = Gauge(
            "expertplane_committed_version",
            "Committed plan version; 0 before the first plan.",
            ["deployment"],
            registry=self.registry,
        )
        self.balancedness = Gauge(
            "expertplane_balancedness_ratio",
            "Balancedness of the latest evaluated window, under the incumbent and the candidate.",
            ["deployment", "placement"],
            registry=self.registry,
        )
        self.decision_seconds = Histogram(
            "expertplane_decision_duration_seconds",
            "From the last sample of a window to its decision, the plan being on its way.",
            buckets=_SLOW_S,
            registry=self.registry,
        )

    def _define_forecasts(self) -> None:
        """Defines what concerns forecasts."""
        self.forecast_windows = Gauge(
            "expertplane_forecast_windows",
            "Windows that the forecast has seen, those before a restart included.",
            ["deployment"],
            registry=self.registry,
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

    def _define_machinery(self) -> None:
        """Defines what concerns loop, solver and store."""
        self.loop_lag_seconds = Histogram(
            "expertplane_event_loop_lag_seconds",
            "By how much a short sleep on the event loop overruns.",
            buckets=_FAST_S,
            registry=self.registry,
        )
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
        self.solver_restarts = Counter(
            "expertplane_solver_restarts_total",
            "Solver processes that were lost.",
            registry=self.registry,
        )
        self.solver_device = Gauge(
            "expertplane_solver_device_info",
            "The device that the solver process owns.",
            ["device"],
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

    def families(self) -> list[Metric]:
        """Returns every metric, with or without series."""
        return list(self.registry.collect())

    def labels_of(self, name: str) -> tuple[str, ...]:
        """Returns the label names of a metric, by its name without `_total`."""
        return next(
            each._labelnames
            for each in vars(self).values()
            if isinstance(each, MetricWrapperBase) and each._name == name
        )

    def label(self, deployment: str) -> str:
        """Returns the label value of a deployment, from a bounded set."""
        if deployment in self._deployments:
            return deployment
        if len(self._deployments) >= _MAX_DEPLOYMENT_LABELS:
            return _OTHER
        self._deployments.add(deployment)
        for reason in Reason:
            self.decisions.labels(deployment, reason)
        for fate in SampleFate:
            self.samples.labels(deployment, fate)
        self.forecast_drifts.labels(deployment)
        self.forecast_lost_windows.labels(deployment)
        return deployment

    def forget(self, deployment: str) -> None:
        """Drops the series of a deleted deployment."""
        if deployment not in self._deployments:
            return
        self._deployments.discard(deployment)
        for reason in Reason:
            self.decisions.remove(deployment, reason)
        for fate in SampleFate:
            self.samples.remove(deployment, fate)
        for metric in (
            self.participants,
            self.committed_version,
            self.balancedness,
            self.forecast_windows,
            self.forecast_drifts,
            self.forecast_lost_windows,
        ):
            metric.remove_by_labels({"deployment": deployment})
