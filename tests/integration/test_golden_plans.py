"""The golden cases through the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
import torch

from expertplane.v1 import deployment_pb2, plan_pb2, plan_service_pb2
from expertplane.wire import decode_tensor, digest_phy2log, encode_tensor
from expertplane_planner import ExpertLoad, Mode, Topology, solve

from ..support.fixtures import fixtures_dir


if TYPE_CHECKING:
    from ..support.planner_process import PlannerProcess

CASES = (
    "readme",
    "dsv3_hierarchical",
    "dsv3_global",
    "dsv3_ep72",
    "glm_global_ep64",
    "glm_domain_books",
    "qwen3_like",
    "kimi_like",
    "one_slot_per_gpu",
    "no_redundancy",
)


@pytest.mark.parametrize("case", CASES)
def test_compute_plan_equals_the_golden_maps(planner: PlannerProcess, case: str) -> None:
    """ComputePlan answers with the three maps of DeepSeek's EPLB, element by element."""
    golden = np.load(fixtures_dir() / "golden" / f"{case}.npz")
    num_nodes, num_ranks = int(golden["num_nodes"]), int(golden["num_gpus"])
    request = plan_service_pb2.ComputePlanRequest(
        weight=encode_tensor(golden["weight"]),
        topology=deployment_pb2.Topology(
            num_nodes=num_nodes,
            ranks_per_node=num_ranks // num_nodes,
            slots_per_rank=int(golden["num_replicas"]) // num_ranks,
        ),
        num_expert_groups=int(golden["num_groups"]),
        policy=deployment_pb2.PolicySpec(name="deepseek"),
    )

    plan = compute(planner, request)

    for name in ("phy2log", "log2phy", "logcnt"):
        answered = decode_tensor(
            getattr(plan, name), max_shape=(10**6,) * (2 + (name == "log2phy"))
        )
        np.testing.assert_array_equal(golden[f"deepseek_{name}"], answered)
    assert plan.metadata.digest == digest_phy2log(golden["deepseek_phy2log"])
    assert plan.metadata.version == 0


def test_a_spill_is_computed_by_the_service(planner: PlannerProcess) -> None:
    """ComputePlan in soft-hierarchical mode answers as the library does, and tells the spill."""
    rows = np.random.default_rng(3).integers(1, 1000, size=(2, 12)) * ([20] * 6 + [1] * 6)
    request = plan_service_pb2.ComputePlanRequest(
        weight=encode_tensor(rows),
        topology=deployment_pb2.Topology(num_nodes=2, ranks_per_node=4, slots_per_rank=2),
        num_expert_groups=2,
        policy=deployment_pb2.PolicySpec(
            name="balanced",
            mode=deployment_pb2.MODE_SOFT_HIERARCHICAL,
            max_foreign_replicas=2,
        ),
    )
    wanted = solve(
        ExpertLoad.from_weight(torch.from_numpy(rows)),
        Topology(num_nodes=2, num_ranks=8, num_slots=16),
        num_expert_groups=2,
        mode=Mode.SOFT_HIERARCHICAL,
        policy="balanced",
        spill=2,
    )

    plan = compute(planner, request)

    assert plan.metadata.digest == wanted.digest
    assert wanted.foreign_replicas == (2, 2)
    assert plan.metadata.policy.mode == deployment_pb2.MODE_SOFT_HIERARCHICAL
    assert plan.metadata.policy.max_foreign_replicas == 2


def compute(
    planner: PlannerProcess, request: plan_service_pb2.ComputePlanRequest
) -> plan_pb2.Plan:
    """Returns what a real planner answers."""
    with grpc.insecure_channel(planner.address) as channel:
        call = channel.unary_unary(
            "/expertplane.v1.PlanService/ComputePlan",
            plan_service_pb2.ComputePlanRequest.SerializeToString,
            plan_service_pb2.ComputePlanResponse.FromString,
        )
        response: plan_service_pb2.ComputePlanResponse = call(request)
        return response.plan
