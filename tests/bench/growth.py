"""What a plan costs on the CPU: time of each kind of solve, memory, and growth with the problem.

Times of one row are taken in turns. The stated cost of `robust` from scratch, per layer, is
P (R + E) for the greedy packing and P S + E for each swap, with P slots on R ranks of S = P / R
slots, and E experts. Swaps grow with P up to 256; so twice the experts on as many ranks take up to
8 times as long.

Run `python -m tests.bench.growth --help`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from expertplane_planner import ExpertLoad, Forecast, Mode, Placement, Topology, solve
from expertplane_planner.kernels.threads import single_threaded_ops
from expertplane_planner.model.budget import MoveBudget
from expertplane_planner.model.incumbent import Incumbent
from expertplane_planner.solving import warm_up
from expertplane_planner.traces import PRESETS, SyntheticTrace, TraceConfig

from .machine import describe, headline
from .tables import as_table


if TYPE_CHECKING:
    from collections.abc import Callable

    from expertplane_planner.forecast import Prediction


RUNS = 11
NUM_STEPS = 16
NUM_WINDOWS = 3
MIN_REDUNDANT = 32
SWEEPS = {
    "experts": [(experts, 16, 32) for experts in (64, 128, 256, 512, 1024)],
    "layers": [(256, layers, 32) for layers in (1, 4, 16, 64, 128)],
    "ranks": [(256, 16, ranks) for ranks in (8, 16, 32, 64, 128, 256)],
}


class Problem:
    """48 samples of synthetic load, a forecast that has seen them, and where to put experts."""

    def __init__(self, config: TraceConfig, num_ranks: int, num_slots: int) -> None:
        self.topology = Topology(num_nodes=1, num_ranks=num_ranks, num_slots=num_slots)
        windows = SyntheticTrace(config, seed=0).windows(NUM_STEPS)
        seen = [torch.from_numpy(next(windows)) for _ in range(NUM_WINDOWS)]
        self.forecast = Forecast(config.num_layers, config.num_logical_experts)
        for window in seen:
            self.forecast.observe(window)
        self.next_window = torch.from_numpy(next(windows))
        self.load = ExpertLoad(torch.cat(seen))
        self.prediction = self.forecast.predict()

    def solve(
        self,
        policy: str,
        incumbent: Incumbent | None = None,
        prediction: Prediction | None = None,
    ) -> Placement:
        """Returns a plan for what has been seen, or for another prediction."""
        plan = solve(
            self.load,
            self.topology,
            mode=Mode.GLOBAL,
            policy=policy,
            prediction=prediction or self.prediction,
            incumbent=incumbent,
        )
        return plan.placement


def measure_solves() -> dict[str, Any]:
    """Times solves of 58 x 256 on 288 slots of 32 ranks, side by side."""
    problem = Problem(PRESETS["dsv3"], 32, 288)
    first = problem.solve("robust")
    later = problem.forecast.clone()
    later.observe(problem.next_window)
    prediction = later.predict()
    incumbent = Incumbent(placement=first, budget=MoveBudget(slots_per_layer=16))

    def learn() -> None:
        with single_threaded_ops():  # as in a solve, and for the same reason
            problem.forecast.clone().observe(problem.next_window)

    def predict() -> None:
        with single_threaded_ops():
            later.predict()

    turns = _turns(
        {
            "balanced": lambda: problem.solve("balanced"),
            "robust": lambda: problem.solve("robust", prediction=prediction),
            "budgeted": lambda: problem.solve("robust", incumbent, prediction),
            "forecast": learn,
            "prediction": predict,
        }
    )
    return {
        "balanced: median (ms)": turns["balanced"],
        "robust: median (ms)": turns["robust"],
        "robust: ratio to balanced": round(turns["robust"] / turns["balanced"], 2),
        "robust, incumbent, 16 moved slots per layer: median (ms)": turns["budgeted"],
        "the same: ratio to robust from scratch": round(turns["budgeted"] / turns["robust"], 2),
        "forecast: copy and learn a window of 16 samples, median (ms)": turns["forecast"],
        "forecast: predict, median (ms)": turns["prediction"],
        "forecast: state (bytes)": _num_bytes(problem.forecast),
        "runs": RUNS,
    }


def measure_growth() -> list[dict[str, Any]]:
    """Times `balanced` and `robust` while one dimension grows; 32 redundant slots or more."""
    rows = []
    for dimension, sizes in SWEEPS.items():
        for num_experts, num_layers, num_ranks in sizes:
            num_slots = num_ranks * -(-(num_experts + MIN_REDUNDANT) // num_ranks)
            config = TraceConfig(num_layers=num_layers, num_logical_experts=num_experts, top_k=8)
            problem = Problem(config, num_ranks, num_slots)
            times = _turns(
                {name: lambda p=problem, n=name: p.solve(n) for name in ("balanced", "robust")},  # type: ignore[misc]
                runs=5,
            )
            rows.append(
                {
                    "grows": dimension,
                    "experts": num_experts,
                    "layers": num_layers,
                    "ranks": num_ranks,
                    "slots": num_slots,
                    "balanced_ms": times["balanced"],
                    "robust_ms": times["robust"],
                    "forecast_bytes": _num_bytes(problem.forecast),
                }
            )
    return rows


def measure_extremes() -> dict[str, Any]:
    """Times one `robust` solve each of odd load, 94 layers of 512 experts on 256 ranks."""
    shape = (1, 94, 512)
    skewed = torch.zeros(shape, dtype=torch.int64)
    skewed[..., 7] = 10**9
    noisy = np.random.default_rng(0).poisson(100.0, (8, *shape[1:]))
    loads = {
        "no load": torch.zeros(shape, dtype=torch.int64),
        "all alike": torch.ones(shape, dtype=torch.int64),
        "one expert takes everything": skewed,
        "8 samples": torch.from_numpy(noisy),
    }
    topology = Topology(num_nodes=32, num_ranks=256, num_slots=768)
    result = {}
    for name, samples in loads.items():
        start_s = time.perf_counter()
        solve(ExpertLoad(samples), topology, mode=Mode.GLOBAL, policy="robust")
        result[f"94 x 512, 256 ranks, {name} (ms)"] = _ms(time.perf_counter() - start_s)
    return result


def plot_growth(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws time against each dimension, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(SWEEPS), figsize=(11, 3.6), sharey=True)
    for panel, dimension in zip(panels, SWEEPS, strict=True):
        chosen = [row for row in rows if row["grows"] == dimension]
        sizes = [row[dimension] for row in chosen]
        for policy, marker in (("robust", "o"), ("balanced", "s")):
            panel.plot(sizes, [row[f"{policy}_ms"] for row in chosen], marker=marker, label=policy)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.set_xlabel(f"{dimension} (others: {_others(dimension)})")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("solve, median (ms)")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _others(dimension: str) -> str:
    usual = {"experts": "256 experts", "layers": "16 layers", "ranks": "32 ranks"}
    return ", ".join(text for name, text in usual.items() if name != dimension)


def _turns(works: dict[str, Callable[[], object]], runs: int = RUNS) -> dict[str, float]:
    """Returns the median time of each piece of work in ms; they take turns, after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for run in range(runs + 1):
        for name, work in works.items():
            start_s = time.perf_counter()
            work()
            if run:
                times[name].append(time.perf_counter() - start_s)
    return {name: _ms(statistics.median(each)) for name, each in times.items()}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _num_bytes(forecast: Forecast) -> int:
    arrays = (value for value in forecast.state().values() if isinstance(value, np.ndarray))
    return sum(array.nbytes for array in arrays)


def as_text(result: dict[str, Any]) -> str:
    """Lays a result out for people."""
    pairs = [[name, str(value)] for name, value in (result["solves"] | result["extremes"]).items()]
    names = list(result["growth"][0])
    rows = [[str(row[name]) for name in names] for row in result["growth"]]
    return f"{as_table(['planning ahead', ''], pairs)}\n{as_table(names, rows)}"


def run(output: Path | None) -> None:
    """Measures, prints, and keeps text, JSON and picture."""
    warm_up()
    result = describe()
    result |= {
        "solves": measure_solves(),
        "growth": measure_growth(),
        "extremes": measure_extremes(),
    }
    text = f"{headline(result)}\n\n{as_text(result)}"
    sys.stdout.write(f"{text}\n")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "GROWTH.txt").write_text(text)
        (output / "GROWTH.json").write_text(json.dumps(result, indent=2) + "\n")
        plot_growth(result["growth"], output / "growth.png")


def main() -> int:
    """Runs the measurements and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for GROWTH.txt, .json and growth.png")
    run(parser.parse_args().output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
