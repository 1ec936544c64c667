"""Forecasts in the solver process: what it remembers, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from expertplane_planner import Forecast, Prediction
from expertplane_server.core.parameters import (
    ForecastParameters,
    MigrationParameters,
    PlacementRules,
    TriggerParameters,
)
from expertplane_server.core.plan import Evaluation, Solution
from expertplane_server.core.spec import PolicyChoice, TopologySpec
from expertplane_server.runtime.jobs import (
    Answer,
    Checkpoint,
    CheckpointJob,
    ForecastRef,
    Lacking,
    Learned,
    LearnJob,
    Rejection,
    SolveJob,
    Start,
)
from expertplane_server.runtime.solver_worker import Worker


NUM_LAYERS, NUM_EXPERTS = 2, 16
MACHINE = TopologySpec(num_nodes=2, ranks_per_node=2, slots_per_rank=6)
START = np.tile(np.arange(24, dtype=np.int32) % NUM_EXPERTS, (NUM_LAYERS, 1))


def worker(**changes: Any) -> Worker:
    """Return a worker that remembers nothing."""
    return Worker(torch.device("cpu"), **changes)


def window(seed: int, num_samples: int = 8) -> np.ndarray[Any, Any]:
    """Return a window [num_samples, layers, experts]; its mix belongs to the seed."""
    rng = np.random.default_rng(seed)
    mean = rng.gamma(2.0, 50.0, size=(1, NUM_LAYERS, NUM_EXPERTS))
    return rng.poisson(mean, size=(num_samples, NUM_LAYERS, NUM_EXPERTS)).astype(np.float64)


def ref(name: str = "prod/v3", *, is_new: bool = False, **changes: Any) -> ForecastRef:
    """Return a reference to a forecast, which goes on unless it is new."""
    fields: dict[str, Any] = {"generation": 1, "parameters": ForecastParameters(), **changes}
    if is_new:
        fields["start"] = Start(None)
    return ForecastRef(deployment=name, **fields)


def solve_job(samples: np.ndarray[Any, Any], of: ForecastRef | None, **changes: Any) -> SolveJob:
    """Return a job that starts from the placement that needs no load."""
    fields: dict[str, Any] = {
        "topology": MACHINE,
        "num_expert_groups": 1,
        "policy": PolicyChoice(),
        "incumbent": START,
        **changes,
    }
    return SolveJob(samples=samples, forecast=of, **fields)


def solved(by: Worker, job: SolveJob) -> Solution:
    """Return the plan for a job."""
    answer = by.reply(job)
    assert isinstance(answer, Answer)
    return answer.solution


def checkpoint(of: Worker, name: str = "prod/v3") -> bytes:
    """Return a forecast as it is written down."""
    written = of.reply(CheckpointJob(ref(name)))
    assert isinstance(written, Checkpoint)
    return written.content


def test_every_window_is_learned() -> None:
    """Solved for or not, a window is part of the forecast, all its samples counted."""
    made, alone = worker(), Forecast(NUM_LAYERS, NUM_EXPERTS)
    first = made.reply(LearnJob(window(0), ref(is_new=True)))
    second = made.reply(solve_job(window(1), ref()))
    third = made.reply(solve_job(window(2, num_samples=3), ref()))
    for seed, num_samples in ((0, 8), (1, 8), (2, 3)):
        alone.observe(torch.from_numpy(window(seed, num_samples)))

    assert isinstance(first, Learned)
    assert isinstance(second, Answer)
    assert isinstance(third, Answer)
    statuses = [first.forecast, second.forecast, third.forecast]
    assert [status and status.num_windows for status in statuses] == [1, 2, 3]
    assert checkpoint(made) == alone.to_bytes()


def test_window_of_a_failed_solve_is_learned() -> None:
    """A plan that cannot be made does not cost the forecast its window."""
    made = worker()
    made.reply(LearnJob(window(0), ref(is_new=True)))
    impossible = PlacementRules(max_replicas=1)  # 24 slots are more than 16 experts
    refused = made.reply(solve_job(window(1), ref(), rules=impossible))
    assert isinstance(refused, Rejection)
    assert refused.field == "engine.max_replicas_per_expert"
    assert refused.forecast is not None
    assert refused.forecast.num_windows == 2
    learned = made.reply(LearnJob(window(2), ref()))

    assert isinstance(learned, Learned)
    assert learned.forecast.num_windows == 3


def test_held_out_samples_are_not_seen() -> None:
    """Every 4th of 8 samples changes the figures of a plan and the next one, not the plan."""
    usual, other = window(1), window(1)
    other[3::4] = window(7)[3::4]
    made = [worker(), worker()]
    for each in made:
        each.reply(LearnJob(window(0), ref(is_new=True)))
    plans = [
        solved(each, solve_job(samples, ref(), policy=PolicyChoice(max_moved_slots=3)))
        for each, samples in zip(made, (usual, other), strict=True)
    ]

    assert {plan.evaluation for plan in plans} == {Evaluation.HELD_OUT}
    assert plans[0].digest == plans[1].digest
    assert plans[0].balance != plans[1].balance
    assert checkpoint(made[0]) != checkpoint(made[1])


def test_few_samples_are_judged_by_the_prediction() -> None:
    """With fewer than 8 samples the figures are those of what is expected, and say so."""
    made, alone = worker(), Forecast(NUM_LAYERS, NUM_EXPERTS)
    samples = window(3, num_samples=7)
    plan = solved(made, solve_job(samples, ref(is_new=True)))
    alone.observe(torch.from_numpy(samples))
    prediction: Prediction = alone.predict()

    assert plan.evaluation is Evaluation.PREDICTIVE
    tokens = (prediction.mean * prediction.scale.unsqueeze(-1)).numpy()
    per_slot = tokens / np.stack([np.bincount(row, minlength=NUM_EXPERTS) for row in START])
    loads = np.take_along_axis(per_slot, START.astype(np.int64), 1).reshape(NUM_LAYERS, 4, 6)
    ranks = loads.sum(axis=2)
    assert plan.balance_before is not None
    assert plan.balance_before.balancedness == pytest.approx(
        ranks.mean(axis=1).sum() / ranks.max(axis=1).sum()
    )


def test_forecast_makes_the_plan() -> None:
    """The same window leads to another plan behind another past."""
    plans = []
    for past in (range(10, 14), range(20, 24)):
        made = worker()
        made.reply(LearnJob(window(0), ref(is_new=True)))
        for seed in past:
            made.reply(LearnJob(window(seed), ref()))
        plans.append(solved(made, solve_job(window(1), ref())))

    assert plans[0].digest != plans[1].digest


def test_restart_changes_nothing() -> None:
    """A forecast that went through a checkpoint makes the same plans, to the bit."""
    kept = worker()
    kept.reply(LearnJob(window(0), ref(is_new=True)))
    for seed in (1, 2, 3):
        kept.reply(solve_job(window(seed), ref()))
    restarted, content = worker(), checkpoint(kept)
    resumed = replace(ref(), start=Start(content))
    assert isinstance(restarted.reply(solve_job(window(4), ref())), Lacking)

    plans = [
        solved(kept, solve_job(window(4), ref())),
        solved(restarted, solve_job(window(4), resumed)),
    ]
    assert plans[0].digest == plans[1].digest
    assert plans[0].balance == plans[1].balance
    assert checkpoint(kept) == checkpoint(restarted)


@pytest.mark.parametrize(
    "job", [LearnJob(window(0), ref()), solve_job(window(0), ref()), CheckpointJob(ref())]
)
def test_forecast_that_is_not_remembered(job: Any) -> None:
    """A worker that lacks a forecast says so and does nothing; another generation is another."""
    made = worker()
    assert isinstance(made.reply(job), Lacking)
    made.reply(LearnJob(window(0), ref(generation=2, start=Start(None))))
    made.reply(LearnJob(window(0), ref("other/name", is_new=True)))

    assert isinstance(made.reply(job), Lacking)


@pytest.mark.parametrize(
    "damage",
    ["empty", "noise", "cut off", "flipped", "other layers", "other experts", "other parameters"],
)
def test_checkpoint_that_cannot_be_used(damage: str) -> None:
    """A damaged or foreign checkpoint is told of, and the forecast begins with nothing."""
    made = worker()
    made.reply(LearnJob(window(0), ref(is_new=True)))
    content = checkpoint(made)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    unusable = {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(5000),
        "cut off": content[: len(content) // 2],
        "flipped": bytes(flipped),
        "other layers": Forecast(NUM_LAYERS + 1, NUM_EXPERTS).to_bytes(),
        "other experts": Forecast(NUM_LAYERS, NUM_EXPERTS + 1).to_bytes(),
        "other parameters": content,
    }[damage]
    parameters = ForecastParameters(recent_windows=2 if damage == "other parameters" else 1)
    answer = made.reply(solve_job(window(1), ref(parameters=parameters, start=Start(unusable))))

    assert isinstance(answer, Answer)
    assert answer.forecast is not None
    assert answer.forecast.num_windows == 1
    assert answer.forecast.refusal != ""
    cold = worker()
    cold.reply(LearnJob(window(1), ref(is_new=True, parameters=parameters)))
    assert checkpoint(made) == checkpoint(cold)


def test_start_goes_before_memory() -> None:
    """A deployment that begins anew, as one of an earlier name does, shares nothing with it."""
    made = worker()
    for _ in range(3):
        made.reply(LearnJob(window(0), ref(is_new=True)))
    learned = made.reply(LearnJob(window(1), ref(is_new=True)))

    assert isinstance(learned, Learned)
    assert learned.forecast.num_windows == 1


def test_least_recently_used_is_dropped() -> None:
    """Beyond the bound forecasts are forgotten, first those that were not asked for longest."""
    size = sum(
        getattr(value, "nbytes", 0) for value in Forecast(NUM_LAYERS, NUM_EXPERTS).state().values()
    )
    made = worker(max_forecast_bytes=2 * size)
    for name in ("a/a", "b/b"):
        made.reply(LearnJob(window(0), ref(name, is_new=True)))
    made.reply(LearnJob(window(1), ref("a/a")))
    made.reply(LearnJob(window(0), ref("c/c", is_new=True)))

    kept = {
        name: not isinstance(made.reply(CheckpointJob(ref(name))), Lacking)
        for name in ("a/a", "b/b", "c/c")
    }
    assert kept == {"a/a": True, "b/b": False, "c/c": True}


def test_one_forecast_always_fits() -> None:
    """A forecast that is larger than the bound by itself is remembered all the same."""
    made = worker(max_forecast_bytes=1)
    made.reply(LearnJob(window(0), ref("a/a", is_new=True)))
    made.reply(LearnJob(window(0), ref("b/b", is_new=True)))

    assert isinstance(made.reply(LearnJob(window(1), ref("b/b"))), Learned)
    assert isinstance(made.reply(LearnJob(window(1), ref("a/a"))), Lacking)


def test_forecasts_keep_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine torch's threads would spin for each other, with a solve and without."""
    observe, seen = Forecast.observe, []

    def spied(self: Forecast, samples: torch.Tensor) -> None:
        seen.append(torch.get_num_threads())
        observe(self, samples)

    monkeypatch.setattr(Forecast, "observe", spied)
    made, before = worker(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made.reply(LearnJob(window(0), ref(is_new=True)))
        made.reply(solve_job(window(1), ref()))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

    assert seen == [1, 1, 1]


def test_drift_is_told() -> None:
    """A window unlike all that came before is reported, with the plan that it leads to."""
    rng = np.random.default_rng(5)
    usual = rng.gamma(2.0, 50.0, size=(1, NUM_LAYERS, NUM_EXPERTS))

    def steady(mean: Any) -> np.ndarray[Any, Any]:
        return rng.poisson(mean, size=(8, NUM_LAYERS, NUM_EXPERTS)).astype(np.float64)

    made = worker()
    made.reply(LearnJob(steady(usual), ref(is_new=True)))
    calm = [solved(made, solve_job(steady(usual), ref())).is_drifting for _ in range(12)]
    sudden = solved(made, solve_job(steady(usual[..., ::-1] ** 2), ref()))

    assert not any(calm)
    assert sudden.is_drifting


@pytest.mark.parametrize("budget", [0, 1, 2, 5])
def test_budget_is_obeyed(budget: int) -> None:
    """No layer moves more slots than the budget allows; nothing at all moves at 0."""
    policy = PolicyChoice(max_moved_slots=budget)
    plan = solved(worker(), solve_job(window(1), ref(is_new=True), policy=policy))

    assert plan.most_moved_slots <= budget
    if budget == 0:
        np.testing.assert_array_equal(plan.phy2log, START)
    else:
        assert plan.gain > 0


def test_migration_is_priced() -> None:
    """Time gained and lost follow from the deployment's own terms, and the copies add up."""
    terms = TriggerParameters(horizon_s=100.0, moe_time_fraction=0.25, stall_fraction=0.5)
    prices = MigrationParameters(
        bytes_per_expert=1000, intra_node_bytes_per_s=4e3, inter_node_bytes_per_s=1e3
    )
    job = solve_job(window(1), ref(is_new=True), trigger=terms, migration=prices)
    plan = solved(worker(), job)

    assert plan.gain_s == pytest.approx(25.0 * plan.gain)
    assert plan.transfers is not None
    assert plan.cost_s == pytest.approx(0.5 * plan.transfers.estimated_s)
    layer, expert, source, target, turn, link = plan.transfers.table.T
    np.testing.assert_array_equal(START[layer, source], expert)
    np.testing.assert_array_equal(plan.phy2log[layer, target], expert)
    assert plan.transfers.total_bytes == 1000 * int((link > 1).sum()) == 1000 * plan.moved_slots
    slowest = {
        (each, when): max(link[(layer == each) & (turn == when)])
        for each, when in zip(layer[link > 1], turn[link > 1], strict=True)
    }
    wanted_s = sum({2: 0.25, 3: 1.0}[kind] for kind in slowest.values())
    assert plan.transfers.estimated_s == pytest.approx(wanted_s)


def test_engine_rules_reach_the_policy() -> None:
    """Where the engine forbids duplicates no rank holds an expert twice, nor too many replicas."""
    samples = window(1)
    samples[:, :, 3] = 100_000.0
    rules = PlacementRules(forbids_duplicates=True, max_replicas=3)
    plan = solved(worker(), solve_job(samples, ref(is_new=True), rules=rules))

    assert np.bincount(plan.phy2log[0]).max() <= 3
    for rank in plan.phy2log.reshape(-1, MACHINE.slots_per_rank).tolist():
        assert len(set(rank)) == MACHINE.slots_per_rank


def test_parameters_reach_the_policy() -> None:
    """What a policy is told is in its plan."""
    policy = PolicyChoice(parameters=(("max_swaps", "0"), ("risk", "0.5")))
    plan = solved(worker(), solve_job(window(1), None, policy=policy, incumbent=None))

    assert plan.parameters == (("max_swaps", "0"), ("risk", "0.5"))
