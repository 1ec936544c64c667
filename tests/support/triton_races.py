"""Races that an interpreter does not have: global memory of a kernel between two barriers.

A program on a GPU is several warps at different points of the code. What one of them stores,
another may load before or after, unless a barrier lies between; and tensors smaller than the
program are held by several warps at once, so that this goes for equal addresses of equal tensors
as well. Programs of a launch run in any order, so that no two of them may share what one stores.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest


if TYPE_CHECKING:
    from collections.abc import Iterator


class RaceError(AssertionError):
    """Two warps, or two programs, may meet at an address."""


class _Watch:
    """What has happened since the last barrier of the program, and in the whole launch."""

    def __init__(self) -> None:
        self.num_accesses = 0
        self.begin_launch()

    def begin_launch(self) -> None:
        self._writers: dict[int, tuple[int, ...]] = {}
        self._readers: dict[int, tuple[int, ...]] = {}
        self._program: tuple[int, ...] | None = None
        self.pass_barrier()

    def pass_barrier(self) -> None:
        self._loaded: set[int] = set()
        self._stored: set[int] = set()

    def load(self, program: tuple[int, ...], addresses: set[int]) -> None:
        self._enter(program)
        _refuse("load of what was stored since the last barrier", addresses & self._stored)
        others = {a for a in addresses if self._writers.get(a, program) != program}
        _refuse("load of what another program stores", others)
        self._loaded |= addresses
        self._readers.update(dict.fromkeys(addresses, program))

    def store(self, program: tuple[int, ...], addresses: set[int]) -> None:
        self._enter(program)
        _refuse("store to what was loaded since the last barrier", addresses & self._loaded)
        _refuse("store to what was stored since the last barrier", addresses & self._stored)
        others = {
            a
            for a in addresses
            if self._writers.get(a, program) != program or self._readers.get(a, program) != program
        }
        _refuse("store to what another program loads or stores", others)
        self._stored |= addresses
        self._writers.update(dict.fromkeys(addresses, program))

    def _enter(self, program: tuple[int, ...]) -> None:
        self.num_accesses += 1
        if program != self._program:
            self._program = program
            self.pass_barrier()


def _refuse(what: str, addresses: set[int]) -> None:
    if addresses:
        raise RaceError(
            f"Expected a barrier before the {what}, got none ({len(addresses)} values)"
        )


@contextlib.contextmanager
def races() -> Iterator[None]:
    """Watch all kernels that Triton's interpreter runs meanwhile.

    Raises:
        RaceError: Two warps, or two programs, may meet; from within the kernel's launch.
        AssertionError: No kernel ran.
    """
    from triton.runtime import interpreter

    watch = _Watch()
    builder = interpreter.InterpreterBuilder
    executor = interpreter.GridExecutor
    load, store = builder.create_masked_load, builder.create_masked_store
    call = executor.__call__

    def masked_load(self: Any, ptrs: Any, mask: Any, *more: Any, **options: Any) -> Any:
        watch.load(tuple(self.grid_idx), _chosen(ptrs, mask))
        return load(self, ptrs, mask, *more, **options)

    def masked_store(self: Any, ptrs: Any, value: Any, mask: Any, *more: Any, **rest: Any) -> Any:
        watch.store(tuple(self.grid_idx), _chosen(ptrs, mask))
        return store(self, ptrs, value, mask, *more, **rest)

    def launch(self: Any, *arguments: Any, **options: Any) -> Any:
        watch.begin_launch()
        return call(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "create_masked_load", masked_load)
        patch.setattr(builder, "create_masked_store", masked_store)
        patch.setattr(builder, "create_barrier", lambda _: watch.pass_barrier())
        patch.setattr(executor, "__call__", launch)
        yield
    assert watch.num_accesses, "no kernel ran in the interpreter"


def _chosen(ptrs: Any, mask: Any) -> set[int]:
    return set(ptrs.data[mask.data].ravel().tolist())
