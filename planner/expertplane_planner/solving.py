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
from .model.incumbent import Incumbent
from .model.load import ExpertLoad
from .model.masking import compact
from .model.mode import Mode, resolve_mode
from .model.plan import Plan
from .model.rules import EngineRules
from .model.topology import Topology
from .placing import checked_placement
from .policies.base import PlacementRequest, Policy
from .policies.registry import DEFAULT_POLICY, get_policy
from .replanning import replan


if TYPE_CHECKING:
    from .forecast import Prediction
    from .model.placement import Placement


def solve(
    load: ExpertLoad,
    topology: Topology,
    *,
    num_expert_groups: int = 1,
    mode: Mode = Mode.AUTO,
    policy: str | Policy = DEFAULT_POLICY,
    spill: int = 0,
    prediction: Prediction | None = None,
    incumbent: Incumbent | Placement | None = None,
    rules: EngineRules | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Plan:
    """Return a verified plan for a load.

    Deterministic: the same arguments on the same kind of device give the same placement. Mutates
    nothing, but keeps torch to one thread meanwhile. Layers without load are planned like others.

    Args:
        load: Tokens per logical expert.
        topology: Nodes, ranks and slots to plan for; slots of masked ranks hold -1 in the plan.
        num_expert_groups: Routing groups of consecutive logical experts; divides their number.
        mode: Whether expert groups stay together on a node.
        policy: Name of a policy, or a policy with parameters of its own.
        spill: Foreign replicas per layer, at most; in `Mode.SOFT_HIERARCHICAL` only.
        prediction: What to expect of the coming steps, as from a `Forecast`; for policies that
            look ahead. None lets them make one of the samples of the load.
        incumbent: The placement in force, to move from as far as it pays; None plans from scratch.
        rules: What the engine accepts.
        seed: Seed for policies that draw random numbers, in [0, 2^63).
        device: Device to plan on, and of the placement; where the load is, by default.

    Returns:
        The plan; its `balance` is in sample, under the load given here.

    Raises:
        InvalidInputError: The arguments do not fit together; the field says which.
        UnknownPolicyError: There is no such policy.
        InvalidPlacementError: The incumbent is of other layers, experts, nodes, ranks or slots, or
            a third-party policy broke its promise.
    """
    start_s = time.perf_counter()
    chosen = get_policy(policy) if isinstance(policy, str) else policy
    target = load.samples.device if device is None else _checked_device(device)
    request = PlacementRequest(
        load=load.to(target),
        topology=compact(topology),
        num_expert_groups=num_expert_groups,
        mode=resolve_mode(mode, topology, load.num_logical_experts, num_expert_groups),
        spill=spill,
        prediction=None if prediction is None else prediction.to(target),
        rules=rules or EngineRules(),
        seed=seed,
    )
    _check_capacities(chosen, topology, request.mode)
    with single_threaded_ops():
        return _plan(chosen, request, topology, incumbent, start_s)


def _plan(
    policy: Policy,
    request: PlacementRequest,
    topology: Topology,
    incumbent: Incumbent | Placement | None,
    start_s: float,
) -> Plan:
    if incumbent is None:
        replanned = None
        placement = checked_placement(policy.place(request), request, topology)
    else:
        if not isinstance(incumbent, Incumbent):
            incumbent = Incumbent(placement=incumbent)
        replanned = replan(policy, request, topology, incumbent)
        placement = replanned.placement
    _check_rules(placement, policy, request)
    foreign = _verified_foreign(placement, request)
    return Plan(
        placement=placement,
        policy=policy.name,
        policy_params=_params_of(policy),
        mode=request.mode,
        spill=request.spill,
        foreign_replicas=foreign,
        seed=request.seed,
        balance=report(placement, request.load),
        moved_slots=None if replanned is None else replanned.moved_slots,
        transfers=None if replanned is None else replanned.transfers,
        benefit=None if replanned is None else replanned.benefit,
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
        plan = solve(load, topology, policy=policy, device=device)
        solve(load, topology, policy=policy, device=device, incumbent=plan.placement)
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


def _check_capacities(policy: Policy, topology: Topology, mode: Mode) -> None:
    if not topology.has_equal_capacities and mode is Mode.SOFT_HIERARCHICAL:
        raise InvalidInputError(
            "topology.rank_capacities",
            f"Expected equal capacities of all active ranks in {mode} mode, whose spill does not "
            f"weigh them, got {min(topology.capacities):g} to {max(topology.capacities):g}.",
        )
    if not topology.has_equal_capacities and not getattr(policy, "weighs_ranks", False):
        raise InvalidInputError(
            "topology.rank_capacities",
            "Expected equal capacities of all active ranks for a policy that does not weigh "
            f"ranks, got {min(topology.capacities):g} to {max(topology.capacities):g} "
            f"for '{policy.name}'.",
        )


def _check_rules(placement: Placement, policy: Policy, request: PlacementRequest) -> None:
    try:
        request.rules.check(placement)
    except InvalidPlacementError as error:
        raise InvalidInputError(
            "rules",
            f"Expected policy '{policy.name}' in {request.mode} mode to keep the engine's rules, "
            f"got a plan that does not: {error}",
        ) from error


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
