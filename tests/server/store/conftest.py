"""Every store under one fixture."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import pytest

from expertplane_server.store import MemoryStore, SqliteStore
from expertplane_server.store.base import KEEP_PLANS


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from expertplane_server.store import Store


class OpenStore(Protocol):
    """Opens a fresh store."""

    def __call__(self, *, keep_plans: int = KEEP_PLANS) -> Store:
        """Open it."""
        ...


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """What opens a fresh store."""

    def opened(*, keep_plans: int = KEEP_PLANS) -> Store:
        if request.param == "memory":
            return MemoryStore(keep_plans=keep_plans)
        return SqliteStore(tmp_path / "planner.db", keep_plans=keep_plans)

    return opened


@pytest.fixture
def store(open_store: OpenStore) -> Iterator[Store]:
    """A fresh store."""
    with closing(open_store()) as opened:
        yield opened
