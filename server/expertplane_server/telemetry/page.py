"""The documentation page of the metrics, made from the metrics themselves."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from expertplane_server.telemetry.metrics import Metrics


if TYPE_CHECKING:
    from prometheus_client import Metric

_HEAD = """# Metrics

Served on `/metrics` by a thread of its own. Made by `make docs`; change
`server/expertplane_server/telemetry/metrics.py` instead of this page.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
"""


def metrics_page(metrics: Metrics) -> str:
    """Returns the page in Markdown."""
    rows = sorted(_row(family, metrics.labels_of(family.name)) for family in metrics.families())
    return _HEAD + "".join(rows)


def _row(family: Metric, labels: tuple[str, ...]) -> str:
    """Returns one metric's row."""
    suffix = "_total" if family.type == "counter" else ""
    names = ", ".join(f"`{label}`" for label in labels)
    return f"| `{family.name}{suffix}` | {family.type} | {names} | {family.documentation} |\n"


if __name__ == "__main__":
    sys.stdout.write(metrics_page(Metrics()))
