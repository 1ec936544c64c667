"""The legs of the kernels, side by side; Triton's runs in its interpreter where no GPU is."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from typing import TYPE_CHECKING

import pytest
import torch

from expertplane_planner.kernels import numba_cpu, torch_ops

from ...support.triton_races import races


if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


LEGS: tuple[ModuleType, ...] = (torch_ops, numba_cpu)

every_leg = pytest.mark.parametrize("leg", LEGS, ids=["torch", "numba"])

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="no Triton")
interprets_triton = pytest.mark.skipif(
    not HAS_TRITON or torch.cuda.is_available(), reason="Triton does not interpret here"
)

every_packing_leg = pytest.mark.parametrize(
    "leg_name",
    ["torch_ops", "numba_cpu", pytest.param("triton_gpu", marks=interprets_triton)],
)


@contextlib.contextmanager
def packing_leg(name: str) -> Iterator[ModuleType]:
    """Import a leg that packs; Triton's is watched for races meanwhile."""
    leg = importlib.import_module(f"expertplane_planner.kernels.{name}")
    with races() if name == "triton_gpu" else contextlib.nullcontext():
        yield leg
