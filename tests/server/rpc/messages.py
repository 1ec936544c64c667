"""Small valid messages, for the deployment of `builders`."""

from __future__ import annotations

from typing import Any

import numpy as np

from expertplane.v1 import (
    deployment_pb2,
    placement_service_pb2 as placement_pb2,
    plan_pb2,
    plan_service_pb2 as plans_pb2,
    tensor_pb2,
)
from expertplane.wire import decode_tensor, encode_tensor

from .. import builders


def tensor(values: Any, dtype: str = "float64") -> tensor_pb2.Tensor:
    """Return a tensor of nested lists."""
    return encode_tensor(np.array(values, dtype=dtype))


def topology(**changes: Any) -> deployment_pb2.Topology:
    """Return two ranks of two slots."""
    fields = {"num_nodes": 1, "ranks_per_node": 2, "slots_per_rank": 2, **changes}
    return deployment_pb2.Topology(**fields)


def spec(**changes: Any) -> deployment_pb2.DeploymentSpec:
    """Return a spec of one layer of four experts whose windows close with their first sample."""
    fields: dict[str, Any] = {
        "layer_ids": [3],
        "num_logical_experts": 4,
        "topology": topology(),
        "trigger": deployment_pb2.TriggerParameters(window_samples=1),
        **changes,
    }
    return deployment_pb2.DeploymentSpec(**fields)


def hello(**changes: Any) -> placement_pb2.Hello:
    """Return the Hello of a participant that answers for both ranks."""
    fields: dict[str, Any] = {
        "deployment": builders.NAME,
        "participant_id": "a",
        "ranks": [0, 1],
        "incarnation": builders.incarnation(1),
        "engine_run_id": builders.RUN,
        **changes,
    }
    return placement_pb2.Hello(**fields)


def load_report(layers: Any = ((4, 3, 2, 1),), /, **changes: Any) -> placement_pb2.LoadReport:
    """Return a report of one sample."""
    fields: dict[str, Any] = {
        "sequence": 1,
        "steps_per_sample": 1,
        "kind": placement_pb2.LOAD_KIND_LOGICAL,
        "scope": placement_pb2.LOAD_SCOPE_PARTICIPANT,
        "counts": tensor([layers]),
        **changes,
    }
    return placement_pb2.LoadReport(**fields)


def compute_plan(**changes: Any) -> plans_pb2.ComputePlanRequest:
    """Return a request to plan for one layer of four experts."""
    fields: dict[str, Any] = {
        "weight": tensor([[4, 3, 2, 1]]),
        "topology": topology(slots_per_rank=3),
        **changes,
    }
    if "samples" in changes:
        del fields["weight"]
    return plans_pb2.ComputePlanRequest(**fields)


def shaped(shape: list[int], dtype: int = tensor_pb2.D_TYPE_FLOAT64, data: bytes = b"") -> Any:
    """Return a tensor whose parts need not fit together."""
    return tensor_pb2.Tensor(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]  # also numbers that are no DType


def map_of(plan: plan_pb2.Plan) -> Any:
    """Return the placement as nested lists."""
    return decode_tensor(plan.phy2log, max_shape=(256, 65536)).tolist()
