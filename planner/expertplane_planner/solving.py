"""The facade: load and topology in, verified plan out. Does no I/O and keeps no state."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

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


if TYPE_CHECKING:
    from .forecast import Prediction


def solve(
    load: ExpertLoad,
    topology: Topology,
    *,
    num_expert_groups: int = 1,
    mode: Mode = Mode.AUTO,
    policy: str | Policy = "deepseek",
    spill: int = 0,
    prediction: Prediction | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Plan:
    """Return a verified plan for a load.

    Deterministic: the same arguments on the same kind of device give the same placement. Mutates
    nothing, but keeps torch to one thread meanwhile. Layers without load are planned like others.

    Args:
        load: Tokens per logical expert.
        topology: Nodes, ranks and slots to plan for.
        num_expert_groups: Routing groups of consecutive logical experts; divides their number.
        mode: Whether expert groups stay together on a node.
        policy: Name of a policy, or a policy with parameters of its own.
        spill: Foreign replicas per layer, at most; in `Mode.SOFT_HIERARCHICAL` only.
        prediction: What to expect of the coming steps, as from a `Forecast`; for policies that
            look ahead. None lets them make one of the samples of the load.
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
    target = load.samples.device if device is None else _checked_device(device)
    request = PlacementRequest(
        load=load.to(target),
        topology=topology,
        num_expert_groups=num_expert_groups,
        mode=resolve_mode(mode, topology, load.num_logical_experts, num_expert_groups),
        spill=spill,
        prediction=None if prediction is None else prediction.to(target),
        seed=seed,
    )
    with single_threaded_ops():
        return _plan(chosen, request, start_s)


def _plan(policy: Policy, request: PlacementRequest, start_s: float) -> Plan:
    placement = _verified(policy.place(request), request)
    foreign = _verified_foreign(placement, request)
    balance = report(placement, request.load)
    return Plan(
        placement=placement,
        policy=policy.name,
        policy_params=_params_of(policy),
        mode=request.mode,
        spill=request.spill,
        foreign_replicas=foreign,
        seed=request.seed,
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
    for policy in ("deepseek", "balanced", "robust"):  # all that is compiled, for both types
        solve(load, topology, policy=policy, device=device)
        solve(load, topology, num_expert_groups=4, policy=policy, device=device)


def _params_of(policy: Policy) -> dict[str, object]:
    params = policy.params
    if not dataclasses.is_dataclass(params) or isinstance(params, type):
        raise InvalidInputError(
            "policy",
            f"Expected params of policy '{policy.name}' to be a dataclass, "
            f"got a {type(params).__name__}.",
        )
    return dataclasses.asdict(params)


def _verified(phy2log: object, request: PlacementRequest) -> Placement:
    if not isinstance(phy2log, torch.Tensor):
        raise InvalidPlacementError(
            "placement.phy2log",
            f"Expected the policy to return a tensor, got a {type(phy2log).__name__}.",
        )
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
