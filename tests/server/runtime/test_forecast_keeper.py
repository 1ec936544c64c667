"""Forecasts between solver process and store: begun, saved, brought back."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from expertplane_planner import Forecast
from expertplane_server.core.errors import (
    ExhaustedError,
    InvalidArgumentError,
    UnavailableError,
)
from expertplane_server.core.spec import PolicyChoice
from expertplane_server.runtime import forecast_keeper
from expertplane_server.runtime.forecast_keeper import ForecastKeeper
from expertplane_server.runtime.jobs import CheckpointJob, LearnJob, SolveJob
from expertplane_server.runtime.solver_worker import Worker

from .. import builders
from .keepers import (
    checkpoints,
    learn,
    lost_windows,
    num_windows,
    opened,
    saved_windows,
    solve,
    window,
)


if TYPE_CHECKING:
    from .conftest import Bench


@pytest.fixture
def keeper(bench: Bench) -> ForecastKeeper:
    """The keeper of a deployment that the store knows."""
    return opened(bench)


async def test_checkpoints_follow_a_rule(bench: Bench, keeper: ForecastKeeper) -> None:
    """The 1st, 2nd, 4th, 8th and every 16th window is followed by a checkpoint."""
    saved = []
    for number in range(1, 50):
        await learn(keeper, number)
        if isinstance(bench.solver.jobs[-1], CheckpointJob):
            saved.append(number)

    assert saved == [1, 2, 4, 8, 16, 32, 48]
    assert checkpoints(bench) == {"saved": 7}
    assert num_windows(bench) == 49


async def test_restart_of_the_service(bench: Bench, keeper: ForecastKeeper) -> None:
    """A forecast goes on from its checkpoint, and the next plan is the one that it would be."""
    await learn(keeper, *range(5))
    await keeper.save()
    plan = await solve(keeper, 5)
    bench.solver.worker = Worker(torch.device("cpu"))
    restarted = opened(bench)

    assert (await solve(restarted, 5)).digest == plan.digest
    assert num_windows(bench) == 6
    assert checkpoints(bench) == {"saved": 4, "restored": 1}


async def test_loss_of_the_solver(bench: Bench, keeper: ForecastKeeper) -> None:
    """A new solver process is given the latest checkpoint; later windows are lost, no more."""
    await learn(keeper, *range(7))
    bench.solver.worker = Worker(torch.device("cpu"))
    await learn(keeper, 7)

    # Of the seven windows the fourth was followed by a checkpoint.
    assert num_windows(bench) == 5
    assert checkpoints(bench) == {"saved": 4, "restored": 1}
    await learn(keeper, 8)
    assert num_windows(bench) == 6


async def test_solver_without_room(bench: Bench) -> None:
    """Deployments that push each other out of the solver's memory lose no window for it."""
    bench.solver.worker = Worker(torch.device("cpu"), max_forecast_bytes=1)
    keepers = []
    for name in ("a/a", "b/b"):
        bench.store.create_deployment(name, builders.spec(), request_id="", now_s=0.0)
    for deployment in bench.store.deployments():
        keepers.append(ForecastKeeper(deployment, bench.services, bench.metrics.label("a/a")))
    for number in range(20):
        for each in keepers:
            await learn(each, number)

    assert bench.count("forecast_windows", deployment="a/a") == 20


async def test_nothing_new_is_not_saved(bench: Bench, keeper: ForecastKeeper) -> None:
    """A drain writes what was learned since the last checkpoint, once."""
    await keeper.save()
    await learn(keeper, *range(3))
    assert checkpoints(bench) == {"saved": 2}
    await keeper.save()
    await keeper.save()

    assert checkpoints(bench) == {"saved": 3}


async def test_damaged_checkpoint(
    bench: Bench, keeper: ForecastKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that cannot be used is logged and counted; planning goes on without it."""
    bench.store.save_forecast(builders.NAME, 1, b"scrambled", now_s=0.0)
    with caplog.at_level(logging.WARNING):
        plan = await solve(keeper, 1)

    assert plan.phy2log.shape == (1, 6)
    assert checkpoints(bench) == {"refused": 1}
    assert "forecast begins with nothing" in caplog.text
    assert num_windows(bench) == 1


async def test_store_that_cannot_be_written(bench: Bench, keeper: ForecastKeeper) -> None:
    """A store that cannot be written keeps nobody from planning; it is tried at regular points."""
    bench.store.failing.add("save_forecast")
    await learn(keeper, *range(7))
    assert (await solve(keeper, 7)).phy2log.shape == (1, 6)
    assert checkpoints(bench) == {"failed": 3}
    bench.store.failing.clear()
    await keeper.save()

    assert num_windows(bench) == saved_windows(bench) == 8


async def test_store_that_cannot_be_read(bench: Bench, keeper: ForecastKeeper) -> None:
    """A checkpoint that cannot be read is not written over, and later gone on from."""
    await learn(keeper, *range(16))
    bench.solver.worker = Worker(torch.device("cpu"))
    restarted = opened(bench)
    bench.store.failing.add("forecast")
    await learn(restarted, 16)
    assert (await solve(restarted, 17)).phy2log.shape == (1, 6)
    await restarted.save_if_due()
    await restarted.save()
    bench.store.failing.clear()
    assert (saved_windows(bench), lost_windows(bench)) == (16, 2)
    await learn(restarted, 18)

    assert num_windows(bench) == saved_windows(bench) == 17
    assert checkpoints(bench) == {"saved": 6, "failed": 2, "restored": 1}


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
async def test_no_memory_for_a_checkpoint(
    bench: Bench, keeper: ForecastKeeper, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A checkpoint that there is no memory for is kept, and gone on from when there is."""
    await learn(keeper, *range(4))
    bench.solver.worker = Worker(torch.device("cpu"))
    with monkeypatch.context() as patch:
        patch.setattr(Forecast, "from_bytes", Mock(side_effect=error))
        await learn(keeper, 4)
        with pytest.raises(UnavailableError):
            await solve(keeper, 5)
    assert (saved_windows(bench), lost_windows(bench)) == (4, 2)
    await learn(keeper, 6)

    assert num_windows(bench) == 5


async def test_events_during_a_save(bench: Bench, keeper: ForecastKeeper) -> None:
    """A window does not wait for the store that writes a checkpoint."""
    await keeper.learn(window(0))
    may_write = threading.Event()
    holding = asyncio.create_task(
        bench.store_thread.run("hold", lambda _: may_write.wait(timeout=60))
    )
    saving = asyncio.create_task(keeper.save())
    await asyncio.sleep(0)
    assert isinstance(bench.solver.jobs[-1], CheckpointJob)
    await keeper.learn(window(1))
    assert not saving.done()
    may_write.set()
    await asyncio.gather(holding, saving)

    assert num_windows(bench) == 2
    assert saved_windows(bench) == 1
    await keeper.save()
    assert saved_windows(bench) == 2


async def test_solver_that_fails(bench: Bench, keeper: ForecastKeeper) -> None:
    """A window that cannot be shown is counted, planned for or not; the next one is learned."""
    for error in (UnavailableError("lost"), ExhaustedError("busy", retry_after_s=1.0)):
        bench.solver.answer = error
        with pytest.raises(type(error)):
            await solve(keeper, 0)
    bench.solver.answer = None
    await keeper.learn((np.full((1, 4), np.nan),))
    await learn(keeper, 1)

    assert lost_windows(bench) == 3
    assert num_windows(bench) == 1


async def test_windows_behind_a_stuck_solve(
    bench: Bench, keeper: ForecastKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows wait for a stuck solve as far as there is room, and go in behind it in order."""
    monkeypatch.setattr(forecast_keeper, "_MAX_WAITING_ENTRIES", 16)  # two windows
    bench.solver.may_answer.clear()
    solving = asyncio.create_task(solve(keeper, 0))
    await bench.solver.asked.wait()
    waiting = [asyncio.create_task(keeper.learn(window(number))) for number in (1, 2, 3)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    bench.solver.may_answer.set()
    await asyncio.gather(solving, *waiting)

    kinds = Counter(type(job) for job in bench.solver.jobs)
    assert kinds == {SolveJob: 1, LearnJob: 2}
    learned = [job.samples for job in bench.solver.jobs if isinstance(job, LearnJob)]
    assert [samples.tolist() for samples in learned] == [
        np.stack(window(number)).tolist() for number in (1, 2)
    ]
    assert num_windows(bench) == 3
    assert lost_windows(bench) == 1


async def test_many_small_windows(
    bench: Bench, keeper: ForecastKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small they are, not more than so many windows wait."""
    monkeypatch.setattr(forecast_keeper, "_MAX_WAITING_WINDOWS", 3)
    bench.solver.may_answer.clear()
    solving = asyncio.create_task(solve(keeper, 0))
    await bench.solver.asked.wait()
    waiting = [asyncio.create_task(keeper.learn(window(number))) for number in range(5)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    bench.solver.may_answer.set()
    await asyncio.gather(solving, *waiting)

    assert (num_windows(bench), lost_windows(bench)) == (4, 2)


async def test_refused_jobs_are_learned_and_saved(bench: Bench) -> None:
    """Windows whose plan the planner refuses are learned, saved like others, and gone on from."""
    keeper = opened(bench, policy=PolicyChoice(parameters=(("risk", "x"),)))
    for number in range(5):
        with pytest.raises(InvalidArgumentError):
            await solve(keeper, number)
        await keeper.save_if_due()
    assert num_windows(bench) == 5
    assert (saved_windows(bench), lost_windows(bench)) == (4, 0)
    bench.solver.worker = Worker(torch.device("cpu"))
    with pytest.raises(InvalidArgumentError):
        await solve(keeper, 5)

    assert num_windows(bench) == 5
    assert checkpoints(bench) == {"saved": 3, "restored": 1}


async def test_drift_is_counted(bench: Bench, keeper: ForecastKeeper) -> None:
    """Windows that raise the alarm are counted."""
    rng = np.random.default_rng(0)
    mean = np.array([[500.0, 300.0, 150.0, 50.0]])
    for _ in range(12):
        await keeper.learn(tuple(rng.poisson(mean, size=(8, 1, 4)).astype(np.float64)))
    assert bench.count("forecast_drifts_total", deployment=builders.NAME) == 0
    await keeper.learn(tuple(rng.poisson(mean[:, ::-1], size=(8, 1, 4)).astype(np.float64)))

    assert bench.count("forecast_drifts_total", deployment=builders.NAME) == 1
