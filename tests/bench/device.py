"""How long a CUDA device takes: device time by its own events, and host to host.

Medians of 100 after a warm-up. Device time is that between two events around what a policy does,
with inputs and outputs on the device. Where there is no CUDA device nothing is measured.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import torch

from expertplane_planner import ExpertLoad, Mode, MoveBudget, Topology, get_policy, kernels, solve
from expertplane_planner.forecast import Prediction
from expertplane_planner.model.incumbent import Incumbent
from expertplane_planner.policies import PlacementRequest
from expertplane_planner.traces import PRESETS, SyntheticTrace

from .machine import describe, headline


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from expertplane_planner.policies import Policy

RUNS, WARM_UP = 100, 10
NUM_SAMPLES = 48
TOPOLOGY = Topology(num_nodes=1, num_ranks=32, num_slots=288)
BATCHES = (1, 2, 4, 8, 16, 32)
SIZES = ((64, 8, 80), (128, 16, 144), (256, 32, 288), (384, 64, 448), (1024, 256, 2048))
"""Experts, ranks and slots; always 58 layers."""

POLICIES: dict[str, Policy] = {
    "balanced": get_policy("balanced"),
    "robust, 1 start": get_policy("robust", {"num_starts": "1"}),
    "robust, idle starts": get_policy("robust"),
}


def run(folder: Path | None) -> None:
    """Measures, prints and writes DEVICE.txt and DEVICE.json, on a CUDA device only."""
    if not torch.cuda.is_available():
        sys.stdout.write("device: no CUDA device, nothing measured\n")
        return
    result = {**describe(), "device": _device()} | measure_device()
    text = as_text(result)
    sys.stdout.write(text)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "DEVICE.txt").write_text(text)
        (folder / "DEVICE.json").write_text(json.dumps(result, indent=2) + "\n")


def measure_device() -> dict[str, Any]:
    """Returns milliseconds by work, size and batch."""
    load = _load(256)
    return {
        "58x256 on 288 slots of 32 ranks": {
            name: _one(policy, load, TOPOLOGY) for name, policy in POLICIES.items()
        },
        "within 16 moved slots a layer, host to host": _budgeted(load),
        "batch": {
            name: {size: _batch(policy, load, size) for size in BATCHES}
            for name, policy in POLICIES.items()
        },
        "58 layers of other sizes": {
            f"{num_experts} experts, {num_slots} slots, {num_ranks} ranks": {
                name: _one(
                    policy,
                    _load(num_experts),
                    Topology(num_nodes=1, num_ranks=num_ranks, num_slots=num_slots),
                )
                for name, policy in POLICIES.items()
            }
            for num_experts, num_ranks, num_slots in SIZES
        },
    }


def as_text(result: dict[str, Any]) -> str:
    """Lays a result out for people."""
    lines = [headline(result), result["device"], f"ms, medians of {RUNS} after {WARM_UP}"]
    for group, rows in result.items():
        if not isinstance(rows, dict) or group == "versions":
            continue
        lines += ["", group]
        for name, row in rows.items():
            lines += _lines(name, row, indent=2)
    return "\n".join(lines) + "\n"


def _lines(name: str, value: Any, *, indent: int) -> list[str]:
    space = " " * indent
    if not isinstance(value, dict):
        return [f"{space}{name!s:<44} {value}"]
    rows = [_lines(key, part, indent=indent + 2) for key, part in value.items()]
    return [f"{space}{name}", *(line for row in rows for line in row)]


def _one(policy: Policy, load: ExpertLoad, topology: Topology) -> dict[str, Any]:
    """Returns device time, host to host time, and that of the CPU beside it."""
    request = _request(load, topology)
    row: dict[str, Any] = {
        "device": _device_ms(lambda: policy.place(request)),
        "host to host, verified": _host_ms(lambda: _solved(policy, load, topology, "cuda"), RUNS),
        "CPU, verified": _host_ms(lambda: _solved(policy, load, topology, "cpu"), 5),
    }
    row["ratio CPU / device, both verified"] = round(
        row["CPU, verified"] / row["host to host, verified"], 2
    )
    row["one kernel"] = kernels.fuses(
        torch.device("cuda"), load.num_logical_experts, topology.num_slots, topology.num_ranks
    )
    return row


def _batch(policy: Policy, load: ExpertLoad, size: int) -> float:
    """Returns the device time of so many deployments at once."""
    on_device = load.to("cuda")
    prediction = Prediction.of_window(on_device)
    request = _request(
        ExpertLoad.stacked([on_device] * size), TOPOLOGY, Prediction.stacked([prediction] * size)
    )
    return _device_ms(lambda: policy.place(request))


def _budgeted(load: ExpertLoad) -> dict[str, float]:
    """Returns the time of a re-plan from another window's plan, on the device and on the CPU."""
    policy = get_policy("robust", {"num_starts": "1"})
    before = _solved(policy, ExpertLoad(load.samples.flip(2)), TOPOLOGY, "cpu").placement
    incumbent = Incumbent(placement=before, budget=MoveBudget(slots_per_layer=16))
    return {
        device: _host_ms(
            lambda device=device: solve(  # type: ignore[misc]
                load, TOPOLOGY, mode=Mode.GLOBAL, policy=policy, incumbent=incumbent, device=device
            ),
            11,
        )
        for device in ("cuda", "cpu")
    }


def _load(num_experts: int) -> ExpertLoad:
    if num_experts == 256:
        trace = SyntheticTrace(PRESETS["dsv3"], seed=0)
        return ExpertLoad(torch.from_numpy(next(iter(trace.windows(NUM_SAMPLES)))))
    generator = torch.Generator().manual_seed(num_experts)
    samples = torch.rand((NUM_SAMPLES, 58, num_experts), generator=generator) ** 4 * 4000
    return ExpertLoad(samples.to(torch.int32))


def _request(
    load: ExpertLoad, topology: Topology, prediction: Prediction | None = None
) -> PlacementRequest:
    load = load.to("cuda")
    return PlacementRequest(
        load=load,
        topology=topology,
        num_expert_groups=1,
        mode=Mode.GLOBAL,
        seed=0,
        prediction=prediction or Prediction.of_window(load),
    )


def _solved(policy: Policy, load: ExpertLoad, topology: Topology, device: str) -> Any:
    return solve(load, topology, mode=Mode.GLOBAL, policy=policy, device=device)


def _device_ms(work: Callable[[], object]) -> float:
    times: list[float] = []
    for index in range(WARM_UP + RUNS):
        start, stop = (torch.Event("cuda", enable_timing=True) for _ in range(2))
        start.record()
        work()
        stop.record()
        stop.synchronize()
        if index >= WARM_UP:
            times.append(start.elapsed_time(stop))
    return round(statistics.median(times), 3)


def _host_ms(work: Callable[[], object], runs: int) -> float:
    work()
    times = []
    for _ in range(runs):
        torch.cuda.synchronize()
        start_s = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start_s))
    return round(statistics.median(times), 3)


def _device() -> str:
    properties = torch.cuda.get_device_properties(0)
    return (
        f"{properties.name}, {properties.multi_processor_count} multiprocessors, "
        f"{properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    )
