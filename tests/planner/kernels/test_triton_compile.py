"""Kernels for CUDA compile for a GPU that is not there, as their launchers launch them."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from ...support.triton_dry import run_uninterpreted
from .legs import needs_triton


pytestmark = [
    needs_triton,
    pytest.mark.skipif(sys.platform != "linux", reason="Triton's assembler is for Linux"),
    pytest.mark.xdist_group("triton"),
]

LAUNCH = """
import json, torch
from expertplane_planner.kernels import triton_gpu
from tests.support.triton_dry import dry_launches

num_rows, num_items, num_slots, num_packs, num_starts = {sizes}
weight = torch.ones(num_rows, num_items, dtype=torch.float64)
expert = torch.arange(num_items).repeat(num_rows, 1)
covariance = torch.ones(num_rows, num_items, num_items, dtype={dtype})
slowness = torch.ones(num_rows, num_packs, dtype=torch.float64)
item = torch.zeros(num_rows, num_slots, dtype=torch.int64)
noise = torch.ones(num_starts, num_slots, dtype=torch.float64)
search = dict(max_swaps=256, tolerance=1e-5)
with dry_launches() as launches:
    triton_gpu.fill_distinct(weight, expert, num_slots, num_packs, max_count=8, **search)
    triton_gpu.pack_distinct(weight, expert, expert, num_items // 4, **search)
    triton_gpu.fill_by_risk(
        weight, covariance, weight, expert, slowness, noise, noise[:, 0].contiguous(),
        risk=2.6, max_count=8, **search
    )
    triton_gpu.pack_by_risk(
        weight, covariance, weight, item, item, slowness, weight[:, 0].contiguous(),
        risk=2.6, **search
    )
for launch in launches:
    shown = dict(vars(launch))
    ptx = shown.pop("ptx")
    shown["contracts"] = "fma." in ptx
    shown["is_double"] = ".f64" in ptx
    print(json.dumps(shown))
"""


def _launches(sizes: tuple[int, ...], dtype: str) -> list[dict[str, Any]]:
    printed = run_uninterpreted(LAUNCH.format(sizes=sizes, dtype=dtype))
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [
        ((58, 256, 288, 32, 9), "torch.float32"),
        ((2, 1024, 2048, 256, 1), "torch.float32"),
        ((1, 1024, 2048, 32, 2), "torch.float64"),
    ],
    ids=["deepseek", "most-ranks", "most-slots"],
)
def test_kernels_compile_without_contraction_and_without_much_spilling(
    sizes: tuple[int, ...], dtype: str
) -> None:
    """For sm_90: no fused multiply-add, which would round otherwise than the CPU; few spills."""
    launches = _launches(sizes, dtype)

    assert [launch["kernel"] for launch in launches] == [
        *["fill_distinct_kernel"] * 2,
        *["fill_by_risk_kernel"] * 2,
    ]
    num_rows, *_, num_starts = sizes
    assert [launch["grid"] for launch in launches] == [
        [num_rows, 1, 1], [num_rows, 1, 1], [num_rows, num_starts, 1], [num_rows, 1, 1]
    ]  # fmt: skip
    for launch in launches:
        assert launch["is_double"]
        assert not launch["contracts"]
        assert launch["num_stack_bytes"] <= 256
        assert launch["num_shared_bytes"] <= 48 * 1024


ROWS_AND_STARTS = """
import torch
from expertplane_planner.kernels import triton_gpu
from tests.support.triton_dry import dry_launches

with dry_launches():
    for num_rows, num_starts, num_packs in ((1, 1, 8), (16, 1, 7), (58, 9, 6), (1, 16, 5)):
        weight = torch.ones(num_rows, 12, dtype=torch.float64)
        expert = torch.arange(12).repeat(num_rows, 1)
        num_slots = 3 * num_packs
        noise = torch.ones(num_starts, num_slots, dtype=torch.float64)
        search = dict(max_count=num_packs, max_swaps=num_starts, tolerance=1e-5)
        triton_gpu.fill_distinct(weight, expert, num_slots, num_packs, **search)
        triton_gpu.fill_by_risk(
            weight, weight.new_ones(num_rows, 12, 12), weight, expert,
            weight.new_ones(num_rows, num_packs), noise, weight.new_ones(num_starts),
            risk=2.6, **search
        )
for kernel in (triton_gpu.fill_distinct_kernel, triton_gpu.fill_by_risk_kernel):
    (cache,) = kernel.device_caches.values()
    print(len(cache[0]))
"""


def test_more_layers_or_fewer_ranks_compile_nothing_new() -> None:
    """What is compiled serves every number of layers and starts, and machines that lost ranks."""
    assert run_uninterpreted(ROWS_AND_STARTS).split() == ["1", "1"]
