"""ComputePlan's request to a job for the solver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane.v1 import tensor_pb2
from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.spec import check_cells, check_rules, check_shapes, rules_of
from expertplane_server.rpc.convert.fields import tensor, token_counts
from expertplane_server.rpc.convert.specs import engine_from, policy_from, topology_from
from expertplane_server.runtime.jobs import SolveJob


if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np

    from expertplane.v1 import plan_service_pb2 as pb

_MAP_DTYPES = (tensor_pb2.D_TYPE_INT16, tensor_pb2.D_TYPE_INT32)


def job_from(message: pb.ComputePlanRequest, policies: Collection[str]) -> SolveJob:
    """Reads a request. Takes time in proportion to the load: keep it off the event loop.

    Raises:
        InvalidArgumentError: a field breaks its rule.
        UnservedError: it sets what this release does not serve.
    """
    engine, asked_rules = engine_from(message.engine)
    layers, experts = limits.MAX_LAYERS, limits.MAX_LOGICAL_EXPERTS
    match message.WhichOneof("load"):
        case "weight":
            counts = token_counts(message.weight, "weight", max_shape=(layers, experts))
            samples = counts[None]
        case "samples":
            most = (limits.MAX_SAMPLES_PER_SOLVE, layers, experts)
            samples = token_counts(message.samples, "samples", max_shape=most)
        case _:
            raise InvalidArgumentError("Expected weight or samples, got neither.", field="load")
    topology = topology_from(message.topology)
    policy = policy_from(message.policy, policies)
    num_expert_groups = message.num_expert_groups or 1
    _, num_layers, num_experts = samples.shape
    check_shapes(num_experts, num_expert_groups, topology, policy)
    check_cells(num_layers, topology)
    rules = rules_of(engine, asked_rules)
    check_rules(num_experts, num_expert_groups, topology, policy, rules)
    incumbent = _incumbent(message, (num_layers, topology.num_slots))
    if policy.max_moved_slots is not None and incumbent is None:
        raise InvalidArgumentError(
            "Expected incumbent_phy2log with a move budget, got none.",
            field="policy.max_moved_slots_per_layer",
        )
    return SolveJob(
        samples=samples,
        topology=topology,
        num_expert_groups=num_expert_groups,
        policy=policy,
        rules=rules,
        incumbent=incumbent,
    )


def _incumbent(
    message: pb.ComputePlanRequest, shape: tuple[int, int]
) -> np.ndarray[Any, Any] | None:
    """Reads the placement in force; that it places every expert is the solver's to check.

    Raises:
        InvalidArgumentError: it has another type or shape.
    """
    if not message.HasField("incumbent_phy2log"):
        return None
    at = "incumbent_phy2log"
    phy2log = tensor(message.incumbent_phy2log, at, max_shape=shape, dtypes=_MAP_DTYPES)
    if phy2log.shape != shape:
        raise InvalidArgumentError(
            f"Expected shape {list(shape)}, got {list(phy2log.shape)}.", field=f"{at}.shape"
        )
    return phy2log
