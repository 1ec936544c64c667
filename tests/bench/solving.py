"""How long a solve takes, next to the plain loop over layers that it replaces."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from expertplane_planner import ExpertLoad, Mode, Topology, solve
from expertplane_planner.traces import PRESETS, SyntheticTrace

from ..support.reference import pack_lpt, replicate_greedy


if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 9


def measure_solving() -> dict[str, Any]:
    """Solves one window of synthetic DeepSeek-V3 load, 58 x 256 on 288 slots of 32 ranks."""
    trace = SyntheticTrace(PRESETS["dsv3"], seed=0)
    weight = torch.from_numpy(next(iter(trace.windows(16))).sum(axis=0))
    load = ExpertLoad.from_weight(weight)
    topology = Topology(num_nodes=1, num_ranks=32, num_slots=288)
    batched_s = median_s(lambda: solve(load, topology, mode=Mode.GLOBAL))
    loop_s = median_s(lambda: global_loop(weight, 288, 32), runs=3)
    return {
        "deepseek, global, batched, median (ms)": round(batched_s * 1000, 1),
        "the same as a Python loop over layers, median (ms)": round(loop_s * 1000, 1),
        "ratio loop / batched": round(loop_s / batched_s, 1),
        "runs": RUNS,
    }


def global_loop(weight: torch.Tensor, num_slots: int, num_ranks: int) -> None:
    """Replicates and packs layer by layer, as the slow reference does."""
    for row in weight.to(torch.float32):
        items, _, counts = replicate_greedy(row.tolist(), num_slots)
        loads = [row[item].item() / counts[item] for item in items]
        pack_lpt(loads, num_ranks)


def median_s(work: Callable[[], object], runs: int = RUNS) -> float:
    """Returns the median time of several runs after one to warm up, in seconds."""
    work()
    times = []
    for _ in range(runs):
        start_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - start_s)
    return statistics.median(times)
