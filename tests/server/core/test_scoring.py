"""Rank loads, balance and fetched slots, against loops that are slow and plain."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from expertplane_server.core import scoring
from expertplane_server.core.spec import TopologySpec

from .. import builders


Case = tuple[np.ndarray[Any, Any], tuple[np.ndarray[Any, Any], ...], TopologySpec]


def slow_loads(phy2log: Any, samples: Any, topology: TopologySpec) -> list[list[list[float]]]:
    """Return the load of every rank that is not masked, slot by slot."""
    result = []
    for sample in samples:
        layers = []
        for row, tokens in zip(phy2log.tolist(), sample.tolist(), strict=True):
            ranks = [0.0] * topology.num_ranks
            for slot, expert in enumerate(row):
                if expert >= 0:
                    ranks[slot // topology.slots_per_rank] += tokens[expert] / row.count(expert)
            if topology.rank_capacities:
                pairs = zip(ranks, topology.rank_capacities, strict=True)
                ranks = [load / capacity for load, capacity in pairs]
            layers.append([ranks[rank] for rank in topology.active_ranks])
        result.append(layers)
    return result


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Return a placement, samples (some layers idle), and ranks with masks and capacities."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_ranks, slots_per_rank = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    masked = draw(st.sets(st.integers(0, num_ranks - 1), max_size=num_ranks - 1))
    has_capacities = draw(st.booleans())
    capacities = tuple(rng.choice([0.5, 1.0, 2.0], num_ranks).tolist()) if has_capacities else ()
    topology = builders.topology(
        ranks_per_node=num_ranks,
        slots_per_rank=slots_per_rank,
        masked_ranks=tuple(sorted(masked)),
        rank_capacities=capacities,
    )
    num_experts = draw(st.integers(1, topology.num_active_slots))
    num_layers = draw(st.integers(1, 3))
    rows = []
    for _ in range(num_layers):
        packs = np.full((num_ranks, slots_per_rank), -1, dtype=np.int32)
        experts = rng.permutation(np.arange(topology.num_active_slots) % num_experts)
        packs[list(topology.active_ranks)] = experts.reshape(-1, slots_per_rank)
        rows.append(packs.reshape(-1))
    samples = rng.integers(0, 50, (draw(st.integers(1, 5)), num_layers, num_experts)).astype(float)
    samples[:, rng.random(num_layers) < 0.3] = 0.0
    return np.stack(rows), tuple(samples), topology


@settings(max_examples=200, deadline=None)
@given(cases())
def test_rank_loads(case: Case) -> None:
    """Replicas share an expert's tokens evenly; masked ranks are left out, capacities divide."""
    np.testing.assert_allclose(scoring.rank_loads(*case), slow_loads(*case), atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_summed_maximum(case: Case) -> None:
    """What a step waits for: the most loaded rank, summed over layers and samples."""
    slow = sum(max(ranks) for layers in slow_loads(*case) for ranks in layers)

    assert scoring.summed_maximum(*case) == pytest.approx(slow)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_balance(case: Case) -> None:
    """Mean over maximum, by layer and over all; layers without load count 1 and weigh nothing."""
    _, samples, topology = case
    loads = slow_loads(*case)
    capacities = topology.rank_capacities or (1.0,) * topology.num_ranks
    total_capacity = sum(capacities[rank] for rank in topology.active_ranks)
    means, maxima = [], []
    for layer in range(len(case[0])):
        tokens = sum(float(sample[layer].sum()) for sample in samples)
        means.append(tokens / total_capacity)
        maxima.append(sum(max(sample[layer]) for sample in loads))
    ratios = [mean / most if most > 0 else 1.0 for mean, most in zip(means, maxima, strict=True)]
    found = scoring.balance(*case)

    assert found.per_layer == pytest.approx(ratios)
    assert (found.mean, found.minimum) == pytest.approx((sum(ratios) / len(ratios), min(ratios)))
    overall = sum(means) / sum(maxima) if sum(maxima) else 1.0
    assert found.balancedness == pytest.approx(overall)


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_fetched_slots(case: Case, seed: int) -> None:
    """A rank fetches what it holds more of than before, whatever slot it is in."""
    before, _, topology = case
    rng = np.random.default_rng(seed)
    after = np.stack([rng.permutation(row) for row in before])
    found = scoring.fetched_slots(before, after, topology.num_ranks)

    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        for rank in range(topology.num_ranks):
            own = slice(rank * topology.slots_per_rank, (rank + 1) * topology.slots_per_rank)
            had, has = (Counter(row[own][row[own] >= 0].tolist()) for row in (old, new))
            assert found[layer, rank] == (has - had).total()


def test_fetched_slots_of_an_empty_placement() -> None:
    """Where nothing was held, everything is fetched; where nothing will be, nothing."""
    nothing, all_slots = np.full((1, 4), -1), np.array([[0, 1, 2, 3]])

    assert scoring.fetched_slots(nothing, all_slots, 2).tolist() == [[2, 2]]
    assert scoring.fetched_slots(all_slots, nothing, 2).tolist() == [[0, 0]]


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many samples every k-th is looked at, the first among them."""
    monkeypatch.setattr(scoring, "_MAX_ENTRIES", 16)
    phy2log = np.array([[0, 1, 2, 3]], dtype=np.int32)
    samples = tuple(np.full((1, 4), float(number)) for number in range(10))
    topology = builders.topology()

    loads = scoring.rank_loads(phy2log, samples, topology)
    assert loads[:, 0, 0].tolist() == [0.0, 6.0, 12.0, 18.0]
    monkeypatch.setattr(scoring, "_MAX_ENTRIES", 1)
    assert scoring.rank_loads(phy2log, samples, topology).shape == (1, 1, 2)


def test_largest_window_is_bounded() -> None:
    """A window of the largest placements is scored on few enough of its samples."""
    num_layers, num_slots = 58, 4096
    topology = builders.topology(ranks_per_node=64, slots_per_rank=64)
    phy2log = np.tile(np.arange(num_slots, dtype=np.int32) % 256, (num_layers, 1))
    sample = np.ones((num_layers, 256))

    loads = scoring.rank_loads(phy2log, (sample,) * 64, topology)
    assert 1 <= len(loads) <= scoring._MAX_ENTRIES // (num_layers * num_slots)
