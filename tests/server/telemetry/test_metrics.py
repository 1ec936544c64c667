"""Metrics: bounded labels, nothing left of what is deleted."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from expertplane_server.core.effects import SampleFate
from expertplane_server.core.plan import Reason
from expertplane_server.telemetry.metrics import _MAX_DEPLOYMENT_LABELS, PLAN_OUTCOMES, Metrics


def exposed(metrics: Metrics) -> str:
    """Return what a scrape shows."""
    return generate_latest(metrics.registry).decode()


def test_labels_are_bounded() -> None:
    """The first hundred deployments have series of their own, the rest share one."""
    metrics = Metrics()
    labels = [metrics.label(f"a/{number}") for number in range(_MAX_DEPLOYMENT_LABELS + 5)]

    assert labels[:2] == ["a/0", "a/1"]
    assert set(labels[_MAX_DEPLOYMENT_LABELS:]) == {"_other"}
    assert metrics.label("a/0") == "a/0"


def test_series_exist_from_the_start() -> None:
    """A rate over a counter that has not moved yet is 0, not missing."""
    metrics = Metrics()
    metrics.label("a/b")
    text = exposed(metrics)

    for reason in Reason:
        line = f'expertplane_decisions_total{{deployment="a/b",reason="{reason}"}} 0.0'
        assert line in text
    for outcome in PLAN_OUTCOMES:
        assert f'expertplane_plans_total{{deployment="a/b",outcome="{outcome}"}} 0.0' in text
    for fate in SampleFate:
        assert f'expertplane_samples_total{{deployment="a/b",fate="{fate}"}} 0.0' in text


def test_forgotten() -> None:
    """A deleted deployment leaves no series behind, and its label to another."""
    metrics = Metrics()
    for number in range(_MAX_DEPLOYMENT_LABELS):
        metrics.label(f"a/{number}")
    for metric in metrics._all():
        if "deployment" in metric._labelnames:
            metric.labels("a/0", *metric._labelnames[1:])
    assert exposed(metrics).count('"a/0"') > 20
    metrics.forget("a/0")

    assert '"a/0"' not in exposed(metrics)
    assert metrics.label("b/b") == "b/b"


def test_labels_come_from_bounded_sets() -> None:
    """No label names a rank, a layer, an expert, a participant or a digest."""
    metrics = Metrics()
    names = {name for metric in metrics._all() for name in metric._labelnames}

    assert names == {
        *("deployment", "method", "code", "reason", "outcome", "fate", "placement", "phase"),
        *("kind", "milestone", "cause", "operation", "device", "name"),
    }


@pytest.mark.parametrize("name", ["no/such", "_other"])
def test_forgetting_what_is_not_there(name: str) -> None:
    """What has no series is forgotten without a word, twice as well."""
    metrics = Metrics()
    metrics.label("a/b")
    metrics.forget(name)
    metrics.forget("a/b")
    metrics.forget("a/b")

    assert 'deployment="' not in exposed(metrics)


def test_registries_are_apart() -> None:
    """Two services in one process do not share a number."""
    first, second = Metrics(), Metrics(CollectorRegistry())
    first.core_errors.inc()

    assert second.registry.get_sample_value("expertplane_core_errors_total") == 0


def test_names() -> None:
    """Every metric carries the project's prefix; counters end in _total, the rest in its unit."""
    for family in Metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name.startswith("expertplane_")
        if family.type == "histogram":
            assert re.search("_(seconds|solves)$", name)
        assert family.documentation.endswith((".", ":")) or "." in family.documentation
