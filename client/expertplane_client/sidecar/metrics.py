"""Every metric of the sidecar, in one list, and the thread that serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from expertplane_client.errors import InputError

from .config import parse_address
from .figures import Figures


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Thread
    from wsgiref.simple_server import WSGIServer


_PREFIX = "expertplane_sidecar_"


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: its name without the prefix, and where its value comes from."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    value: Callable[[Figures], float]

    @property
    def full_name(self) -> str:
        """The name as Prometheus sees it."""
        return _PREFIX + self.name + ("_total" if self.kind == "counter" else "")


METRICS: tuple[MetricRow, ...] = (
    MetricRow(
        "connected",
        "gauge",
        "Whether a planner has said welcome on a stream that lives.",
        lambda figures: figures.is_connected,
    ),
    MetricRow(
        "engine_attached",
        "gauge",
        "Whether an engine has said hello and is still there.",
        lambda figures: figures.is_engine_attached,
    ),
    MetricRow(
        "ready",
        "gauge",
        "Whether the engine is there and knows what to serve with.",
        lambda figures: figures.is_ready,
    ),
    MetricRow(
        "applied_version",
        "gauge",
        "Plan version that the ranks serve with; 0 is the start placement.",
        lambda figures: figures.applied_version,
    ),
    MetricRow(
        "staged_version",
        "gauge",
        "Plan version that is prepared and not switched to; 0 for none.",
        lambda figures: figures.staged_version,
    ),
    MetricRow(
        "plan_age_seconds",
        "gauge",
        "Since the planner made the plan that the ranks serve with; NaN without one.",
        lambda figures: figures.plan_age_s,
    ),
    MetricRow(
        "planner_silence_seconds",
        "gauge",
        "Since the planner's last message; NaN before the first.",
        lambda figures: figures.planner_silence_s,
    ),
    MetricRow(
        "connects",
        "counter",
        "Streams on which the planner said welcome.",
        lambda figures: figures.num_connects,
    ),
    MetricRow(
        "plans",
        "counter",
        "Switches of the ranks, those to the cached plan included.",
        lambda figures: figures.num_plans,
    ),
    MetricRow(
        "engines",
        "counter",
        "Hellos of engines, of those that came back included.",
        lambda figures: figures.num_engines,
    ),
    MetricRow(
        "reports_sent",
        "counter",
        "Load reports handed to a stream; one that goes out again counts again.",
        lambda figures: figures.num_sent,
    ),
    MetricRow(
        "reports_acked",
        "counter",
        "Load reports that the planner took.",
        lambda figures: figures.num_acked,
    ),
    MetricRow(
        "reports_refused",
        "counter",
        "Load reports and other messages that the planner refused.",
        lambda figures: figures.num_refused,
    ),
    MetricRow(
        "reports_dropped",
        "counter",
        "Load reports that made room for newer ones before they were answered.",
        lambda figures: figures.num_dropped,
    ),
    MetricRow(
        "loads_ignored",
        "counter",
        "Loads of an engine that came while it was not clear which plan they were measured under.",
        lambda figures: figures.num_ignored,
    ),
    MetricRow(
        "engine_messages_refused",
        "counter",
        "Messages of engines that could not be taken.",
        lambda figures: figures.num_complaints,
    ),
)


class MetricsServer:
    """Serves /metrics from a thread of its own, so that a stuck event loop can be seen.

    Args:
        figures: Returns the figures of now; called from that thread.
    """

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Figures(figures))
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None

    def start(self, address: str) -> str:
        """Listens, and returns the address that it got.

        Raises:
            InputError: the address cannot be listened on.
        """
        host, port = parse_address(address, "metrics")
        try:
            self._server, self._thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise InputError(
                f"Expected to listen on {address} for metrics, got: {error.strerror or error}."
            ) from error
        return f"{host}:{self._server.server_port}"

    def stop(self) -> None:
        """Stops listening."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class _Figures(Collector):
    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Returns every metric with its value of now."""
        return _families(self._figures())

    def describe(self) -> Iterator[Metric]:
        """Returns every metric, so that none is read while it is registered."""
        return _families(Figures())


def _families(figures: Figures) -> Iterator[Metric]:
    for row in METRICS:
        kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
        yield kind(_PREFIX + row.name, row.help, value=float(row.value(figures)))


def metrics_table() -> str:
    """Returns the table of docs/sidecar.md."""
    rows = [f"| `{row.full_name}` | {row.kind} | {row.help} |\n" for row in METRICS]
    return "| metric | type | meaning |\n| --- | --- | --- |\n" + "".join(rows)
