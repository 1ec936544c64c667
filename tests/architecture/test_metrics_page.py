"""The page of metrics says what the service exports."""

from __future__ import annotations

from pathlib import Path

from expertplane_server.telemetry.metrics import Metrics
from expertplane_server.telemetry.page import metrics_page


PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_of_metrics_is_fresh() -> None:
    """docs/metrics.md is what `make docs` writes now."""
    assert PAGE.read_text() == metrics_page(Metrics())
