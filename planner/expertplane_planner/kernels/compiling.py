"""Loops that are compiled where numba is installed, and left to the interpreter elsewhere.

For kernels that have no other form: slower by a factor of some hundred is better than not at all.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, TypeVar


if TYPE_CHECKING:
    from collections.abc import Callable

_Kernel = TypeVar("_Kernel", bound="Callable[..., object]")


if TYPE_CHECKING or importlib.util.find_spec("numba") is not None:
    from .numba_cpu import compiled, over_rows, part_of_kernel
else:

    def compiled(kernel: _Kernel) -> _Kernel:
        """Return the kernel as it is."""
        return kernel

    part_of_kernel = compiled

    def over_rows(num_rows: int, work: Callable[[range], None]) -> None:
        """Do the work on all rows, one after another."""
        work(range(num_rows))


__all__ = ["compiled", "over_rows", "part_of_kernel"]
