"""What the solver process does beside learning: plans for known load, tells, schedules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expertplane_planner import Forecast
from expertplane_server.core.parameters import MigrationParameters
from expertplane_server.core.plan import Evaluation
from expertplane_server.core.spec import TopologySpec
from expertplane_server.runtime import solutions
from expertplane_server.runtime.jobs import (
    Expected,
    ExpectJob,
    Lacking,
    LearnJob,
    Rejection,
    Scheduled,
    ScheduleJob,
    Start,
)

from .test_forecasts import (
    MACHINE,
    NUM_EXPERTS,
    NUM_LAYERS,
    START,
    checkpoint,
    ref,
    solve_job,
    solved,
    window,
    worker,
)


def expect_job(**changes: Any) -> ExpectJob:
    """Return the question what a forecast expects."""
    return ExpectJob(
        forecast=ref(**changes), num_layers=NUM_LAYERS, num_logical_experts=NUM_EXPERTS
    )


def schedule_job(before: Any, after: Any, **changes: Any) -> ScheduleJob:
    """Return the question how to get from one placement to another."""
    fields: dict[str, Any] = {
        "topology": MACHINE,
        "num_logical_experts": NUM_EXPERTS,
        "migration": MigrationParameters(),
        **changes,
    }
    return ScheduleJob(before=before, after=after, **fields)


def test_known_samples_teach_nothing() -> None:
    """A plan for samples that the forecast knows leaves it as it is, to the byte."""
    solver = worker()
    solver.reply(LearnJob(window(1), ref(is_new=True)))
    before = checkpoint(solver)
    solution = solved(solver, solve_job(window(1), ref(), teaches=False))

    assert solution.evaluation is Evaluation.PREDICTIVE
    assert checkpoint(solver) == before


def test_known_samples_that_the_forecast_has_lost() -> None:
    """A forecast that knows nothing is not taught by a plan for samples that it should know."""
    solver = worker()
    solution = solved(solver, solve_job(window(1), ref(is_new=True), teaches=False))

    assert solution.gain > 0
    assert Forecast.from_bytes(checkpoint(solver)).num_windows == 0


def test_expectation() -> None:
    """Tokens a sample: about the mean of the window, and how far a sample strays from it."""
    solver, samples = worker(), window(1, 64)
    solver.reply(LearnJob(samples, ref(is_new=True)))
    told = solver.reply(expect_job())

    assert isinstance(told, Expected)
    assert told.mean.dtype == told.standard_deviation.dtype == np.float32
    assert told.mean == pytest.approx(samples.mean(axis=0), rel=1e-2)
    # Poisson noise alone; shares of a total that varies as well come close enough.
    expected = np.sqrt(samples.mean(axis=0))
    assert np.median(told.standard_deviation / expected) == pytest.approx(1.0, abs=0.3)
    assert told.forecast.num_windows == 1


def test_expectation_of_an_idle_layer() -> None:
    """A layer without load expects none, and no NaN."""
    solver, samples = worker(), window(1)
    samples[:, 1] = 0
    solver.reply(LearnJob(samples, ref(is_new=True)))
    told = solver.reply(expect_job())

    assert isinstance(told, Expected)
    assert (told.mean[1] == 0).all()
    assert np.isfinite(told.standard_deviation).all()


def test_nothing_to_expect() -> None:
    """A forecast that is not remembered, or knows no window, is lacking; none is made of it."""
    solver = worker()
    assert isinstance(solver.reply(expect_job()), Lacking)
    assert isinstance(solver.reply(expect_job(start=Start(None))), Lacking)
    assert isinstance(solver.reply(expect_job(start=Start(b"damaged"))), Lacking)


def test_schedule() -> None:
    """The way between two placements is the planner's, priced."""
    after = START.copy()
    after[:, [0, 23]] = after[:, [23, 0]]
    migration = MigrationParameters(bytes_per_expert=10)
    told = worker().reply(schedule_job(START, after, migration=migration))

    assert isinstance(told, Scheduled)
    assert told.transfers is not None
    # Expert 7 is on rank 1 as well, expert 0 on rank 2: both of their own targets' nodes.
    assert told.transfers.table[:, [0, 1, 3]].tolist() == [
        [layer, expert, slot] for layer in range(NUM_LAYERS) for expert, slot in ((7, 0), (0, 23))
    ]
    assert told.transfers.total_bytes == 10 * 2 * NUM_LAYERS


def test_schedule_from_ranks_that_were_lost() -> None:
    """What was lost with its rank comes from storage."""
    small = TopologySpec(num_nodes=1, ranks_per_node=3, slots_per_rank=1, masked_ranks=(0,))
    before, after = np.array([[0, 1, 1]]), np.array([[-1, 1, 0]])
    told = worker().reply(schedule_job(before, after, topology=small, num_logical_experts=2))

    assert isinstance(told, Scheduled)
    assert told.transfers is not None
    assert told.transfers.table.tolist() == [[0, 0, 0, 2, 0, 4]]


def test_schedule_of_what_is_no_placement() -> None:
    """A map in which an expert has no slot is refused under the name of its version."""
    refused = worker().reply(schedule_job(START, np.zeros_like(START)))

    assert isinstance(refused, Rejection)
    assert refused.field == "to_version"


def test_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that is too long to be handed around is left out."""
    monkeypatch.setattr(solutions, "MAX_TRANSFERS", 1)
    told = worker().reply(schedule_job(START, np.roll(START, 6, axis=1)))

    assert told == Scheduled(None)
