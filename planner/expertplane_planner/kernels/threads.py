"""Who may use how many threads of the CPU: torch says, and the compiled kernels get them."""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from collections.abc import Iterator


_num_threads: ContextVar[int | None] = ContextVar("num_threads", default=None)


class _OpsInProgress:
    """How many callers want torch on one thread, and how many threads it had before the first.

    The number is torch's, for the whole process, and so is this: of callers that overlap, each
    would otherwise take the other's single thread for what to go back to.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_callers = 0
        self._num_threads = 0

    def enter(self) -> int:
        with self._lock:
            if self._num_callers == 0:
                self._num_threads = torch.get_num_threads()
            self._num_callers += 1
            torch.set_num_threads(1)
            return self._num_threads

    def leave(self) -> None:
        with self._lock:
            self._num_callers -= 1
            # Also holds for this thread, and for those that start from now on. The others that
            # are still in there keep to one: OpenMP remembers the number for each thread.
            torch.set_num_threads(self._num_threads)


_ops_in_progress = _OpsInProgress()


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
    token = _num_threads.set(_ops_in_progress.enter())
    try:
        yield
    finally:
        _ops_in_progress.leave()
        _num_threads.reset(token)
