"""How long a solve takes and how even it comes out, next to the loop that engines run."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from expertplane_planner import ExpertLoad, Mode, Placement, Topology, policy_names, report, solve
from expertplane_planner.traces import PRESETS, SyntheticTrace

from .engine_loop import plain_loop, rebalance


if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 11


def measure_solving() -> dict[str, Any]:
    """Solves one window of synthetic DeepSeek-V3 load, 58 x 256 on 288 slots of 32 ranks.

    Every policy takes turns with the engines' loop, so that both see the same machine.
    """
    trace = SyntheticTrace(PRESETS["dsv3"], seed=0)
    weight = next(iter(trace.windows(16))).sum(axis=0)
    load = ExpertLoad.from_weight(torch.from_numpy(weight))
    topology = Topology(num_nodes=1, num_ranks=32, num_slots=288)
    loop_map = torch.from_numpy(rebalance(weight, 288, 32))
    deepseek = solve(load, topology, mode=Mode.GLOBAL, policy="deepseek").placement.phy2log
    # The loop is a fair baseline only if it solves the same problem: same map, but for ties.
    same = report(Placement(loop_map, 256, topology), load).balancedness
    assert np.isclose(same, report(Placement(deepseek, 256, topology), load).balancedness)
    plain = statistics.median(_timed(lambda: plain_loop(weight, 288, 32)) for _ in range(3))
    rows: dict[str, Any] = {
        "engines' loop, numpy, balancedness in sample": round(same, 4),
        "the same in plain Python, median of 3 (ms)": round(1000 * plain, 1),
    }
    for policy in policy_names():
        plan = solve(load, topology, mode=Mode.GLOBAL, policy=policy)  # warms up too
        ours_s, loop_s = _turns(
            lambda policy=policy: solve(load, topology, mode=Mode.GLOBAL, policy=policy),  # type: ignore[misc]
            lambda: rebalance(weight, 288, 32),
        )
        rows[f"{policy}: median (ms)"] = round(1000 * ours_s, 1)
        rows[f"{policy}: engines' loop beside it (ms)"] = round(1000 * loop_s, 1)
        rows[f"{policy}: ratio loop / policy"] = round(loop_s / ours_s, 1)
        rows[f"{policy}: balancedness in sample"] = round(plan.balance.balancedness, 4)
    rows["runs"] = RUNS
    return rows


def _turns(ours: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Returns the median times of two pieces of work that take turns, in seconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        for work, kept in zip((ours, other), times, strict=True):
            kept.append(_timed(work))
    return statistics.median(times[0]), statistics.median(times[1])


def _timed(work: Callable[[], object]) -> float:
    """Returns the time of one run, in seconds."""
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s
