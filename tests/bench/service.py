"""What the event loop feels while simulated nodes report and plans are solved."""

from __future__ import annotations

import json
import statistics
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ..support.planner_process import run_program, running_planner


def measure_service(num_windows: int) -> dict[str, Any]:
    """Runs `serve` and `simulate` as users do, and reads the planner's own metrics."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_planner(Path(folder)) as planner,
    ):
        done = run_program(
            "simulate",
            f"--address={planner.address}",
            "--participants=4",
            "--ranks=32",
            "--slots=288",
            f"--windows={num_windows}",
            "--json",
            timeout_s=600,
        )
        assert done.returncode == 0, done.stderr
        windows = json.loads(done.stdout)["windows"]
        with urllib.request.urlopen(planner.metrics_url, timeout=10) as answer:
            text = str(answer.read(), "utf-8")
    reached_ms = [window["reached_s"] * 1000 for window in windows if window["plan_version"]]
    return {
        "windows, plans": f"{len(windows)}, {len(reached_ms)}",
        "event-loop lag p99, at most (ms)": quantile_ms(text, "event_loop_lag", 0.99),
        "event-loop lag p50, at most (ms)": quantile_ms(text, "event_loop_lag", 0.5),
        "solve p50, at most (ms)": quantile_ms(text, "solve_duration", 0.5),
        "plan in force on all nodes after, median (ms)": round(statistics.median(reached_ms), 1),
        "balancedness without plans": round(statistics.fmean(w["without"] for w in windows), 4),
        "balancedness with plans": round(statistics.fmean(w["measured"] for w in windows[1:]), 4),
    }


def quantile_ms(text: str, name: str, quantile: float) -> float:
    """Returns the upper bound of the bucket that holds a quantile, in milliseconds."""
    full_name = f"expertplane_{name}_seconds"
    family = next(f for f in text_string_to_metric_families(text) if f.name == full_name)
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in family.samples
        if sample.name.endswith("_bucket")
    ]
    total = buckets[-1][1]
    return next(bound * 1000 for bound, count in buckets if count >= quantile * total)
