"""Over all layers: where a budget goes, and when a search stops."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner import MoveBudget, Placement, Topology
from expertplane_planner.forecast import Prediction
from expertplane_planner.kernels.improving import improve_by_risk
from expertplane_planner.migration import search
from expertplane_planner.migration.search import (
    Effort,
    SearchTask,
    Terrain,
    search_all,
    search_moves,
)


def _effort(**changes: Any) -> Effort:
    return Effort(**{"risk": 1.0, "max_steps": 64, "max_count": 4, "tolerance": 1e-6, **changes})


class Case:
    """A random load on four ranks of three slots, and a placement made without it."""

    def __init__(
        self, seed: int, num_layers: int = 3, num_experts: int = 9, num_ranks: int = 4
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.topology = Topology(num_nodes=1, num_ranks=num_ranks, num_slots=3 * num_ranks)
        skew = torch.randn(num_layers, num_experts, generator=generator, dtype=torch.float64)
        size = torch.rand(num_layers, 1, generator=generator, dtype=torch.float64) * 1000 + 10
        tokens = torch.poisson((skew.exp() * size).expand(6, -1, -1), generator=generator)
        self.prediction = Prediction.from_samples(tokens)
        self.terrain = Terrain.of(self.prediction, self.topology, None)
        self.start = Placement.initial(num_layers, num_experts, self.topology).phy2log

    def search(self, budget: MoveBudget, **effort: Any) -> torch.Tensor:
        """Return the placement found from the start."""
        return search_moves(self.terrain, self.start, self.start, budget, _effort(**effort))

    def total(self, phy2log: torch.Tensor) -> float:
        """Return the sum of the peaks of all layers, in tokens."""
        return float(self.terrain.peaks(phy2log, 1.0).sum())

    def moved(self, phy2log: torch.Tensor) -> torch.Tensor:
        """Return the moved slots of each layer."""
        num_experts = self.terrain.mean.shape[1]
        new, old = (Placement(m, num_experts, self.topology) for m in (phy2log, self.start))
        return new.moved_slots(old)

    def prefixes(self) -> list[list[tuple[int, float]]]:
        """Return (moved slots, peak in tokens) of each layer after each number of steps."""
        after = [self.search(MoveBudget(), max_steps=n) for n in range(65)]
        table: list[list[tuple[int, float]]] = [[] for _ in self.start]
        for phy2log in after:
            peaks, moved = self.terrain.peaks(phy2log, 1.0).tolist(), self.moved(phy2log).tolist()
            for layer, pair in enumerate(zip(moved, peaks, strict=True)):
                if pair not in table[layer]:
                    table[layer].append(pair)
        return table


def _two_layers() -> tuple[Terrain, torch.Tensor]:
    """Return layers of 10 9 | 2 1 and 100 60 | 20 10 tokens, nothing uncertain.

    Swapping 9 for 1 gains 8, 4 for a slot; swapping 60 for 10 gains 50, 25 for a slot.
    """
    tokens = torch.tensor([[10.0, 9.0, 2.0, 1.0], [100.0, 60.0, 20.0, 10.0]], dtype=torch.float64)
    total = tokens.sum(dim=1, keepdim=True)
    prediction = Prediction(
        tokens / total, torch.zeros(2, 4, 4, dtype=torch.float64), total.flatten()
    )
    topology = Topology(num_nodes=1, num_ranks=2, num_slots=4)
    return Terrain.of(prediction, topology, None), torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])


@pytest.mark.parametrize(
    ("total", "peaks"),
    [(0, [19, 160]), (1, [19, 160]), (2, [19, 110]), (3, [19, 110]), (4, [11, 110])],
)
def test_a_total_goes_where_it_gains_most_tokens(total: int, peaks: list[int]) -> None:
    """Two slots save 50 tokens in the second layer, 8 in the first, which is more of its load."""
    terrain, start = _two_layers()
    result = search_moves(terrain, start, start, MoveBudget(total_slots=total), _effort())

    assert terrain.peaks(result, 0.0).tolist() == pytest.approx(peaks)


def test_the_peaks_are_those_of_the_placement_in_tokens() -> None:
    """Ranks 10 9 | 2 1 and 100 60 | 20 10 have peaks of 19 and 160 tokens."""
    terrain, start = _two_layers()

    assert terrain.peaks(start, 0.0).tolist() == pytest.approx([19.0, 160.0])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(0, 12))
def test_budgets_hold(seed: int, limit: int) -> None:
    """Moved slots stay within the limit of a layer, and within the total."""
    case = Case(seed)

    assert (case.moved(case.search(MoveBudget(slots_per_layer=limit))) <= limit).all()
    assert case.moved(case.search(MoveBudget(total_slots=limit))).sum() <= limit
    both = case.moved(case.search(MoveBudget(slots_per_layer=2, total_slots=limit)))
    assert both.sum() <= limit
    assert both.max() <= 2


def test_no_limit_exceeds_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget beyond int32, in which kernels for CUDA count, reaches them as all slots."""
    limits = []

    def noting(*tensors: Any, bounds: Any, **rest: Any) -> Any:
        limits.extend(bounds.max_moved.tolist())
        return improve_by_risk(*tensors, bounds=bounds, **rest)

    monkeypatch.setattr(search, "improve_by_risk", noting)
    terrain, start = _two_layers()
    search_moves(terrain, start, start, MoveBudget(slots_per_layer=2**40), _effort())

    assert limits == [4, 4]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 4))
def test_a_total_is_spent_no_worse_than_evenly(seed: int, num_layers: int, per_layer: int) -> None:
    """A total saves at least the tokens that the same slots save as a limit for each layer."""
    case = Case(seed, num_layers)
    evenly = case.search(MoveBudget(slots_per_layer=per_layer))
    freely = case.search(MoveBudget(total_slots=per_layer * num_layers))

    assert case.total(freely) <= case.total(evenly) * (1 + 1e-9)


def test_a_total_is_spent_nearly_as_well_as_can_be() -> None:
    """Over many loads, 95 % of what the best choice of steps of one long search saves is saved."""
    saved = best = 0.0
    for seed, total in itertools.product(range(12), (2, 3, 5, 8)):
        case = Case(seed, 2)
        start = case.total(case.start)
        least = min(
            sum(peak for _, peak in choice)
            for choice in itertools.product(*case.prefixes())
            if sum(moved for moved, _ in choice) <= total
        )
        spent = case.total(case.search(MoveBudget(total_slots=total)))
        saved, best = saved + (start - spent) / start, best + (start - least) / start

    assert saved >= 0.95 * best


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31))
def test_a_total_lies_between_standing_still_and_going_all_the_way(seed: int) -> None:
    """No total is worse than the start, and one that is not reached binds nothing."""
    case = Case(seed)
    totals = [case.total(case.search(MoveBudget(total_slots=n))) for n in range(0, 19, 2)]
    freely = case.search(MoveBudget())
    unreached = MoveBudget(total_slots=case.start.numel())

    assert totals[0] == case.total(case.start)
    assert max(totals) <= totals[0] * (1 + 1e-9)
    assert case.total(case.search(unreached)) <= case.total(freely) * (1 + 1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 6, 7, 8])  # of 5, rounding breaks a tie
def test_a_search_in_parts_is_the_search_in_one(seed: int) -> None:
    """With a deadline far away the search stops to look at the clock, and takes the same steps."""
    case = Case(seed, num_experts=30, num_ranks=12)
    far = time.perf_counter() + 3600.0

    for budget in (MoveBudget(), MoveBudget(slots_per_layer=20), MoveBudget(total_slots=40)):
        assert torch.equal(case.search(budget), case.search(budget, deadline_s=far))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.none() | st.integers(0, 9))
def test_a_deadline_that_has_passed_still_gives_a_placement(seed: int, total: int | None) -> None:
    """It is valid, within the budget, and no layer is worse than at the start."""
    case = Case(seed, num_experts=30, num_ranks=12)
    result = case.search(MoveBudget(total_slots=total), deadline_s=0.0)

    assert total is None or case.moved(result).sum() <= total
    before, after = (case.terrain.peaks(m, 1.0) for m in (case.start, result))
    assert (after <= before * (1 + 1e-9)).all()


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_steps_are_bounded(steps: int) -> None:
    """Each layer takes so many steps at most, each of which changes two slots at most."""
    case = Case(0)

    for deadline_s in (None, time.perf_counter() + 3600.0):
        result = case.search(MoveBudget(), max_steps=steps, deadline_s=deadline_s)
        assert (case.moved(result) <= 2 * steps).all()


def test_the_search_is_deterministic_and_mutates_nothing() -> None:
    """Twice the same, and the start as it was."""
    case = Case(3)
    before = case.start.clone()

    assert torch.equal(case.search(MoveBudget()), case.search(MoveBudget()))
    assert torch.equal(case.start, before)


def test_what_repair_moved_counts_against_the_total() -> None:
    """With two slots moved before the first step, a total of three has no room for a swap."""
    terrain, start = _two_layers()
    origin = torch.tensor([[-1, -1, 2, 3], [0, 1, 2, 3]])
    for total, peak in ((0, 160), (3, 160), (4, 110)):
        result = search_moves(terrain, start, origin, MoveBudget(total_slots=total), _effort())
        assert terrain.peaks(result, 0.0).tolist()[1] == pytest.approx(peak)


def test_a_layer_without_tokens_costs_no_budget() -> None:
    """A layer that had load in the past and none now is worth nothing, and gets nothing."""
    terrain, start = _two_layers()
    idle = Prediction(
        terrain.mean,
        terrain.covariance,
        torch.tensor([22.0, 0.0], dtype=torch.float64),
    )
    topology = Topology(num_nodes=1, num_ranks=2, num_slots=4)
    terrain = Terrain.of(idle, topology, None)
    # The way back to the origin is free in the layer without load, and its gain in tokens is 0.
    origin = torch.tensor([[0, 1, 2, 3], [0, 2, 1, 3]])
    result = search_moves(terrain, start, origin, MoveBudget(total_slots=4), _effort())

    assert terrain.peaks(result, 0.0).tolist() == pytest.approx([11.0, 0.0])


def _mixture() -> list[SearchTask]:
    """Return tasks of two shapes, several budgets, prices and efforts; two look at the clock."""
    far = time.perf_counter() + 3600.0
    small = [Case(seed, num_layers) for seed, num_layers in ((0, 3), (1, 1), (2, 2), (3, 3))]
    large = [Case(seed, num_experts=30, num_ranks=12) for seed in (4, 6)]
    chosen: list[tuple[Case, MoveBudget, dict[str, Any]]] = [
        (small[0], MoveBudget(), {}),
        (large[0], MoveBudget(total_slots=30), {}),
        (small[1], MoveBudget(slots_per_layer=3), {"price": 0.05}),
        (small[2], MoveBudget(total_slots=5), {}),
        (small[0], MoveBudget(slots_per_layer=4, total_slots=6), {}),
        (small[3], MoveBudget(), {"risk": 0.0}),
        (small[3], MoveBudget(total_slots=0), {}),
        (small[3], MoveBudget(), {"max_steps": 2}),
        (large[1], MoveBudget(), {"deadline_s": far}),
        (large[1], MoveBudget(total_slots=40), {"deadline_s": far}),
    ]
    return [
        SearchTask(case.terrain, case.start, case.start.roll(number % 2, dims=1), budget, effort)
        for number, (case, budget, changes) in enumerate(chosen)
        for effort in (_effort(**changes),)
    ]


def test_tasks_are_searched_together_as_each_is_alone() -> None:
    """Whatever is searched in the same launch, the result of each task is the same."""
    tasks = _mixture()
    together = search_all(tasks)
    alone = [search_moves(t.terrain, t.start, t.origin, t.budget, t.effort) for t in tasks]

    assert search_all([]) == []
    for number, (mine, theirs) in enumerate(zip(together, alone, strict=True)):
        assert torch.equal(mine, theirs), number
    assert sum(not torch.equal(new, t.start) for new, t in zip(together, tasks, strict=True)) > 7


def test_tasks_of_one_kind_share_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers, budgets and prices may differ; other machines and efforts are searched apart."""
    launches = []

    def improve(*tensors: torch.Tensor, **options: Any) -> Any:
        launches.append(len(tensors[-1]))
        return improve_by_risk(*tensors, **options)

    monkeypatch.setattr(search, "improve_by_risk", improve)
    tasks = _mixture()
    # 3 layers, 1, 2 under two limits, 3 under two limits, and 3 under two limits.
    search_all([task for task in tasks if task.effort.deadline_s is None])
    assert sorted(launches) == [3, 3, 6, 3 + 1 + 2 * 2 + 3 * 2 + 3 * 2]

    slow = Topology(num_nodes=1, num_ranks=4, num_slots=12, rank_capacities=(1.0, 1.0, 1.0, 0.5))
    case = Case(0)
    uneven = Terrain.of(case.prediction, slow, None)
    terrains = [case.terrain, uneven, case.terrain, uneven]
    launches.clear()
    search_all([SearchTask(t, case.start, case.start, MoveBudget(), _effort()) for t in terrains])
    assert launches == [6, 6]
