"""The service as a whole: how it ends."""

from __future__ import annotations

import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING
from unittest.mock import AsyncMock, Mock

import pytest

from expertplane_server.app import App
from expertplane_server.config import ServerConfig

from . import builders


if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("error", [TimeoutError(), KeyError("oops")])
async def test_drain_waits_for_the_streams(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Streams have their grace whatever becomes of the forecasts."""
    app = App(ServerConfig(grace_s=7.0))
    have_ended = Mock()

    async def end(grace_s: float) -> None:
        have_ended(grace_s)

    directory = Mock(save_forecasts=AsyncMock(side_effect=error))
    monkeypatch.setattr(app, "_server", Mock(stop=end))
    monkeypatch.setattr(app, "_directory", directory)
    with suppress(KeyError):
        await app.drain()

    have_ended.assert_called_once_with(7.0)


def _page_of(app: App) -> str:
    """Return what Prometheus would read."""
    with urllib.request.urlopen(f"http://{app.metrics_address}/metrics", timeout=20.0) as answer:
        page: bytes = answer.read()
    return page.decode()


async def test_scrape_needs_no_event_loop() -> None:
    """Metrics are served while the loop stands still: that is when they are wanted most."""
    app = App(ServerConfig(metrics="127.0.0.1:0"))
    app._start_metrics()
    # Read on the loop itself, which so takes no turn until the answer is there.
    page = _page_of(app)
    await app.shutdown()

    assert "expertplane_event_loop_lag_seconds_count" in page


async def test_store_keeps_as_many_plans_as_asked_for(tmp_path: Path) -> None:
    """The number of plans to keep reaches the store."""
    url = f"sqlite:///{tmp_path / 'planner.db'}"
    store = App(ServerConfig(store=url, keep_plans=2))._open_store()
    store.create_deployment(builders.NAME, builders.spec(), request_id="", now_s=0.0)
    for _ in range(4):
        builders.published(store)
    kept = [plan.version for plan in store.plans(builders.NAME, below=9, limit=9)]
    store.close()

    assert kept == [4, 3]
