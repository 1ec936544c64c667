"""Forecasts that are asked without being taught, and what a new spec means to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from expertplane_server.core.errors import FailedPreconditionError, UnavailableError
from expertplane_server.core.plan import Evaluation
from expertplane_server.core.spec import PolicyChoice
from expertplane_server.runtime.jobs import SolveJob
from expertplane_server.runtime.solver_worker import Worker

from .keepers import checkpoints, learn, lost_windows, num_windows, opened, solve, window


if TYPE_CHECKING:
    from expertplane_server.runtime.forecast_keeper import ForecastKeeper

    from .conftest import Bench


@pytest.fixture
def keeper(bench: Bench) -> ForecastKeeper:
    """The keeper of a deployment that the store knows."""
    return opened(bench)


async def test_window_that_is_known(bench: Bench, keeper: ForecastKeeper) -> None:
    """Samples that the forecast has been shown are planned for, and neither learned nor lost."""
    await solve(keeper, 1)
    solution = await keeper.solve(window(1), None, is_new=False)

    assert solution.evaluation is Evaluation.PREDICTIVE
    assert (num_windows(bench), lost_windows(bench)) == (1, 0)
    bench.solver.answer = UnavailableError("lost")
    with pytest.raises(UnavailableError):
        await keeper.solve(window(1), None, is_new=False)
    assert lost_windows(bench) == 0


async def test_window_that_is_known_after_a_restart(bench: Bench, keeper: ForecastKeeper) -> None:
    """A plan for known samples brings the forecast back, and the next window goes on with it."""
    await learn(keeper, 1, 2)
    bench.solver.worker = Worker(torch.device("cpu"))
    await keeper.solve(window(2), None, is_new=False)
    assert num_windows(bench) == 2
    await learn(keeper, 3)

    assert num_windows(bench) == 3
    assert checkpoints(bench)["restored"] == 1


@pytest.mark.parametrize(
    ("own", "further", "expected"),
    [(None, None, None), (3, None, 3), (None, 2, 2), (3, 2, 2), (1, 2, 1), (3, 0, 0)],
)
async def test_budgets(
    bench: Bench, own: int | None, further: int | None, expected: int | None
) -> None:
    """The smaller one of two budgets binds."""
    policy = PolicyChoice(max_moved_slots=own)
    keeper = opened(bench, policy=policy)
    incumbent = np.array([[0, 1, 2, 3, 0, 1]], dtype=np.int32)
    await keeper.solve(window(1), incumbent, max_moved_slots=further)
    (job,) = [each for each in bench.solver.jobs if isinstance(each, SolveJob)]

    assert job.policy.max_moved_slots == expected


async def test_expectation(bench: Bench, keeper: ForecastKeeper) -> None:
    """What is expected can be asked for; before there is a window it cannot."""
    with pytest.raises(FailedPreconditionError) as refusal:
        await keeper.expect()
    await learn(keeper, 1, 2)
    expected = await keeper.expect()

    assert refusal.value.reason == "NO_LOAD_YET"
    assert expected.mean.shape == expected.standard_deviation.shape == (1, 4)
    assert expected.forecast.num_windows == num_windows(bench) == 2


async def test_expectation_while_the_store_fails(bench: Bench, keeper: ForecastKeeper) -> None:
    """A forecast that cannot be read is not taken for one that knows nothing."""
    await learn(keeper, 1)
    bench.solver.worker = Worker(torch.device("cpu"))
    bench.store.failing.add("forecast")
    with pytest.raises(UnavailableError):
        await keeper.expect()
    bench.store.failing.clear()

    assert (await keeper.expect()).forecast.num_windows == 1


async def test_new_spec(bench: Bench, keeper: ForecastKeeper) -> None:
    """While generation and parameters stay, so does the forecast, unsaved windows included."""
    await learn(keeper, 1, 2, 3)
    (before,) = bench.store.deployments()
    spec = replace(before.spec, policy=PolicyChoice(name="deepseek"))
    following = keeper.follow(replace(before, spec=spec))
    await solve(following, 4)
    (job,) = [each for each in bench.solver.jobs if isinstance(each, SolveJob)]

    assert following is keeper
    assert job.policy.name == "deepseek"
    assert num_windows(bench) == 4


async def test_new_generation(bench: Bench, keeper: ForecastKeeper) -> None:
    """Another generation has a forecast of its own, which windows of the old one leave alone."""
    await learn(keeper, 1, 2)
    (before,) = bench.store.deployments()
    following = keeper.follow(replace(before, generation=2))
    await learn(following, 3)
    assert num_windows(bench) == 1
    await learn(keeper, 4)
    with pytest.raises(UnavailableError):
        await solve(keeper, 5)
    await learn(following, 6)

    assert (num_windows(bench), lost_windows(bench)) == (2, 2)
