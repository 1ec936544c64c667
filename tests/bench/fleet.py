"""A thousand participants at 1 Hz: acknowledgements, loop lag, how fast a plan reaches all."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from expertplane.v1 import deployment_pb2
from expertplane_client import BlockingClient

from ..support.planner_process import running_planner
from .machine import describe, headline
from .sidecars import Load


if TYPE_CHECKING:
    from ..support.planner_process import PlannerProcess

_TIMEOUT_S = 300.0
CASES = {
    "1000 in one deployment": {"num_deployments": 1, "num_participants": 1000},
    "40 deployments of 25": {"num_deployments": 40, "num_participants": 25},
}


def run(output: Path | None) -> None:
    """Measures both ways of rolling out, prints them, and keeps them in a folder."""
    result = describe()
    for mode in ("advisory", "coordinated"):
        result[mode] = measure_fleet(is_coordinated=mode == "coordinated")
    text = as_text(result)
    sys.stdout.write(text)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "FLEET.txt").write_text(text)
        (output / "FLEET.json").write_text(json.dumps(result, indent=2) + "\n")


def as_text(result: dict[str, Any]) -> str:
    """Lays a result out for people."""
    lines = [
        headline(result),
        "",
        "1000 participants at 1 Hz, 58 layers x 256 experts; planner, solver and participants",
        "share the cores. A plan has arrived with its Commit at the last participant of its",
        "deployment, measured from the call that publishes it.",
    ]
    for mode in ("advisory", "coordinated"):
        for case, rows in result[mode].items():
            lines += ["", f"{case}, {mode}"]
            lines += [f"  {name:<56} {value}" for name, value in rows.items()]
    return "\n".join(lines) + "\n"


def measure_fleet(*, is_coordinated: bool = False, measured_s: float = 20.0) -> dict[str, Any]:
    """Measures every case against a planner of its own; times in milliseconds."""
    return {
        name: _measure(is_coordinated=is_coordinated, measured_s=measured_s, **sizes)
        for name, sizes in CASES.items()
    }


def _measure(
    *, num_deployments: int, num_participants: int, is_coordinated: bool, measured_s: float
) -> dict[str, Any]:
    slots_per_rank = -(-288 // num_participants)
    options = ("--report-interval-s=1", "--heartbeat-interval-s=5")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_planner(Path(folder), options=options) as planner,
    ):
        load = Load(
            address=planner.address,
            num_deployments=num_deployments,
            num_participants=num_participants,
            num_layers=58,
            num_experts=256,
            slots_per_rank=slots_per_rank,
            interval_s=1.0,
            settle_s=25.0,
            measured_s=measured_s,
            num_publications=8,
        )
        _declare(load, is_coordinated=is_coordinated)
        with subprocess.Popen(
            [sys.executable, "-m", "tests.bench.sidecars", json.dumps(asdict(load))],
            stdout=subprocess.PIPE,
            text=True,
        ) as sidecars:
            assert sidecars.stdout is not None
            sidecars.stdout.readline()
            before, begun_s = _lag(planner), _cpu_s(planner)
            sidecars.stdout.readline()
            after, spent_s = _lag(planner), _cpu_s(planner) - begun_s
            told = json.loads(sidecars.stdout.readline())
            sidecars.wait(_TIMEOUT_S)
    acked_ms = sorted(1000 * each for each in told["acked_s"])
    reached_ms = [1000 * each for each in told["reached_s"]] or [float("nan")]
    return {
        "reports a second": round(len(acked_ms) / measured_s),
        "acknowledged, p50 (ms)": round(acked_ms[len(acked_ms) // 2], 1),
        "acknowledged, p99 (ms)": round(acked_ms[int(0.99 * len(acked_ms))], 1),
        "event-loop lag p99, at most (ms)": _quantile_ms(before, after, 0.99),
        "planner's CPU, without the solver (cores)": round(spent_s / measured_s, 2),
        "plans published by hand": len(reached_ms),
        "at the last participant after, median (ms)": round(statistics.median(reached_ms), 1),
        "at the last participant after, worst (ms)": round(max(reached_ms), 1),
        "refused, lost": f"{told['num_refused']}, {told['num_lost']}",
    }


def _declare(load: Load, *, is_coordinated: bool) -> None:
    """Creates the deployments."""
    mode = "COORDINATED" if is_coordinated else "ADVISORY"
    spec = deployment_pb2.DeploymentSpec(
        layer_ids=range(load.num_layers),
        num_logical_experts=load.num_experts,
        topology=deployment_pb2.Topology(
            num_nodes=1,
            ranks_per_node=load.num_participants,
            slots_per_rank=load.slots_per_rank,
        ),
        rollout=deployment_pb2.RolloutParameters(mode=f"ROLLOUT_MODE_{mode}"),
    )
    with BlockingClient(load.address) as client:
        for index in range(load.num_deployments):
            client.create_deployment(f"bench/d{index}", spec)


def _cpu_s(planner: PlannerProcess) -> float:
    """Returns the CPU time of the planner's own process so far, in seconds (Linux)."""
    fields = Path(f"/proc/{planner.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lag(planner: PlannerProcess) -> dict[float, float]:
    """Returns the cumulative buckets of the planner's event-loop lag, by bound in seconds."""
    with urllib.request.urlopen(planner.metrics_url, timeout=10) as answer:
        families = text_string_to_metric_families(str(answer.read(), "utf-8"))
    family = next(f for f in families if f.name == "expertplane_event_loop_lag_seconds")
    return {
        float(sample.labels["le"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }


def _quantile_ms(before: dict[float, float], after: dict[float, float], quantile: float) -> float:
    """Returns the upper bound of the bucket that holds a quantile of what came between."""
    counts = {bound: after[bound] - before[bound] for bound in after}
    total = max(counts.values())
    return next(1000 * bound for bound, n in sorted(counts.items()) if n >= quantile * total)
