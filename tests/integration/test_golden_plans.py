"""The golden cases through the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from expertplane.v1 import deployment_pb2, plan_service_pb2
from expertplane.wire import decode_tensor, digest_phy2log, encode_tensor

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

    with grpc.insecure_channel(planner.address) as channel:
        compute = channel.unary_unary(
            "/expertplane.v1.PlanService/ComputePlan",
            plan_service_pb2.ComputePlanRequest.SerializeToString,
            plan_service_pb2.ComputePlanResponse.FromString,
        )
        plan = compute(request).plan

    for name in ("phy2log", "log2phy", "logcnt"):
        answered = decode_tensor(
            getattr(plan, name), max_shape=(10**6,) * (2 + (name == "log2phy"))
        )
        np.testing.assert_array_equal(golden[f"deepseek_{name}"], answered)
    assert plan.metadata.digest == digest_phy2log(golden["deepseek_phy2log"])
    assert plan.metadata.version == 0
