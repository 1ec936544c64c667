"""ComputePlan's request to a job for the solver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane_server.core import limits
from expertplane_server.core.errors import InvalidArgumentError
from expertplane_server.core.spec import check_cells, check_shapes
from expertplane_server.rpc.convert.fields import refuse_unserved, token_counts
from expertplane_server.rpc.convert.specs import engine_from, policy_from, topology_from
from expertplane_server.runtime.jobs import SolveJob


if TYPE_CHECKING:
    from collections.abc import Collection

    from expertplane.v1 import plan_service_pb2 as pb

_UNSERVED = ("incumbent_phy2log",)


def job_from(message: pb.ComputePlanRequest, policies: Collection[str]) -> SolveJob:
    """Reads a request. Takes time in proportion to the load: keep it off the event loop.

    Raises:
        InvalidArgumentError: a field breaks its rule.
        UnservedError: it sets what this release does not serve.
    """
    refuse_unserved(message, _UNSERVED)
    engine_from(message.engine)
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
    return SolveJob(
        samples=samples,
        topology=topology,
        num_expert_groups=num_expert_groups,
        policy=policy,
    )
