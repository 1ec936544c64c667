"""Who may use how many threads of the CPU: torch says, and the compiled kernels get them."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from collections.abc import Iterator


_num_threads: ContextVar[int | None] = ContextVar("num_threads", default=None)


def num_kernel_threads() -> int:
    """Return how many threads a compiled kernel may share its rows out to: those torch had."""
    return _num_threads.get() or torch.get_num_threads()


@contextlib.contextmanager
def single_threaded_ops() -> Iterator[None]:
    """Keep torch's operations on the calling thread, and leave its threads to the kernels.

    Planning is thousands of operations on small tensors. Shared out to threads they are no faster
    on an idle machine, and forty times slower on a busy one: at the end of each operation the
    threads spin for each other.
    """
    num_threads = torch.get_num_threads()
    token = _num_threads.set(num_threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
        _num_threads.reset(token)
