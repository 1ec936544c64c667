"""The service as a whole: how it ends."""

from __future__ import annotations

from contextlib import suppress
from unittest.mock import AsyncMock, Mock

import pytest

from expertplane_server.app import App
from expertplane_server.config import ServerConfig


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
