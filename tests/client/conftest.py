"""Fixtures of the client's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .scripted_planner import ScriptedPlanner


if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def planner() -> AsyncIterator[ScriptedPlanner]:
    """Returns a planner that listens."""
    async with ScriptedPlanner() as scripted:
        yield scripted
