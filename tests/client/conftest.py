"""Fixtures of the client's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_client import BlockingClient, Client

from .scripted_planner import ScriptedPlanner


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

Ask = Callable[..., "Awaitable[Any]"]


@pytest.fixture
async def planner() -> AsyncIterator[ScriptedPlanner]:
    """Returns a planner that listens."""
    async with ScriptedPlanner() as scripted:
        yield scripted


@pytest.fixture(params=["asyncio", "blocking"])
async def ask(request: pytest.FixtureRequest, planner: ScriptedPlanner) -> AsyncIterator[Ask]:
    """Returns a function that calls a method of either client by its name."""
    if request.param == "asyncio":
        async with Client(planner.address) as client:
            yield lambda name, *args, **kwargs: getattr(client, name)(*args, **kwargs)
    else:
        with BlockingClient(planner.address) as blocking:
            yield lambda name, *args, **kwargs: asyncio.to_thread(
                getattr(blocking, name), *args, **kwargs
            )
