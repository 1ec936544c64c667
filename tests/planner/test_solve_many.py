"""Many solves in one call: each result is what it is alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import (
    BenefitTerms,
    EngineRules,
    ExpertLoad,
    Incumbent,
    InvalidInputError,
    InvalidPlacementError,
    Mode,
    MoveBudget,
    Placement,
    Plan,
    PlannerError,
    Prediction,
    SolveTask,
    UnknownPolicyError,
    batching,
    kernels,
    solve,
    solve_many,
)
from expertplane_planner.kernels.threads import single_threaded_ops
from expertplane_planner.policies.base import PlacementRequest, plans_layers_alone
from expertplane_planner.policies.robust import RobustParams, RobustPolicy

from ..support import instances
from .many_solves import (
    MACHINE,
    NUM_EXPERTS,
    START,
    assert_each_is_what_it_is_alone,
    load,
    task,
)
from .policies.table import ROWS, Row
from .re_plans import budgets, tasks as re_plans


if TYPE_CHECKING:
    from expertplane_planner import Policy


LAYER_BY_LAYER = [row.make() for row in ROWS if plans_layers_alone(row.make())]
LAYER_BY_LAYER.append(RobustPolicy(RobustParams(num_starts=3)))


def many_kinds(policy: Policy) -> list[SolveTask]:
    """Return tasks for a policy: three of each kind, and a few kinds of their own."""
    good = solve(load(50), MACHINE).placement
    lost, back = (dataclasses.replace(MACHINE, masked_ranks=(rank,)) for rank in (1, 3))
    slow = dataclasses.replace(MACHINE, rank_capacities=(1.0, 0.5, 1.0, 2.0))
    by_node: dict[str, Any] = {"mode": Mode.HIERARCHICAL, "num_expert_groups": 4}
    tight = Incumbent(placement=good, budget=MoveBudget(slots_per_layer=2))
    judged = Incumbent(placement=good, held_out=load(60), terms=BenefitTerms(horizon_s=9.0))
    kinds: list[dict[str, Any]] = [
        {},
        {"seed": 5},
        {"topology": lost},
        {"rules": EngineRules(forbid_duplicates=True, max_replicas_per_expert=3)},
        by_node,
        {"mode": Mode.SOFT_HIERARCHICAL, "num_expert_groups": 4, "spill": 2},
        {"incumbent": START},
        {"incumbent": tight},
        {"incumbent": dataclasses.replace(tight, budget=MoveBudget(total_slots=3))},
        {"incumbent": judged},
        {"incumbent": good, "topology": back},
        {"incumbent": START, "seed": 5} | by_node,
    ]
    if getattr(policy, "weighs_ranks", False):
        kinds += [{"topology": slow}, {"topology": slow, "incumbent": good}]
    tasks = [task(number, policy=policy, **kind) for kind in kinds for number in range(3)]
    for seed in range(3):  # of one shape, from samples of more and less
        window = load(seed, num_samples=1 + 3 * seed)
        foreseen = Prediction.of_window(load(seed + 70))
        exact = dataclasses.replace(foreseen, covariance=foreseen.dense_covariance().double())
        factored = Prediction.from_load(window.total())
        for expected in (None, foreseen, exact, factored):
            for start in (None, good):
                tasks.append(
                    task(load=window, prediction=expected, incumbent=start, policy=policy)
                )
    return tasks


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_results_are_those_of_one_by_one(row: Row) -> None:
    """Over modes, masks, rules, budgets, predictions and what is in force, all in one call."""
    plans = assert_each_is_what_it_is_alone(many_kinds(row.make()))

    # Rules that the policy cannot keep are refused, which is compared, too.
    assert sum(isinstance(plan, Plan) for plan in plans) >= len(plans) - 3


def test_policies_and_shapes_may_be_mixed() -> None:
    """Every policy on every adversarial instance, which all differ, in one call."""
    tasks = [
        SolveTask(
            load=instance.load,
            topology=instance.topology,
            num_expert_groups=instance.num_expert_groups,
            mode=instance.mode,
            spill=instance.spill,
            policy=row.name,
        )
        for instance in instances.adversarial().values()
        for row in ROWS
    ]

    assert_each_is_what_it_is_alone(tasks)


def test_any_small_mixture() -> None:
    """Whatever hypothesis comes up with; every problem twice, so that something goes together."""

    @settings(deadline=None, max_examples=25)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        tasks = []
        for _ in range(data.draw(st.integers(1, 2))):
            problem = data.draw(re_plans(is_whole=False))
            row = data.draw(st.sampled_from(ROWS))
            with_start = Incumbent(placement=problem.incumbent, budget=data.draw(budgets))
            tasks += [
                SolveTask(
                    load=tokens,
                    topology=problem.topology,
                    num_expert_groups=problem.num_expert_groups,
                    mode=problem.mode,
                    spill=problem.spill,
                    policy=row.make(),
                    incumbent=start,
                )
                for tokens in (problem.load, ExpertLoad(problem.load.samples.flip(2)))
                for start in (None, with_start)
            ]
        assert_each_is_what_it_is_alone(data.draw(st.permutations(tasks)))

    check()


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.AUTO])
@pytest.mark.parametrize("policy", LAYER_BY_LAYER, ids=lambda policy: policy.name)
def test_a_policy_that_says_so_plans_every_layer_alone(
    policy: Policy, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three models of 90 layers planned as one of 270 get the maps they get alone, on any leg."""
    loads = [load(seed, num_layers=90) for seed in range(3)]
    asks = [
        batching.Placing(
            policy,
            PlacementRequest(
                load=each,
                topology=MACHINE,
                num_expert_groups=4,
                mode=mode,
                spill=2 if mode is Mode.SOFT_HIERARCHICAL else 0,
                prediction=Prediction.of_window(each),
                seed=3,
            ),
        )
        for each in loads
    ]
    for has_numba in (kernels._HAS_NUMBA, False):
        monkeypatch.setattr(kernels, "_HAS_NUMBA", has_numba)
        with single_threaded_ops():
            together = torch.cat(list(batching.Placing.together(asks)))

            assert torch.equal(together, torch.cat([ask.alone() for ask in asks]))


def test_policies_whose_noise_is_for_all_layers_do_not_say_so() -> None:
    """What they draw for a layer depends on the layers before; nor does one against the clock."""
    policies = [row.make() for row in ROWS if row.is_random]
    in_a_hurry = RobustPolicy(RobustParams(time_limit_s=60.0))

    assert not any(plans_layers_alone(policy) for policy in [*policies, in_a_hurry])


def test_an_error_is_the_result_of_its_own_task() -> None:
    """What `solve` would raise stands in the place of the plan, and the others are planned."""
    in_force = Placement.initial(3, NUM_EXPERTS, MACHINE)
    tasks = [
        task(0),
        task(1, policy="magic"),
        task(2, topology=dataclasses.replace(MACHINE, num_slots=4)),
        task(3),
        task(4, incumbent=in_force),
        task(5, rules=EngineRules(forbid_duplicates=True), policy="deepseek"),
        task(6, incumbent=dataclasses.replace(Incumbent(placement=in_force), held_out=load(1))),
        task(7),
    ]

    assert_each_is_what_it_is_alone(tasks)
    errors = [type(result) for result in solve_many(tasks) if isinstance(result, PlannerError)]
    assert errors[:3] == [UnknownPolicyError, InvalidInputError, InvalidPlacementError]


def test_a_device_is_that_of_the_whole_call() -> None:
    """One that is not there is raised, not returned; without tasks there are no plans."""
    (plan,) = solve_many([task()], device="cpu")
    assert isinstance(plan, Plan)
    assert plan.placement.phy2log.device.type == "cpu"
    assert solve_many([]) == []
    with pytest.raises(InvalidInputError, match="got 'abacus'"):
        solve_many([task()], device="abacus")
