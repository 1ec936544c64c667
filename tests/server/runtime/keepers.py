"""Keepers of forecasts, and what the store and the metrics know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_planner import Forecast
from expertplane_server.runtime.forecast_keeper import ForecastKeeper

from .. import builders


if TYPE_CHECKING:
    from expertplane_server.core.plan import Solution

    from .conftest import Bench


def opened(bench: Bench, **changes: Any) -> ForecastKeeper:
    """Return a keeper as after a start of the service; the first time with changes of the spec."""
    if not bench.store.deployments():
        spec = builders.spec(topology=builders.topology(slots_per_rank=3), **changes)
        bench.store.create_deployment(builders.NAME, spec, request_id="", now_s=0.0)
    (deployment,) = bench.store.deployments()
    return ForecastKeeper(deployment, bench.services, bench.metrics.label(builders.NAME))


def window(number: int) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], ...]:
    """Return two samples of one layer of four experts."""
    rng = np.random.default_rng(number)
    return tuple(rng.integers(1, 99, size=(2, 1, 4)).astype(np.float64))


async def learn(keeper: ForecastKeeper, *numbers: int) -> None:
    """Have windows learned, as a driver does."""
    for number in numbers:
        await keeper.learn(window(number))
        await keeper.save_if_due()


async def solve(keeper: ForecastKeeper, number: int) -> Solution:
    """Have a window planned for."""
    return await keeper.solve(window(number), None)


def saved_windows(bench: Bench) -> int:
    """Return how many windows the checkpoint in the store knows."""
    content = bench.store.forecast(builders.NAME, 1)
    assert content is not None
    return Forecast.from_bytes(content).num_windows


def lost_windows(bench: Bench) -> float | None:
    """Return how many windows the forecast was not shown."""
    return bench.count("forecast_lost_windows_total", deployment=builders.NAME)


def num_windows(bench: Bench) -> float | None:
    """Return what the gauge shows."""
    return bench.count("forecast_windows", deployment=builders.NAME)


def checkpoints(bench: Bench) -> dict[str, float]:
    """Return how many checkpoints there were by outcome, those that did not occur left out."""
    found = {
        outcome: bench.count("forecast_checkpoints_total", outcome=outcome) or 0.0
        for outcome in ("saved", "restored", "refused", "failed")
    }
    return {outcome: count for outcome, count in found.items() if count}
