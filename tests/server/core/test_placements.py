"""What a placement must hold, and what engines do not take."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.parameters import PlacementRules
from expertplane_server.core.placements import (
    check_placement,
    check_rules,
    experts_held,
    masked_slots,
    start_placement,
    without_masked,
)
from expertplane_server.core.spec import VLLM_ASCEND, DeploymentSpec

from .. import builders


WIDE = builders.topology(slots_per_rank=4, masked_ranks=(0,))


def refusal_of(phy2log: list[list[int]], spec: DeploymentSpec, **how: Any) -> str:
    """Return what a map is refused with; empty when it is not."""
    try:
        check_placement(np.array(phy2log), spec, "phy2log", **how)
    except InvalidArgumentError as error:
        return error.message if error.field == "phy2log" else f"names {error.field}"
    return ""


def breach_of(phy2log: list[int], before: list[int], spec: DeploymentSpec) -> str:
    """Return the rule that a placement breaks; empty when it breaks none."""
    try:
        check_rules(np.array([phy2log]), np.array([before]), spec, "phy2log")
    except InvalidArgumentError as error:
        is_named = (error.field, error.reason) == ("phy2log", "ENGINE_RULE")
        return error.message if is_named else f"names {error.field}, {error.reason}"
    return ""


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.data())
@settings(max_examples=100, deadline=None)
def test_start_placement(num_layers: int, num_ranks: int, slots: int, data: st.DataObject) -> None:
    """Slot p of the ranks that are not masked holds expert p mod E, which is a placement."""
    masked = data.draw(st.sets(st.integers(0, num_ranks - 1), max_size=num_ranks - 1))
    topology = builders.topology(
        ranks_per_node=num_ranks, slots_per_rank=slots, masked_ranks=tuple(sorted(masked))
    )
    num_experts = data.draw(st.integers(1, topology.num_active_slots))
    spec = builders.spec(
        layer_ids=tuple(range(num_layers)), num_logical_experts=num_experts, topology=topology
    )
    start = start_placement(spec)

    assert (start.shape, start.dtype) == (spec.map_shape, np.int32)
    check_placement(start, spec, "start")
    for row in start.tolist():
        active = [expert for slot, expert in enumerate(row) if slot // slots not in masked]
        assert active == [slot % num_experts for slot in range(len(active))]


@pytest.mark.parametrize(
    ("phy2log", "message"),
    [
        ([[0, 1, 2, 3]], ""),
        ([[0, 1, 2]], "Expected shape [1, 4], got [1, 3]."),
        ([[0, 1, 2, 3]] * 2, "Expected shape [1, 4], got [2, 4]."),
        ([[0, 1, 2, 4]], "Expected logical experts from 0 to 3, got 0 to 4."),
        ([[0, 1, 2, -1]], "Expected logical experts from 0 to 3, got -1 to 2."),
        ([[0, 0, 2, 3]], "Expected a slot for every logical expert, got none for 1 in layer 0."),
    ],
)
def test_check_placement(phy2log: list[list[int]], message: str) -> None:
    """A placement has the deployment's shape and a slot for every expert, and no strangers."""
    assert refusal_of(phy2log, builders.spec()) == message


@pytest.mark.parametrize(
    ("phy2log", "may_fill_masked", "message"),
    [
        ([[-1, -1, -1, -1, 0, 1, 2, 3]], False, ""),
        ([[-1, -1, -1, -1, 0, 1, 2, 3]], True, ""),
        ([[0, 1, 2, 3, 0, 1, 2, 3]], True, ""),
        (
            [[-1, -1, 3, -1, 0, 1, 2, 3]],
            False,
            "Expected -1 in slots of masked ranks, got another in layer 0, slot 2.",
        ),
        (
            [[-1, -1, -1, -1, 0, 1, 2, -1]],
            False,
            "Expected logical experts from 0 to 3, got -1 to 2.",
        ),
        (
            [[-2, -1, -1, -1, 0, 1, 2, 3]],
            True,
            "Expected logical experts from 0 to 3, got -2 to 3.",
        ),
    ],
)
def test_masked_slots(phy2log: list[list[int]], may_fill_masked: bool, message: str) -> None:
    """Slots of masked ranks hold -1, or what they held before where that is allowed."""
    spec = builders.spec(topology=WIDE)

    assert refusal_of(phy2log, spec, may_fill_masked=may_fill_masked) == message


def test_without_masked() -> None:
    """What masked ranks held is left out, and nothing else."""
    phy2log = np.arange(8, dtype=np.int32)[None, :]

    assert masked_slots(WIDE).tolist() == [True] * 4 + [False] * 4
    assert without_masked(phy2log, WIDE).tolist() == [[-1, -1, -1, -1, 4, 5, 6, 7]]
    assert without_masked(phy2log, WIDE).dtype == np.int32


@given(st.lists(st.lists(st.integers(-1, 4), min_size=6, max_size=6), min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_experts_held(rows: list[list[int]]) -> None:
    """An expert is held where a slot names it; -1 names none."""
    held = experts_held(np.array(rows), 5)

    assert held.tolist() == [[expert in row for expert in range(5)] for row in rows]


SIX = builders.topology(slots_per_rank=3)


@pytest.mark.parametrize(
    ("rules", "phy2log", "message"),
    [
        ({}, [0, 0, 0, 1, 2, 3], ""),
        ({"max_replicas": 3}, [0, 0, 0, 1, 2, 3], ""),
        (
            {"max_replicas": 2},
            [0, 0, 0, 1, 2, 3],
            "Expected at most 2 replicas of an expert, got 3 of 0 in layer 0.",
        ),
        ({"forbids_duplicates": True}, [0, 1, 2, 3, 0, 1], ""),
        (
            {"forbids_duplicates": True},
            [0, 1, 2, 3, 0, 3],
            "Expected one replica of an expert on a rank, got two of 3 on rank 1 in layer 0.",
        ),
        ({"forbids_moves_inside_rank": True}, [0, 1, 3, 2, 0, 1], ""),
        (
            {"forbids_moves_inside_rank": True},
            [1, 0, 2, 3, 0, 1],
            "Expected experts to keep their slot on a rank, got 1 in another one on rank 0 in "
            "layer 0.",
        ),
    ],
)
def test_rules(rules: dict[str, Any], phy2log: list[int], message: str) -> None:
    """Duplicates, replicas and moves inside a rank are refused where they are forbidden."""
    spec = builders.spec(topology=SIX, rules=PlacementRules(**rules))

    assert breach_of(phy2log, [0, 1, 2, 3, 0, 1], spec) == message


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_moves_inside_a_rank(seed: int) -> None:
    """The first slot is named whose expert its rank held elsewhere, as a slow search finds it."""
    rng = np.random.default_rng(seed)
    topology = builders.topology(ranks_per_node=3, slots_per_rank=3)
    spec = builders.spec(
        layer_ids=(0, 1), topology=topology, rules=PlacementRules(forbids_moves_inside_rank=True)
    )
    before, after = rng.integers(-1, 6, (2, 2, 9))
    after[:, 3:] = np.where(rng.random((2, 6)) < 0.7, before[:, 3:], after[:, 3:])
    found = [
        f"{after[layer, slot]} in another one on rank {slot // 3} in layer {layer}."
        for layer, slot in np.argwhere((after != before) & (after >= 0))
        if after[layer, slot] in before[layer, slot // 3 * 3 :][:3]
    ]
    told = ""
    try:
        check_rules(after, before, spec, "phy2log")
    except InvalidArgumentError as error:
        told = error.message

    assert bool(told) == bool(found)
    assert told.endswith(found[0] if found else "")


def test_moves_inside_a_large_rank_are_found_in_bounded_memory() -> None:
    """A rank of 16384 slots takes no table of all pairs of them, which would be 256 MiB."""
    topology = builders.topology(ranks_per_node=1, slots_per_rank=2**14)
    spec = builders.spec(topology=topology, rules=PlacementRules(forbids_moves_inside_rank=True))
    before = np.arange(2**14, dtype=np.int32)[None, :] % 4
    tracemalloc.start()
    try:
        check_rules(before, before, spec, "phy2log")
        with pytest.raises(InvalidArgumentError, match="keep their slot"):
            check_rules((before + 1) % 4, before, spec, "phy2log")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 16 * 2**20


def test_rules_of_an_engine() -> None:
    """What an engine does not take is refused without being asked for."""
    spec = builders.spec(topology=SIX, engine=VLLM_ASCEND)

    assert "one replica" in breach_of([0, 0, 1, 2, 3, 1], [0, 1, 2, 3, 0, 1], spec)
    assert "keep their slot" in breach_of([2, 1, 0, 3, 0, 1], [0, 1, 2, 3, 0, 1], spec)


def test_rules_leave_masked_slots_alone() -> None:
    """Empty slots are neither duplicates nor moves nor replicas."""
    rules = PlacementRules(forbids_duplicates=True, forbids_moves_inside_rank=True, max_replicas=1)
    spec = builders.spec(topology=WIDE, rules=rules)

    assert breach_of([-1] * 4 + [0, 1, 2, 3], [0, 1, 2, -1, 0, 1, 2, 3], spec) == ""
