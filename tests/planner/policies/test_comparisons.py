"""What a policy promises against another policy, or against what can be reached at all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import ExpertLoad, Mode, Topology, solve
from expertplane_planner.policies.balanced import BalancedPolicy
from expertplane_planner.policies.restarts import RestartsParams, RestartsPolicy

from ...support import instances, reference
from ...support.instances import Instance
from .solving import every_instance, place, plan
from .table import ROWS, Row


if TYPE_CHECKING:
    from torch import Tensor


DEEPSEEK = ROWS[0]
AVOIDING = [row for row in ROWS if row.avoids_duplicates]


@st.composite
def _global_instances(draw: st.DrawFn) -> Instance:
    """Draw several layers of uneven counts for a few ranks of several slots."""
    num_ranks, slots_per_rank = draw(st.integers(2, 6)), draw(st.integers(2, 4))
    num_slots = num_ranks * slots_per_rank
    num_experts = draw(st.integers(num_slots // 2, num_slots))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
    most = draw(st.sampled_from([4, 30, 1000, 2**20]))
    return Instance(
        load=ExpertLoad.from_weight(
            torch.randint(0, most, (16, num_experts), generator=generator)
        ),
        topology=Topology(num_nodes=1, num_ranks=num_ranks, num_slots=num_slots),
    )


@pytest.mark.parametrize("row", [r for r in ROWS if r.refines_deepseek], ids=str)
def test_refining_deepseeks_packing_never_makes_it_worse(row: Row) -> None:
    """In global mode each layer is as balanced as DeepSeek's, up to float32 rounding."""

    @settings(deadline=None, max_examples=15)
    @given(_global_instances())
    def check(instance: Instance) -> None:
        refined = plan(row, instance).balance.per_layer
        baseline = plan(DEEPSEEK, instance).balance.per_layer
        assert all(a >= b - 1e-6 for a, b in zip(refined, baseline, strict=True))

    check()


def _variance(phy2log: list[int], weight: list[float], num_ranks: int) -> float:
    load = reference.rank_load(phy2log, weight, num_ranks)
    mean = sum(load) / num_ranks
    return sum((rank - mean) ** 2 for rank in load) / num_ranks


def _spread(phy2log: list[int], weight: list[float], num_ranks: int) -> float:
    load = reference.rank_load(phy2log, weight, num_ranks)
    return max(load) - min(load)


@pytest.mark.parametrize(("name", "objective"), [("restarts", _variance), ("multistart", _spread)])
def test_the_best_start_is_kept_by_the_policys_own_measure(name: str, objective: object) -> None:
    """Variance, or spread, of rank loads is never larger than under greedy packing alone."""
    (row,) = [row for row in ROWS if row.name == name]
    assert callable(objective)

    @settings(deadline=None, max_examples=8)
    @given(_global_instances())
    def check(instance: Instance) -> None:
        weights, num_ranks = instance.load.total().tolist(), instance.topology.num_ranks
        kept, greedy = (place(r, instance).phy2log.tolist() for r in (row, DEEPSEEK))
        for layer, weight in enumerate(weights):
            worst = objective(greedy[layer], weight, num_ranks)
            slack = 1e-9 * (1 + worst) + 1e-12 * sum(weight) ** 2
            assert objective(kept[layer], weight, num_ranks) <= worst + slack

    check()


@pytest.mark.parametrize("name", ["restarts", "multistart"])
def test_an_evener_packing_may_have_a_heavier_heaviest_rank(name: str) -> None:
    """Of many draws on this load some keep a start whose heaviest rank is above DeepSeek's."""
    load = ExpertLoad.from_weight(torch.tensor([[482, 667, 141, 454, 817]]).repeat(64, 1))
    topology = Topology(num_nodes=1, num_ranks=3, num_slots=9)

    greedy, kept = (solve(load, topology, policy=p).balance for p in ("deepseek", name))

    assert kept.minimum < greedy.minimum - 0.005


def test_more_starts_are_never_worse() -> None:
    """By its own measure a restart more can only help: the first ones are the same."""
    instance = instances.adversarial()["skewed"]
    one = dataclasses.replace(instance, load=ExpertLoad(instance.load.samples[:, :1]))
    weight = one.load.total()[0].tolist()
    variances = [
        _variance(
            solve(
                one.load,
                one.topology,
                mode=Mode.GLOBAL,
                policy=RestartsPolicy(RestartsParams(num_starts=num_starts)),
            )
            .placement.phy2log[0]
            .tolist(),
            weight,
            4,
        )
        for num_starts in (1, 2, 5, 9)
    ]

    assert variances == sorted(variances, reverse=True)


@pytest.mark.parametrize("row", AVOIDING, ids=str)
@every_instance
def test_no_rank_holds_an_expert_twice_while_that_can_be(row: Row, name: str) -> None:
    """Slots repeat an expert on a rank only where a rank has more slots than it has experts."""
    _assert_no_duplicates(row, instances.adversarial()[name])


@pytest.mark.parametrize("row", AVOIDING, ids=str)
def test_no_small_instance_makes_it_hold_one_twice(row: Row) -> None:
    """The same holds for whatever hypothesis comes up with, in every mode."""

    @settings(deadline=None, max_examples=100)
    @given(instances.instances())
    def check(instance: Instance) -> None:
        _assert_no_duplicates(row, instance)

    check()


def _assert_no_duplicates(row: Row, instance: Instance) -> None:
    topology, num_experts = instance.topology, instance.load.num_logical_experts
    num_nodes = topology.num_nodes if instance.mode.is_by_node else 1
    if topology.slots_per_rank > num_experts // num_nodes:
        return  # more slots on a rank than experts to put there
    for phy2log in place(row, instance).phy2log.tolist():
        assert reference.num_duplicates(phy2log, topology.slots_per_rank) == 0


@pytest.mark.parametrize(
    ("weight", "topology", "by_hand"),
    [
        pytest.param([[6, 2, 1]], (2, 4), [[0, 1, 0, 2]], id="a half of 6 to each"),
        pytest.param([[9, 1, 1, 1]], (2, 6), [[0, 2, 1, 0, 3, 1]], id="at most one 9 a rank"),
        pytest.param([[5, 4, 3, 2]], (2, 4), [[0, 3, 1, 2]], id="without redundancy"),
        pytest.param([[1, 2]], (2, 2), [[1, 0]], id="one slot a rank, heaviest first"),
    ],
)
def test_a_balanced_plan_can_be_worked_out_by_hand(
    weight: list[list[int]], topology: tuple[int, int], by_hand: list[list[int]]
) -> None:
    """Small loads on two ranks, slot by slot."""
    num_ranks, num_slots = topology
    plan = solve(
        ExpertLoad.from_weight(torch.tensor(weight)),
        Topology(num_nodes=1, num_ranks=num_ranks, num_slots=num_slots),
        policy=BalancedPolicy(),
    )

    assert plan.placement.phy2log.tolist() == by_hand


@pytest.mark.parametrize("row", [r for r in ROWS if r.is_exact], ids=str)
def test_one_token_in_many_is_not_rounded_away(row: Row) -> None:
    """Of two experts the second is heavier by one token in 2^30, and gets the third slot."""
    load = ExpertLoad.from_weight(torch.tensor([[2**30, 2**30 + 1]]))
    topology = Topology(num_nodes=1, num_ranks=1, num_slots=3)

    logcnt = solve(load, topology, policy=row.make()).placement.logcnt()

    assert logcnt.tolist() == [[1, 2]]


def _replica_peak(weight: Tensor, logcnt: Tensor) -> float:
    return float((weight / logcnt).max())


def test_the_bound_on_copies_costs_only_what_it_must() -> None:
    """With 1000 and four others of 1 on three ranks, 1000 is on each of them, and only once."""
    weight = torch.tensor([[1000.0, 1.0, 1.0, 1.0, 1.0]])
    topology = Topology(num_nodes=1, num_ranks=3, num_slots=9)

    placement = solve(ExpertLoad.from_weight(weight), topology, policy="balanced").placement

    assert placement.logcnt()[0, 0] == 3
    assert _replica_peak(weight, placement.logcnt()) == pytest.approx(1000 / 3)
    assert placement.num_duplicates().tolist() == [0]
