"""Policies over a trace, out of sample."""

from __future__ import annotations

import pytest
import torch

from expertplane_planner import ExpertLoad, Forecast, InvalidInputError, Mode, Topology, solve
from expertplane_planner.policies.robust import RobustParams, RobustPolicy
from expertplane_planner.replay import ORACLE, STATIC, ReplayReport, replay

from .spy import Fixed, Spy, synthetic


TWO_RANKS = Topology(num_nodes=1, num_ranks=2, num_slots=4)
EIGHT_RANKS = Topology(num_nodes=2, num_ranks=8, num_slots=40)
BY_HAND = torch.tensor(
    [
        [[[2, 2, 1, 1]], [[2, 1, 1, 0]]],
        [[[4, 0, 0, 4]], [[4, 4, 4, 4]]],
        [[[6, 2, 1, 1]], [[1, 1, 1, 1]]],
    ]
)


def figures(report: ReplayReport) -> list[tuple[object, ...]]:
    """Returns what does not depend on the clock."""
    return [
        (row.name, row.balancedness, row.per_window, row.per_layer, row.moved_by_layer)
        for row in report.rows
    ]


def test_a_replay_by_hand() -> None:
    """Plans come from the window before, scores from every step of the next.

    One layer, four experts, two slots on each of two ranks. The first window's sum is 4, 3, 2, 1:
    experts 0 and 3 go to one rank, 1 and 2 to the other. The steps of the second window then load
    the ranks with 8 and 0, and with 8 and 8: 4/8 and 1. Its sum is 8, 4, 4, 8, so that 0 and 1 now
    share a rank: each rank receives one expert. The last window brings them 8 and 2, and 2 and 2:
    5/8 and 1. With the first plan it is 7 and 3 instead, 5/7 and 1.
    """
    report = replay(BY_HAND, TWO_RANKS, ["deepseek"], warmup_windows=1)
    row, static = report.row("deepseek"), report.row(STATIC)

    assert [each.name for each in report.rows] == [STATIC, "deepseek", ORACLE]
    assert row.per_window == pytest.approx((3 / 4, 13 / 16))
    assert row.balancedness == pytest.approx(25 / 32)
    assert row.moved_by_layer == (2.0,)
    assert (row.moved_slots_per_layer, row.num_plans) == (2.0, 2)
    assert row.seconds_median > 0
    assert static.per_window == pytest.approx((3 / 4, 6 / 7))
    assert (static.moved_slots_per_layer, static.num_plans) == (0.0, 1)
    assert (report.num_windows, report.num_samples, report.every) == (3, 2, 2)
    assert report.mode is Mode.GLOBAL


def test_layers_are_summed_before_they_are_divided() -> None:
    """A step of 8 and 2 tokens in one layer, of 1 and 1 in another, is 6/9 balanced.

    Each layer by itself is 5/8 and 1; the mean of these is 13/16, the worst layer 5/8.
    """
    trace = torch.ones(2, 1, 2, 4)
    trace[1, 0] = torch.tensor([[6.0, 2.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]])
    fixed = Fixed(torch.arange(4).expand(2, -1))
    row = replay(trace, TWO_RANKS, [fixed], warmup_windows=1).row("spy")

    assert row.per_layer == row.per_layer_minimum == pytest.approx((5 / 8, 1.0))
    assert row.balancedness == pytest.approx(6 / 9)
    assert (row.mean, row.minimum) == pytest.approx((13 / 16, 5 / 8))


def test_the_worst_window_of_a_layer() -> None:
    """Steps of 8 and 2, and of 4 and 4, in two windows: 13/16 on average, 5/8 at worst."""
    trace = torch.ones(3, 1, 1, 4)
    trace[1] = torch.tensor([6.0, 2.0, 1.0, 1.0])
    row = replay(trace, TWO_RANKS, [Fixed(torch.arange(4)[None])], warmup_windows=1).row("spy")

    assert (row.per_layer, row.per_layer_minimum) == ((13 / 16,), (5 / 8,))


def test_only_the_past_is_shown() -> None:
    """Each plan sees the window before as load, and a forecast of all windows so far."""
    trace, spy = synthetic(0, num_windows=4), Spy()
    replay(trace, EIGHT_RANKS, [spy], warmup_windows=2)
    forecast = Forecast(2, 32)
    forecast.observe(trace[0])

    assert len(spy.requests) == 2
    for index, request in zip((2, 3), spy.requests, strict=True):
        forecast.observe(trace[index - 1])
        assert torch.equal(request.load.samples, trace[index - 1])
        assert request.prediction is not None
        expected = forecast.predict()
        assert torch.equal(request.prediction.mean, expected.mean)
        assert torch.equal(request.prediction.dense_covariance(), expected.dense_covariance())


def test_another_future_changes_no_plan() -> None:
    """What the policies do before the last window does not depend on it, but for the oracle."""
    trace = synthetic(1, num_windows=5)
    other = trace.clone()
    other[-1] = other[-1].flip(-1)
    policies = ["balanced", "robust", "deepseek"]
    found, changed = (
        replay(each, EIGHT_RANKS, policies, warmup_windows=2) for each in (trace, other)
    )

    for name in (STATIC, *policies):
        mine, theirs = found.row(name), changed.row(name)
        assert mine.per_window[:-1] == theirs.per_window[:-1]
        assert mine.per_window[-1] != theirs.per_window[-1]
        # The plan for the last window included.
        assert mine.moved_by_layer == theirs.moved_by_layer
    assert found.row(ORACLE).moved_by_layer != changed.row(ORACLE).moved_by_layer


def test_mean_policies_see_the_sum_alone() -> None:
    """`balanced` is scored like a solve of the last window's sum, `robust` like one told more."""
    trace = synthetic(2, num_windows=3)
    report = replay(trace[:3], EIGHT_RANKS, ["balanced", "robust"], warmup_windows=2)
    forecast = Forecast(2, 32)
    for window in trace[:2]:
        forecast.observe(window)
    on_sum = solve(ExpertLoad.from_weight(trace[1].sum(dim=0)), EIGHT_RANKS, policy="balanced")
    ahead = solve(
        ExpertLoad(trace[1]), EIGHT_RANKS, policy="robust", prediction=forecast.predict()
    )

    for plan in (on_sum, ahead):
        again = replay(trace[:3], EIGHT_RANKS, [Fixed(plan.placement.phy2log)], warmup_windows=2)
        expected = again.row("spy").balancedness
        assert report.row(plan.policy).balancedness == pytest.approx(expected)


def test_inside_a_window_the_last_steps_are_the_window_before() -> None:
    """Every 2 of 4 steps, a plan sees the last 4 steps, whichever window they are of."""
    trace, spy = synthetic(3, num_windows=3, num_samples=4), Spy()
    report = replay(trace, EIGHT_RANKS, [spy], warmup_windows=1, every=2)
    steps = trace.flatten(0, 1)

    assert report.every == 2
    assert report.row("spy").num_plans == 4
    assert len(report.row("spy").per_window) == 2
    assert report.row(ORACLE).num_plans == 2
    for number, request in enumerate(spy.requests):
        now = 4 + 2 * number
        assert torch.equal(request.load.samples, steps[now - 4 : now])


def test_all_steps_of_a_window_are_what_is_usual() -> None:
    """Asking for a re-plan every 8 of 8 steps changes nothing."""
    trace = synthetic(4, num_windows=4)
    usual, asked = (
        replay(trace, EIGHT_RANKS, ["robust"], warmup_windows=2, every=every)
        for every in (None, 8)
    )

    assert figures(usual) == figures(asked)


def test_the_same_trace_gives_the_same_figures() -> None:
    """Twice, with a policy that draws random numbers, and leaves the trace alone."""
    trace = synthetic(5, num_windows=4)
    before = trace.clone()
    first, second = (
        replay(trace, EIGHT_RANKS, ["restarts", "balanced", "robust"], warmup_windows=2, seed=7)
        for _ in range(2)
    )

    assert figures(first) == figures(second)
    assert torch.equal(trace, before)


def test_the_oracle_is_ahead() -> None:
    """Over five seeds, who knows the window plans better for it than who foresees it.

    And the gap is the share of the way from `balanced` to there.
    """
    lead = 0.0
    for seed in range(5):
        trace = synthetic(seed, num_windows=7)
        report = replay(trace, EIGHT_RANKS, ["balanced", "robust"], warmup_windows=4)
        robust, balanced, oracle = (report.row(name) for name in ("robust", "balanced", ORACLE))
        lead += oracle.balancedness - robust.balancedness
        way = oracle.balancedness - balanced.balancedness
        assert robust.gap_closed == pytest.approx(
            (robust.balancedness - balanced.balancedness) / way
        )
        assert (balanced.gap_closed, oracle.gap_closed) == (0.0, 1.0)
    assert lead > 0


def test_steady_load_moves_nothing() -> None:
    """A window that is like the one before leaves every expert where it is."""
    trace = synthetic(6, num_windows=1).expand(4, -1, -1, -1)
    report = replay(trace, EIGHT_RANKS, ["balanced", "deepseek"], warmup_windows=1)

    assert [row.moved_slots_per_layer for row in report.rows] == [0.0] * 4
    assert report.row("balanced").num_plans == 3
    assert report.row("balanced").per_window == report.row(STATIC).per_window


def test_without_a_way_there_is_no_gap() -> None:
    """Without `balanced`, or where it is as good as the oracle, no share is given."""
    trace = synthetic(7, num_windows=3)
    without = replay(trace, EIGHT_RANKS, ["robust"], warmup_windows=2)
    even = replay(torch.ones(2, 2, 1, 4), TWO_RANKS, ["balanced"], warmup_windows=1)

    assert {row.gap_closed for row in (*without.rows, *even.rows)} == {None}


def test_layers_and_windows_without_load() -> None:
    """They are planned for like others, and count as even."""
    trace = synthetic(8, num_windows=4)
    trace[:, :, 0] = 0
    trace[2] = 0
    report = replay(trace, EIGHT_RANKS, ["balanced", "robust"], warmup_windows=1)

    for row in report.rows:
        assert row.per_layer[0] == 1.0
        assert row.per_window[1] == 1.0


def test_all_plans_are_made_in_one_setting() -> None:
    """Mode, expert groups, spill and seed are those that were asked for, in every plan."""
    spy = Spy()
    report = replay(
        synthetic(9, num_windows=4),
        EIGHT_RANKS,
        [spy, "robust"],
        warmup_windows=2,
        mode=Mode.SOFT_HIERARCHICAL,
        num_expert_groups=4,
        spill=2,
        seed=3,
    )

    assert report.mode is Mode.SOFT_HIERARCHICAL
    settings = [
        (request.mode, request.num_expert_groups, request.spill, request.seed)
        for request in spy.requests
    ]
    assert settings == [(Mode.SOFT_HIERARCHICAL, 4, 2, 3)] * 2


def test_a_policy_may_have_parameters_of_its_own() -> None:
    """An object is taken as it is."""
    trace = synthetic(10, num_windows=4)
    usual, careless = (
        replay(trace, EIGHT_RANKS, [policy], warmup_windows=2).row("robust")
        for policy in ("robust", RobustPolicy(RobustParams(risk=0.0, replication_risk=0.0)))
    )

    assert usual.per_window != careless.per_window


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("warmup_windows", {"warmup_windows": 0}),
        ("warmup_windows", {"warmup_windows": 3}),
        ("every", {"every": 0}),
        ("every", {"every": 3}),
        ("policies", {"policies": []}),
        ("policies", {"policies": ["balanced", "balanced"]}),
        ("policies", {"policies": [Spy(name="static")]}),
        ("policies", {"policies": [Spy(name="oracle")]}),
        ("policy", {"policies": ["nothing"]}),
        ("spill", {"spill": 1}),
        ("trace", {"trace": BY_HAND[0]}),
        ("trace", {"trace": BY_HAND[:0]}),
        ("trace", {"trace": -BY_HAND}),
        ("trace", {"trace": BY_HAND.to(torch.complex64)}),
        ("trace", {"trace": torch.ones(2, 257, 1, 4)}),
    ],
)
def test_what_does_not_fit_is_refused(field: str, changes: dict[str, object]) -> None:
    """The field says what, before anything is planned."""
    arguments = {"trace": BY_HAND, "policies": ["deepseek"], "warmup_windows": 1} | changes
    with pytest.raises(InvalidInputError) as caught:
        replay(topology=TWO_RANKS, **arguments)  # type: ignore[arg-type]

    assert caught.value.field == field
