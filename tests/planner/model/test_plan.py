from __future__ import annotations

import dataclasses
import pickle

import pytest

from ...support import builders


def test_a_plan_is_immutable() -> None:
    """No field of a plan can be set after birth."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        builders.plan().seed = 1  # type: ignore[misc]  # the assignment is what must fail


def test_a_plan_keeps_its_own_parameters() -> None:
    """Changing the mapping that a plan was made from does not change the plan."""
    params = {"num_starts": 2}
    plan = dataclasses.replace(builders.plan(), policy_params=params)

    params["num_starts"] = 3

    assert plan.policy_params == {"num_starts": 2}


def test_a_plan_survives_pickling() -> None:
    """A plan comes out of a worker process with the same digest and balance."""
    plan = builders.plan()

    copy = pickle.loads(pickle.dumps(plan))

    assert copy.digest == plan.digest
    assert copy.balance == plan.balance
    assert (copy.policy, copy.mode, copy.seed) == (plan.policy, plan.mode, plan.seed)
    assert (
        (copy.spill, copy.foreign_replicas) == (plan.spill, plan.foreign_replicas) == (0, (0, 0))
    )
