"""The risk-aware packing: both legs against each other and against every pack from scratch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from expertplane_planner.kernels import numba_risk, torch_risk

from ...support import reference_risk
from .legs import interprets_triton, packing_leg


LEGS = (numba_risk.pack_by_risk, torch_risk.pack_by_risk)


class Case:
    """One layer and its rows; arithmetic is exact, so that only rules can differ, not rounding."""

    def __init__(
        self,
        factors: list[list[int]],
        mean: list[int],
        rows: list[list[int]],
        risk: int,
        slowness: list[float],
    ) -> None:
        # Whole loads and covariances, powers of two as replica counts and slowness.
        matrix = torch.tensor(factors, dtype=torch.float64)
        self.covariance = matrix @ matrix.T
        self.mean = torch.tensor(mean, dtype=torch.float64)
        self.rows = rows
        self.counts = [sum(row.count(e) for row in rows) or 1 for e in range(len(mean))]
        self.risk = float(risk)
        self.slowness = slowness

    def by(self, leg: Any, order: list[list[int]], **search: Any) -> list[Any]:
        """Return the rows as a leg packs them."""
        packed, _ = leg(
            self.mean.unsqueeze(0),
            self.covariance.unsqueeze(0),
            torch.tensor([self.counts], dtype=torch.float64).reciprocal(),
            torch.tensor(self.rows),
            torch.tensor(order),
            torch.tensor([self.slowness] * len(order), dtype=torch.float64),
            torch.full((len(order),), self.risk, dtype=torch.float64),
            risk=self.risk,
            **search,
        )
        return list(packed.tolist())

    def from_scratch(self, order: list[list[int]], **search: Any) -> list[list[int]]:
        """Return the rows as the slow reference packs them."""
        experts = reference_risk.Experts(
            self.mean.tolist(), self.covariance.tolist(), self.counts, self.risk, self.slowness
        )
        weights = [[-float(places.index(i)) for i in range(len(places))] for places in order]
        return [
            reference_risk.pack_by_risk(experts, row, weight, len(self.slowness), **search)
            for row, weight in zip(self.rows, weights, strict=True)
        ]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Case, list[list[int]]]:
    """Draw a layer, its packs and the order of its items; many ties, many stuck items."""
    num_packs = draw(st.sampled_from([2, 3, 4]))
    capacity = draw(st.integers(1, 4))
    num_items = num_packs * capacity
    counts: list[int] = []
    while sum(counts) < num_items:
        most = min(num_packs, num_items - sum(counts))
        counts.append(draw(st.sampled_from([c for c in (1, 2, 4) if c <= most])))
    row = [e for e, count in enumerate(counts) for _ in range(count)]
    small = st.integers(0, 4)
    factors = [draw(st.lists(small, min_size=2, max_size=2)) for _ in counts]
    mean = [4 * draw(st.integers(0, 9)) for _ in counts]
    order = [draw(st.permutations(range(num_items)))]
    equal = st.just([1.0] * num_packs)
    powers = st.sampled_from([0.25, 0.5, 1.0, 2.0])
    slowness = draw(equal | st.lists(powers, min_size=num_packs, max_size=num_packs))
    return Case(factors, mean, [row], draw(st.sampled_from([0, 1, 2])), slowness), order


@pytest.mark.parametrize(
    ("leg_name", "max_examples"),
    [
        ("numba_risk", 120),
        ("torch_risk", 120),
        pytest.param("triton_gpu", 40, marks=interprets_triton),
    ],
)
def test_each_leg_equals_judging_every_pack_from_scratch(leg_name: str, max_examples: int) -> None:
    """Greedy choices, rescues and swaps are those of the reference, ties and all."""

    @settings(deadline=None, max_examples=max_examples)
    @given(cases())
    def check(drawn: tuple[Case, list[list[int]]]) -> None:
        case, order = drawn
        search = {"max_swaps": 20, "tolerance": 1e-9}
        assert case.by(leg.pack_by_risk, order, **search) == case.from_scratch(order, **search)

    with packing_leg(leg_name) as leg:
        check()


def _random(seed: int, *, num_layers: int = 3, nodes: int = 1) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.rand(40, num_layers, 24, generator=generator, dtype=torch.float64) ** 3
    samples /= samples.sum(dim=-1, keepdim=True)
    error = samples - samples.mean(dim=0)
    covariance = torch.einsum("kle,klf->lef", error, error) / 40
    expert = torch.cat([torch.arange(24), torch.arange(0, 24, 2)]).expand(num_layers, -1)
    expert = expert.reshape(num_layers * nodes, -1)
    share = torch.where(torch.arange(24) % 2 == 0, 0.5, 1.0).double().expand(num_layers, -1)
    weight = torch.rand(expert.shape, generator=generator)
    return samples.mean(dim=0), covariance, share, expert, weight.argsort(dim=1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("is_even", [True, False], ids=["even", "uneven"])
def test_both_legs_agree_to_the_bit(
    seed: int, dtype: torch.dtype, nodes: int, is_even: bool
) -> None:
    """Compiled loops and torch operations round alike, step by step, and pick the same swaps."""
    mean, covariance, share, expert, order = _random(seed, nodes=nodes)
    slowness = torch.ones(len(expert), 3, dtype=torch.float64)
    if not is_even:
        slowness += torch.rand(slowness.shape, generator=torch.Generator().manual_seed(seed))

    numba, torch_ops = (
        leg(
            mean,
            covariance.to(dtype),
            share,
            expert,
            order,
            slowness,
            torch.full((len(expert),), 2.5, dtype=torch.float64),
            risk=2.5,
            max_swaps=60,
            tolerance=1e-6,
        )
        for leg in LEGS
    )

    assert torch.equal(numba[0], torch_ops[0])
    # Square roots of torch may miss the nearest number by one, on CPUs with MKL.
    torch.testing.assert_close(numba[1], torch_ops[1], rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("seed", range(4))
def test_swaps_never_raise_the_worst_pack(seed: int) -> None:
    """More swaps, a lower or equal worst pack of four that are not equal, from scratch."""
    mean, covariance, share, expert, order = _random(seed, num_layers=1)
    counts = share[0].reciprocal().long().tolist()
    slowness = [0.7, 1.0, 1.9, 1.0]
    judge = reference_risk.Experts(mean[0].tolist(), covariance[0].tolist(), counts, 2.0, slowness)
    worst = []
    for max_swaps in (0, 1, 2, 5, 40):
        held, _ = numba_risk.pack_by_risk(
            mean,
            covariance,
            share,
            expert,
            order,
            torch.tensor([slowness], dtype=torch.float64),
            torch.full((1,), 2.0, dtype=torch.float64),
            risk=2.0,
            max_swaps=max_swaps,
            tolerance=1e-9,
        )
        packs = held.view(4, -1).tolist()
        worst.append(max(judge.value(pack, p) for p, pack in enumerate(packs)))

    assert all(b <= a + 1e-12 for a, b in zip(worst, worst[1:], strict=False))
    assert worst[-1] < worst[0]


def test_uncertain_experts_are_kept_apart() -> None:
    """Two experts that swing together go to different packs, though their means say otherwise."""
    # Experts 0 and 1 rise and fall together; by the mean, pairs (0, 1) and (2, 3) are as good.
    case = Case([[4], [4], [0], [0]], [8, 8, 8, 8], [[0, 1, 2, 3]], 2, [1.0, 1.0])

    for leg in LEGS:
        ((a, b, c, d),) = case.by(leg, [[2, 3, 0, 1]], max_swaps=9, tolerance=0.0)
        assert {frozenset((a, b)), frozenset((c, d))} in (
            {frozenset((0, 2)), frozenset((1, 3))},
            {frozenset((0, 3)), frozenset((1, 2))},
        )


def test_a_pack_half_as_fast_gets_half_as_much() -> None:
    """Experts of 6 5 5 4 2 2 tokens: 4 2 2 for the pack that takes twice as long."""
    case = Case([[0]] * 6, [6, 5, 5, 4, 2, 2], [[0, 1, 2, 3, 4, 5]], 0, [2.0, 1.0])

    for leg in LEGS:
        (held,) = case.by(leg, [[0, 1, 2, 3, 4, 5]], max_swaps=9, tolerance=0.0)
        assert sorted(held[:3]) == [3, 4, 5]
