"""ComputePlan, described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane.v1 import deployment_pb2, plan_service_pb2 as pb
from expertplane_client.errors import InputError, ProtocolError
from expertplane_client.names import mode_enum_name
from expertplane_client.plan import Plan
from expertplane_client.tensors import to_tensor

from .base import PLANS, SOLVE_TIMEOUT_S, Call, map_tensor


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


def compute_plan(
    load: NDArray[Any],
    *,
    num_nodes: int,
    num_ranks: int,
    num_slots: int,
    masked_ranks: Sequence[int] = (),
    rank_capacities: Sequence[float] | None = None,
    num_expert_groups: int = 1,
    mode: str = "auto",
    policy: str = "",
    spill: int = 0,
    seed: int = 0,
    policy_parameters: Mapping[str, str] | None = None,
    incumbent: NDArray[np.integer[Any]] | None = None,
    max_moved_slots_per_layer: int | None = None,
) -> Call[Plan]:
    """Describes ComputePlan; see `Client.compute_plan`."""
    if max_moved_slots_per_layer is not None and not 0 <= max_moved_slots_per_layer < 2**32:
        raise InputError(
            f"Expected max_moved_slots_per_layer in [0, 2^32), got {max_moved_slots_per_layer}."
        )
    request = pb.ComputePlanRequest(
        topology=_topology(num_nodes, num_ranks, num_slots, masked_ranks, rank_capacities),
        num_expert_groups=num_expert_groups,
        policy=deployment_pb2.PolicySpec(
            name=policy,
            mode=mode_enum_name(mode),
            seed=seed,
            max_foreign_replicas=spill,
            parameters=policy_parameters,
            max_moved_slots_per_layer=max_moved_slots_per_layer,
        ),
        omit_derived_maps=True,
    )
    _add_load(request, load)
    num_layers, num_logical_experts = load.shape[-2:]

    def parse(answer: pb.ComputePlanResponse) -> Plan:
        plan = Plan.from_message(answer.plan)
        expected = [num_layers, num_slots, num_logical_experts]
        got = [plan.num_layers, plan.num_slots, plan.num_logical_experts]
        if got != expected:
            raise ProtocolError(f"Expected a plan of [L, P, E] = {expected}, got {got}.")
        return plan

    if incumbent is not None:
        request.incumbent_phy2log.CopyFrom(map_tensor(incumbent, field="an incumbent"))
    return Call(
        method=f"{PLANS}/ComputePlan",
        request=request,
        response_class=pb.ComputePlanResponse,
        parse=parse,
        timeout_s=SOLVE_TIMEOUT_S,
        is_read=True,
    )


def _add_load(request: pb.ComputePlanRequest, load: NDArray[Any]) -> None:
    if load.ndim == 2:
        request.weight.CopyFrom(to_tensor(load, field="load"))
    elif load.ndim == 3:
        request.samples.CopyFrom(to_tensor(load, field="load"))
    else:
        raise InputError(
            "Expected load of shape [layers, experts] or [samples, layers, experts], "
            f"got {list(load.shape)}."
        )


def _topology(
    num_nodes: int,
    num_ranks: int,
    num_slots: int,
    masked_ranks: Sequence[int],
    rank_capacities: Sequence[float] | None,
) -> deployment_pb2.Topology:
    # The wire speaks of ranks per node and slots per rank, so what does not divide never leaves.
    counts = {"num_nodes": num_nodes, "num_ranks": num_ranks, "num_slots": num_slots}
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"Expected {name} to be positive, got {count}.")
    for (small, divisor), (large, count) in zip(
        list(counts.items())[:-1], list(counts.items())[1:], strict=True
    ):
        if count % divisor:
            raise InputError(
                f"Expected {large} to be a multiple of {small}, got {count} and {divisor}."
            )
    for rank in masked_ranks:
        if not 0 <= rank < num_ranks:
            raise InputError(f"Expected masked ranks in [0, {num_ranks - 1}], got {rank}.")
    # An empty list would mean that all ranks are equal.
    if rank_capacities is not None and len(rank_capacities) != num_ranks:
        raise InputError(
            f"Expected a capacity for each of {num_ranks} ranks, got {len(rank_capacities)}."
        )
    return deployment_pb2.Topology(
        num_nodes=num_nodes,
        ranks_per_node=num_ranks // num_nodes,
        slots_per_rank=num_slots // num_ranks,
        masked_ranks=masked_ranks,
        rank_capacities=() if rank_capacities is None else rank_capacities,
    )
