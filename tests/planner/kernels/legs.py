"""The legs of the kernels, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from expertplane_planner.kernels import numba_cpu, torch_ops


if TYPE_CHECKING:
    from types import ModuleType


LEGS: tuple[ModuleType, ...] = (torch_ops, numba_cpu)

every_leg = pytest.mark.parametrize("leg", LEGS, ids=["torch", "numba"])
