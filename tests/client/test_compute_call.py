"""ComputePlan as both clients ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from expertplane.v1 import deployment_pb2, plan_service_pb2 as plans_pb2
from expertplane_client import InputError, ProtocolError, calls
from expertplane_client.tensors import from_tensor

from . import builders


if TYPE_CHECKING:
    from .conftest import Ask
    from .scripted_planner import ScriptedPlanner

WEIGHT = np.array([[4, 3, 2], [1, 1, 8]])
MACHINE: dict[str, Any] = {"num_nodes": 1, "num_ranks": 2, "num_slots": 4}


@pytest.mark.parametrize(
    ("load", "field"), [(WEIGHT, "weight"), (np.stack([WEIGHT, WEIGHT]), "samples")]
)
async def test_a_plan_is_computed(
    ask: Ask, planner: ScriptedPlanner, load: Any, field: str
) -> None:
    """A summed load travels as weight, several as samples; counts become counts per parent."""
    planner.answers["ComputePlan"] = lambda _: plans_pb2.ComputePlanResponse(
        plan=builders.plan_message(0, deployment="")
    )
    plan = await ask("compute_plan", load, **MACHINE, mode="global", policy="deepseek", seed=5)

    assert plan.version == 0
    (request,) = planner.requests
    assert request.WhichOneof("load") == field
    assert list(load.shape) == list(getattr(request, field).shape)
    assert (
        request.topology.num_nodes,
        request.topology.ranks_per_node,
        request.topology.slots_per_rank,
    ) == (1, 2, 2)
    assert (
        request.policy.name,
        request.policy.mode,
        request.policy.seed,
    ) == ("deepseek", deployment_pb2.MODE_GLOBAL, 5)


def test_capacities_of_any_sequence() -> None:
    """Capacities may come as an array."""
    capacities: Any = np.array([1.0, 0.5])
    call = calls.compute_plan(WEIGHT, **MACHINE, rank_capacities=capacities)

    assert isinstance(call.request, plans_pb2.ComputePlanRequest)
    assert call.request.topology.rank_capacities == [1.0, 0.5]


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint32])
async def test_an_incumbent_travels(ask: Ask, planner: ScriptedPlanner, dtype: Any) -> None:
    """The placement in force, its budget and the policy's parameters reach the planner."""
    answered = builders.plan_message(0, deployment="")
    answered.transfers.CopyFrom(builders.transfers_message())
    planner.answers["ComputePlan"] = lambda _: plans_pb2.ComputePlanResponse(plan=answered)
    incumbent = np.abs(builders.phy2log()).astype(dtype)
    plan = await ask(
        "compute_plan",
        WEIGHT,
        **MACHINE,
        policy_parameters={"risk": "1.5"},
        incumbent=incumbent,
        max_moved_slots_per_layer=0,
    )

    (request,) = planner.requests
    sent = from_tensor(request.incumbent_phy2log, field="incumbent", max_shape=(9, 9))
    assert sent.dtype == np.int32
    np.testing.assert_array_equal(sent, incumbent)
    assert request.policy.HasField("max_moved_slots_per_layer")
    assert request.policy.max_moved_slots_per_layer == 0
    assert request.policy.parameters == {"risk": "1.5"}
    assert plan.moved_slots == 3
    assert plan.transfers.table.tolist() == [[1, 2, 0, 3, 1]]


async def test_without_a_budget_none_is_sent(ask: Ask, planner: ScriptedPlanner) -> None:
    """No budget is another thing than a budget of 0."""
    planner.answers["ComputePlan"] = lambda _: plans_pb2.ComputePlanResponse(
        plan=builders.plan_message(0, deployment="")
    )
    plan = await ask("compute_plan", WEIGHT, **MACHINE)

    (request,) = planner.requests
    assert not request.HasField("incumbent_phy2log")
    assert not request.policy.HasField("max_moved_slots_per_layer")
    assert plan.transfers is None


async def test_a_plan_of_another_shape_is_refused(ask: Ask, planner: ScriptedPlanner) -> None:
    """A computed plan must be one for the load and the machine of the call."""
    planner.answers["ComputePlan"] = lambda _: plans_pb2.ComputePlanResponse(
        plan=builders.plan_message(0)
    )

    with pytest.raises(ProtocolError, match=r"\[2, 8, 3\]"):
        await ask("compute_plan", WEIGHT, num_nodes=1, num_ranks=2, num_slots=8)


async def test_a_spill_travels(ask: Ask, planner: ScriptedPlanner) -> None:
    """Soft-hierarchical mode and its spill reach the planner under the wire's names."""
    planner.answers["ComputePlan"] = lambda _: plans_pb2.ComputePlanResponse(
        plan=builders.plan_message(0, deployment="")
    )
    await ask("compute_plan", WEIGHT, **MACHINE, mode="soft-hierarchical", spill=3)

    (request,) = planner.requests
    assert request.policy.mode == deployment_pb2.MODE_SOFT_HIERARCHICAL
    assert request.policy.max_foreign_replicas == 3


@pytest.mark.parametrize(
    ("load", "changes", "message"),
    [
        (WEIGHT, {"num_slots": 5}, "num_slots to be a multiple of num_ranks, got 5 and 2"),
        (WEIGHT, {"num_nodes": 3}, "num_ranks to be a multiple of num_nodes, got 2 and 3"),
        (WEIGHT, {"num_nodes": 0}, "num_nodes to be positive, got 0"),
        (WEIGHT, {"mode": "best"}, "mode to be one of auto, hierarchical, global"),
        (WEIGHT[0], {}, "load of shape"),
        (WEIGHT.astype(object), {}, "load of integers"),
        (WEIGHT, {"max_moved_slots_per_layer": -1}, r"max_moved_slots_per_layer in \[0, 2\^32\)"),
        (WEIGHT, {"incumbent": np.zeros((2, 4))}, "an incumbent of integers, got float64"),
        (WEIGHT, {"incumbent": np.zeros((0, 4), int)}, "an incumbent of integers"),
        (WEIGHT, {"incumbent": np.full((2, 4), -2)}, "expert ids from -1"),
        (WEIGHT, {"incumbent": np.full((2, 4), 2**31)}, "expert ids from -1"),
    ],
)
def test_a_call_that_cannot_be_sent_is_refused(load: Any, changes: Any, message: str) -> None:
    """What the wire cannot say is the caller's mistake, told without asking a planner."""
    with pytest.raises(InputError, match=message):
        calls.compute_plan(load, **(MACHINE | changes))
