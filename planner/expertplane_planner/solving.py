"""The facade: load and topology in, verified plan out. Does no I/O and keeps no state."""

from __future__ import annotations

import dataclasses
import time

import torch

from .balance import report
from .errors import InvalidInputError, InvalidPlacementError
from .kernels.threads import single_threaded_ops
from .model.homes import foreign_replicas
from .model.load import ExpertLoad
from .model.mode import Mode, resolve_mode
from .model.placement import Placement
from .model.plan import Plan
from .model.topology import Topology
from .policies.base import PlacementRequest, Policy
from .policies.registry import get_policy


def solve(
    load: ExpertLoad,
    topology: Topology,
    *,
    num_expert_groups: int = 1,
    mode: Mode = Mode.AUTO,
    policy: str | Policy = "deepseek",
    spill: int = 0,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Plan:
    """Return a verified plan for a load.

    Deterministic: the same arguments on the same kind of device give the same placement. Mutates
    nothing. Layers without load are planned like any other.

    Args:
        load: Tokens per logical expert.
        topology: Nodes, ranks and slots to plan for.
        num_expert_groups: Routing groups of consecutive logical experts; divides their number.
        mode: Whether expert groups stay together on a node.
        policy: Name of a policy, or a policy with parameters of its own.
        spill: Foreign replicas per layer, at most; in `Mode.SOFT_HIERARCHICAL` only.
        seed: Seed for policies that draw random numbers, in [0, 2^63).
        device: Device to plan on, and of the placement; where the load is, by default.

    Returns:
        The plan; its `balance` is in sample, under the load given here.

    Raises:
        InvalidInputError: The arguments do not fit together; the field says which.
        UnknownPolicyError: There is no such policy.
        InvalidPlacementError: A third-party policy broke its promise.
    """
    start_s = time.perf_counter()
    chosen = get_policy(policy) if isinstance(policy, str) else policy
    resolved_mode = resolve_mode(mode, topology, load.num_logical_experts, num_expert_groups)
    request = PlacementRequest(
        load=load if device is None else load.to(_checked_device(device)),
        topology=topology,
        num_expert_groups=num_expert_groups,
        mode=resolved_mode,
        spill=spill,
        seed=seed,
    )
    with single_threaded_ops():
        placement = _verified(chosen.place(request), request)
        foreign = _verified_foreign(placement, request)
        balance = report(placement, request.load)
    return Plan(
        placement=placement,
        policy=chosen.name,
        policy_params=dataclasses.asdict(chosen.params),
        mode=resolved_mode,
        spill=spill,
        foreign_replicas=foreign,
        seed=seed,
        balance=balance,
        seconds=time.perf_counter() - start_s,
    )


def warm_up(device: torch.device | str | None = None) -> None:
    """Solve something tiny, so that a long-lived process pays first-call costs when it starts.

    Raises:
        InvalidInputError: There is no such device.
    """
    load = ExpertLoad.from_weight(torch.arange(16, dtype=torch.int64).reshape(2, 8))
    topology = Topology(num_nodes=2, num_ranks=4, num_slots=12)
    for policy in ("deepseek", "balanced"):  # the two types that kernels are compiled for
        solve(load, topology, policy=policy, device=device)
        solve(load, topology, num_expert_groups=4, policy=policy, device=device)


def _verified(phy2log: torch.Tensor, request: PlacementRequest) -> Placement:
    placement = Placement(phy2log, request.load.num_logical_experts, request.topology)
    if placement.num_layers != request.load.num_layers:
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected phy2log of {request.load.num_layers} layers, got {placement.num_layers}.",
        )
    return placement


def _verified_foreign(placement: Placement, request: PlacementRequest) -> tuple[int, ...] | None:
    if not request.mode.is_by_node:
        return None
    foreign: list[int] = foreign_replicas(placement, request.num_expert_groups).tolist()
    if max(foreign) > request.spill:
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected at most {request.spill} foreign replicas per layer, "
            f"got {max(foreign)} in layer {foreign.index(max(foreign))}.",
        )
    return tuple(foreign)


def _checked_device(device: torch.device | str) -> torch.device:
    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError) as error:  # torch asserts that CUDA was compiled in
        raise InvalidInputError(
            "device", f"Expected a device that torch can use here, got '{device}'."
        ) from error
    return checked
