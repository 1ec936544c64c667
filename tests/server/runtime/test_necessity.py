"""Placements in force that cannot stay: what the solver process says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from expertplane_server.core.parameters import PlacementRules
from expertplane_server.core.plan import Necessity
from expertplane_server.core.spec import PolicyChoice

from .test_forecasts import MACHINE, NUM_LAYERS, START, ref, solve_job, solved, window, worker


@pytest.mark.parametrize("has_forecast", [True, False])
def test_lost_experts_are_told(has_forecast: bool) -> None:
    """With experts lost the placement in force carries no load: there is no balance before."""
    machine = replace(MACHINE, masked_ranks=(1,))  # the only rank with experts 8 to 11
    policy = PolicyChoice(max_moved_slots=1)
    of = ref(is_new=True) if has_forecast else None
    plan = solved(worker(), solve_job(window(1), of, topology=machine, policy=policy))

    assert plan.necessity is Necessity.LOST_EXPERTS
    assert plan.balance_before is None
    assert plan.most_moved_slots >= 2


def test_masked_rank_without_a_loss() -> None:
    """A rank whose experts all have another replica is no emergency; what is left is measured."""
    samples = window(1)
    start = np.tile(np.arange(24, dtype=np.int32) % 12, (NUM_LAYERS, 1))
    machine = replace(MACHINE, masked_ranks=(3,))
    job = solve_job(samples[:, :, :12], ref(is_new=True), topology=machine, incumbent=start)
    plan = solved(worker(), job)
    load = np.stack([_rank_loads(start[:, :18], each[:, :12]) for each in samples[3::4]])

    assert plan.necessity is None
    assert plan.balance_before is not None
    wanted = np.mean(load.mean(axis=2).sum(axis=1) / load.max(axis=2).sum(axis=1))
    assert plan.balance_before.balancedness == pytest.approx(wanted, rel=0.02)


def _rank_loads(phy2log: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> Any:
    """Return the load [layers, ranks] of ranks of six slots."""
    share = [
        tokens[row] / np.bincount(row, minlength=len(tokens))[row]
        for row, tokens in zip(phy2log, counts, strict=True)
    ]
    return np.stack(share).reshape(len(phy2log), -1, 6).sum(axis=2)


@pytest.mark.parametrize(
    ("changes", "necessity"),
    [
        ({"rules": PlacementRules(max_replicas=2)}, Necessity.ENGINE_RULES),
        ({"num_expert_groups": 2}, Necessity.MODE),
        ({}, None),
    ],
    ids=["rules", "mode", "none"],
)
def test_what_cannot_stay_is_told(changes: dict[str, Any], necessity: Necessity | None) -> None:
    """A placement in force that may not stay is measured, since it does serve, and replaced."""
    start = START.copy()
    start[:, 22:] = 0  # four replicas of expert 0
    start[:, 16] = 0
    job = solve_job(window(1), ref(is_new=True), incumbent=start, **changes)
    plan = solved(worker(), job)

    assert plan.necessity is necessity
    assert plan.balance_before is not None
