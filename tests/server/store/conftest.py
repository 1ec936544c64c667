"""Every store under one fixture."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from expertplane_server.store import MemoryStore, SqliteStore


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from expertplane_server.store import Store


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A fresh store."""
    opened: Store = (
        MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "planner.db")
    )
    with closing(opened):
        yield opened
