"""Fixtures of the service's face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness import Server


if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that listens, without deployments."""
    async with Server() as started:
        yield started
