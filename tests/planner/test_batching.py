"""What several solves ask of a policy at the same time is asked once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch

from expertplane_planner import (
    EngineRules,
    ExpertLoad,
    InvalidLoadError,
    InvalidPlacementError,
    Mode,
    MoveBudget,
    Placement,
    Prediction,
    batching,
    solve_many,
)
from expertplane_planner.policies.base import (
    ImprovingPolicy,
    JointlyImprovingPolicy,
    PlacementRequest,
)
from expertplane_planner.policies.deepseek import DeepSeekParams, DeepSeekPolicy
from expertplane_planner.policies.robust import RobustPolicy

from .many_solves import (
    MACHINE,
    NUM_EXPERTS,
    START,
    alone,
    assert_each_is_what_it_is_alone,
    facts,
    load,
    samples,
    task,
)


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from expertplane_planner import Policy
    from expertplane_planner.policies.base import Departure, Improvement


@dataclass(frozen=True)
class Recorder:
    """Plans like `deepseek`, and keeps how many layers it was asked for."""

    plans_layers_alone = True

    asked: list[int] = field(default_factory=list, compare=False)
    params: DeepSeekParams = field(default_factory=DeepSeekParams)
    name: str = "recorder"

    def place(self, request: PlacementRequest) -> Tensor:
        self.asked.append(request.load.num_layers)
        return DeepSeekPolicy().place(request)


@dataclass(frozen=True)
class Improver(Recorder):
    """Improves like `robust`, one by one, and keeps count."""

    improved: list[int] = field(default_factory=list, compare=False)

    def place(self, request: PlacementRequest) -> Tensor:
        self.asked.append(request.load.num_layers)
        return RobustPolicy().place(request)

    def improve(
        self, request: PlacementRequest, departure: Departure, budget: MoveBudget, *, price: float
    ) -> Tensor:
        self.improved.append(1)
        return RobustPolicy().improve(request, departure, budget, price=price)

    def peaks(self, request: PlacementRequest, phy2log: Tensor) -> Tensor:
        return RobustPolicy().peaks(request, phy2log)


@dataclass(frozen=True)
class JointImprover(Improver):
    """Can improve several placements in one go."""

    def improve_all(self, cases: Sequence[Improvement]) -> list[Tensor]:
        self.improved.append(len(cases))
        return [
            RobustPolicy().improve(case.request, case.departure, case.budget, price=case.price)
            for case in cases
        ]


def test_a_policy_is_asked_once() -> None:
    """Five tasks of one shape, of one to five layers, are one call; one of another is its own."""
    policy = Recorder()
    tasks = [task(policy=policy, load=load(seed, num_layers=seed)) for seed in range(1, 6)]
    other = task(policy=policy, topology=dataclasses.replace(MACHINE, num_slots=24))

    assert_each_is_what_it_is_alone([*tasks, other])
    assert sorted(policy.asked[:2]) == [2, 15]
    assert policy.asked[2:] == [1, 2, 3, 4, 5, 2]  # by `solve`, one by one


def test_an_improving_policy_is_asked_once_for_each_step() -> None:
    """Five re-plans improve in one call, and two plans from scratch join those that follow."""
    policy = JointImprover()
    tasks = [task(seed, policy=policy, incumbent=START) for seed in range(5)]
    tasks[2:2] = [task(seed, policy=JointImprover(policy.asked)) for seed in (8, 9)]

    plans = solve_many(tasks)

    assert (policy.improved, policy.asked) == ([5], [14])
    assert [facts(plan) for plan in plans] == [facts(alone(each)) for each in tasks]


def test_a_policy_that_says_nothing_is_asked_as_ever() -> None:
    """One by one, in its own words; also to improve, where it knows of no other way."""

    class Silent(Improver):
        plans_layers_alone = False

    policy = Silent()
    assert isinstance(policy, ImprovingPolicy)
    assert not isinstance(policy, JointlyImprovingPolicy)

    plans = solve_many([task(seed, policy=policy, incumbent=START) for seed in range(3)])
    assert (policy.improved, policy.asked) == ([1, 1, 1], [2, 2, 2])
    robust = solve_many([task(seed, incumbent=START) for seed in range(3)])
    for plan, expected in zip(plans, robust, strict=True):
        assert facts(plan)["placement"] == facts(expected)["placement"]


def test_unlike_requests_are_not_joined() -> None:
    """Another seed, rule, spill, mode, group, parameter or precision is another call."""
    foreseen = Prediction.of_window(load(0))
    exact = dataclasses.replace(foreseen, covariance=foreseen.dense_covariance().double())
    soft: dict[str, Any] = {"mode": Mode.SOFT_HIERARCHICAL, "num_expert_groups": 4}
    policy = Recorder()
    kinds: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"rules": EngineRules(forbid_duplicates=False, max_replicas_per_expert=8)},
        {"num_expert_groups": 3, "load": ExpertLoad(samples(0)[..., :6])},
        {"mode": Mode.HIERARCHICAL, "num_expert_groups": 4},
        {"mode": Mode.HIERARCHICAL, "num_expert_groups": 2},
        soft,
        soft | {"spill": 1},
        {"prediction": foreseen},
        {"prediction": exact},
        {"prediction": Prediction.from_load(load(0).total())},  # factored, joined with none
        {"prediction": Prediction.from_load(load(1).total())},
        {"policy": dataclasses.replace(policy, name="another")},
    ]

    assert_each_is_what_it_is_alone([task(**({"policy": policy} | kind)) for kind in kinds])
    assert policy.asked == [2] * 2 * len(kinds)


@pytest.mark.parametrize("policy", [DeepSeekPolicy(), RobustPolicy()])
def test_to_join_requests_no_value_is_looked_at(policy: Policy) -> None:
    """Tensors without values are joined and planned, so that the host waits for no device."""
    requests = []
    for num_layers in (2, 3):
        without_values = object.__new__(ExpertLoad)  # birth looks at values, once
        shape = torch.empty(4, num_layers, NUM_EXPERTS, dtype=torch.float64, device="meta")
        object.__setattr__(without_values, "samples", shape)
        foreseen = Prediction(
            shape[0],
            torch.empty(num_layers, NUM_EXPERTS, NUM_EXPERTS, device="meta"),
            shape[0, :, 0],
        )
        requests.append(
            PlacementRequest(
                load=without_values,
                topology=MACHINE,
                num_expert_groups=1,
                mode=Mode.GLOBAL,
                prediction=foreseen,
                seed=0,
            )
        )
    asks = [batching.Placing(policy, request) for request in requests]

    assert [len(each) for each in batching.Placing.together(asks)] == [2, 3]


def test_more_than_memory_is_set_aside_for_is_asked_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five of which two and a half fit are asked two by two, the last alone; the plans stay."""
    policy = JointImprover()
    request = PlacementRequest(
        load=load(0), topology=MACHINE, num_expert_groups=1, mode=Mode.GLOBAL, seed=0,
        prediction=Prediction.of_window(load(0)),
    )  # fmt: skip
    size = batching.Placing(policy, request).num_bytes()
    assert size >= 2 * NUM_EXPERTS**2 * 4
    monkeypatch.setattr(batching, "_MAX_BYTES", size * 5 // 2)
    tasks = [task(seed, policy=policy, incumbent=START) for seed in range(5)]

    plans = solve_many(tasks)

    assert (policy.improved, policy.asked) == ([2, 2, 1], [4, 4, 2])
    assert [facts(plan) for plan in plans] == [facts(alone(each)) for each in tasks]


@dataclass(frozen=True)
class Fussy(JointImprover):
    """Refuses whatever has a layer in which the first expert has no load."""

    def place(self, request: PlacementRequest) -> Tensor:
        self._check(request)
        return super().place(request)

    def improve_all(self, cases: Sequence[Improvement]) -> list[Tensor]:
        for case in cases:
            self._check(case.request)
        return super().improve_all(cases)

    def improve(self, request: PlacementRequest, *others: Any, **more: Any) -> Tensor:
        self._check(request)
        return super().improve(request, *others, **more)

    def _check(self, request: PlacementRequest) -> None:
        if (request.load.total()[:, 0] == 0).any():
            raise InvalidLoadError("load", "Expected load.")


@pytest.mark.parametrize("in_force", [None, START])
def test_an_error_of_the_policy_hurts_no_other_task(in_force: Placement | None) -> None:
    """Asked for all it refuses, asked one by one it refuses the one that it cannot do."""
    empty = samples(1)
    empty[..., 0] = 0
    tasks = [task(seed, policy=Fussy(), incumbent=in_force) for seed in range(4)]
    tasks[1] = dataclasses.replace(tasks[1], load=ExpertLoad(empty))

    assert_each_is_what_it_is_alone(tasks)
    assert isinstance(solve_many(tasks)[1], InvalidLoadError)


def test_answers_to_nothing_that_was_asked_are_found_out() -> None:
    """A layer or a placement too few: each task then has the answer, or the error, of its own."""

    class Short(Recorder):
        def place(self, request: PlacementRequest) -> Tensor:
            return super().place(request)[:-1]

    class Forgetful(JointImprover):
        def improve_all(self, cases: Sequence[Improvement]) -> list[Tensor]:
            return super().improve_all(cases)[1:]

    tasks = [task(seed, policy=Short()) for seed in range(2)]
    tasks += [task(seed, policy=Forgetful(), incumbent=START) for seed in range(2)]

    assert_each_is_what_it_is_alone(tasks)
    assert isinstance(solve_many(tasks)[0], InvalidPlacementError)


def test_what_is_not_the_planners_own_error_is_raised() -> None:
    """As of a device that is lost: there is no telling which tasks it would spare."""

    class Broken(Recorder):
        def place(self, request: PlacementRequest) -> Tensor:
            raise RuntimeError("CUDA error")

    with pytest.raises(RuntimeError, match="CUDA error"):
        solve_many([task(), task(policy=Broken()), task(policy=Broken())])
