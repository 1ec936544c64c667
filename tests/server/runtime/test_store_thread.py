"""Store calls off the event loop: in order, counted, never half known."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from expertplane_server.core.errors import NotFoundError
from expertplane_server.store import StoreError


if TYPE_CHECKING:
    from .conftest import Bench


async def test_order(bench: Bench) -> None:
    """Operations run one at a time, in the order in which they were asked for, in one thread."""
    seen: list[tuple[int, int]] = []

    def note(number: int) -> None:
        seen.append((number, threading.get_ident()))

    await asyncio.gather(
        *(bench.store_thread.run("note", lambda _, n=n: note(n)) for n in range(5))  # type: ignore[misc]  # bound in the loop
    )

    assert [number for number, _ in seen] == [0, 1, 2, 3, 4]
    assert len({thread for _, thread in seen}) == 1
    assert threading.get_ident() not in {thread for _, thread in seen}


async def test_operation_outlives_its_caller(bench: Bench) -> None:
    """An operation runs to its end although its caller was cancelled."""
    may_go, is_done = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        may_go.wait()
        is_done.set()

    call = asyncio.create_task(bench.store_thread.run("slow", slow))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    may_go.set()
    await bench.store_thread.run("next", lambda _: None)

    assert is_done.is_set()


async def test_errors_are_counted(bench: Bench) -> None:
    """Failures of the store are counted, refusals are not; both reach the caller."""

    def fail(_: object) -> None:
        raise StoreError("disk full")

    def refuse(_: object) -> None:
        raise NotFoundError("none")

    with pytest.raises(StoreError):
        await bench.store_thread.run("fail", fail)
    with pytest.raises(NotFoundError):
        await bench.store_thread.run("refuse", refuse)

    assert bench.count("store_errors_total", operation="fail") == 1
    assert bench.count("store_errors_total", operation="refuse") is None
    assert bench.count("store_duration_seconds_count", operation="refuse") == 1
