"""The facade: load and topology in, verified plan out. Does no I/O and keeps no state."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .balance import report
from .batching import Placing, run_together
from .errors import InvalidInputError, PlannerError
from .kernels.threads import single_threaded_ops
from .model.incumbent import Incumbent
from .model.load import ExpertLoad
from .model.masking import compact
from .model.mode import Mode, resolve_mode
from .model.plan import Plan
from .model.rules import EngineRules
from .model.topology import Topology
from .placing import check_rules, checked_foreign, checked_placement, with_prediction
from .policies.base import ImprovingPolicy, PlacementRequest, Policy, plans_layers_alone
from .policies.registry import DEFAULT_POLICY, get_policy
from .replanning import replan


if TYPE_CHECKING:
    from collections.abc import Sequence

    from .batching import Flow
    from .forecast import Prediction
    from .model.placement import Placement


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SolveTask:
    """One of several solves: the arguments of `solve`, where they are described."""

    load: ExpertLoad
    """Tokens per logical expert."""

    topology: Topology
    """Nodes, ranks and slots to plan for."""

    num_expert_groups: int = 1
    """Routing groups of consecutive logical experts."""

    mode: Mode = Mode.AUTO
    """Whether expert groups stay together on a node."""

    policy: str | Policy = DEFAULT_POLICY
    """Name of a policy, or a policy with parameters of its own."""

    spill: int = 0
    """Foreign replicas per layer, at most."""

    prediction: Prediction | None = None
    """What to expect of the coming steps."""

    incumbent: Incumbent | Placement | None = None
    """The placement in force, to move from."""

    rules: EngineRules | None = None
    """What the engine accepts."""

    seed: int = 0
    """Seed for policies that draw random numbers."""


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
    task = SolveTask(
        load=load,
        topology=topology,
        num_expert_groups=num_expert_groups,
        mode=mode,
        policy=policy,
        spill=spill,
        prediction=prediction,
        incumbent=incumbent,
        rules=rules,
        seed=seed,
    )
    (plan,) = solve_many([task], device=device)
    if isinstance(plan, PlannerError):
        raise plan
    return plan


def solve_many(
    tasks: Sequence[SolveTask], *, device: torch.device | str | None = None
) -> list[Plan | PlannerError]:
    """Return the plan of each task, as `solve` makes it, or the error that `solve` raises.

    What several ask of a policy at the same time is asked once, where the policy can be asked so
    and they are alike: that serves a device, which has room for more layers than a model has. So
    `seconds` of a plan are those of what was planned beside it, too. Anything but the planner's
    own errors, as of a device that is lost, is raised.

    Args:
        tasks: What to plan; they know nothing of each other.
        device: Device to plan on, and of the placements; where each load is, by default.

    Returns:
        Plans and errors in the order of the tasks.

    Raises:
        InvalidInputError: There is no such device.
    """
    target = None if device is None else _checked_device(device)
    with single_threaded_ops():
        return run_together([_solving(task, target) for task in tasks])


def _solving(task: SolveTask, device: torch.device | None) -> Flow[Plan]:
    """Return the plan of a task, asking its policy on the way."""
    start_s = time.perf_counter()
    policy = get_policy(task.policy) if isinstance(task.policy, str) else task.policy
    request = _request(task, device)
    _check_capacities(policy, task.topology, request.mode)
    if task.incumbent is None:
        replanned = None
        if isinstance(policy, ImprovingPolicy) and plans_layers_alone(policy):
            # What it would make of the samples, it could not make of the totals of many loads.
            request = with_prediction(request)
        phy2log = yield Placing(policy, request)
        placement = checked_placement(phy2log, request, task.topology)
    else:
        incumbent = task.incumbent
        if not isinstance(incumbent, Incumbent):
            incumbent = Incumbent(placement=incumbent)
        replanned = yield from replan(policy, request, task.topology, incumbent)
        placement = replanned.placement
    check_rules(placement, policy, request)
    return Plan(
        placement=placement,
        policy=policy.name,
        policy_params=_params_of(policy),
        mode=request.mode,
        spill=request.spill,
        foreign_replicas=checked_foreign(placement, request),
        seed=request.seed,
        balance=report(placement, request.load),
        moved_slots=None if replanned is None else replanned.moved_slots,
        transfers=None if replanned is None else replanned.transfers,
        benefit=None if replanned is None else replanned.benefit,
        seconds=time.perf_counter() - start_s,
    )


def _request(task: SolveTask, device: torch.device | None) -> PlacementRequest:
    target = task.load.samples.device if device is None else device
    num_experts, num_groups = task.load.num_logical_experts, task.num_expert_groups
    return PlacementRequest(
        load=task.load.to(target),
        topology=compact(task.topology),
        num_expert_groups=num_groups,
        mode=resolve_mode(task.mode, task.topology, num_experts, num_groups),
        spill=task.spill,
        prediction=None if task.prediction is None else task.prediction.to(target),
        rules=task.rules or EngineRules(),
        seed=task.seed,
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


def _checked_device(device: torch.device | str) -> torch.device:
    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError) as error:  # torch asserts that CUDA was compiled in
        raise InvalidInputError(
            "device", f"Expected a device that torch can use here, got '{device}'."
        ) from error
    return checked
