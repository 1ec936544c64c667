"""Whether a map is a placement: what every one must hold, and what the engine takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core.errors import InvalidArgumentError


if TYPE_CHECKING:
    from expertplane_server.core.parameters import PlacementRules
    from expertplane_server.core.spec import DeploymentSpec, TopologySpec


def start_placement(spec: DeploymentSpec) -> np.ndarray[Any, Any]:
    """Returns the placement that engines start with unless they say otherwise.

    Returns:
        [L, P] int32: slot p of the ranks that are not masked holds expert p mod E.
    """
    topology = spec.topology
    packs = np.full((topology.num_ranks, topology.slots_per_rank), -1, dtype=np.int32)
    places = np.arange(topology.num_active_slots) % spec.num_logical_experts
    packs[list(topology.active_ranks)] = places.reshape(-1, topology.slots_per_rank)
    return np.broadcast_to(packs.reshape(-1), spec.map_shape)


def check_placement(
    phy2log: np.ndarray[Any, Any], spec: DeploymentSpec, at: str, *, may_fill_masked: bool = False
) -> None:
    """Refuses a map of the wrong shape, or with experts unknown or left out.

    Args:
        phy2log: the map.
        spec: of the deployment that it is for.
        at: the field to name.
        may_fill_masked: slots of masked ranks may hold what they held before; else they hold -1.

    Raises:
        InvalidArgumentError: it is no placement.
    """
    problem = _shape_problem(phy2log, spec, may_fill_masked) or _coverage_problem(phy2log, spec)
    if problem:
        raise InvalidArgumentError(problem, field=at)


def _shape_problem(
    phy2log: np.ndarray[Any, Any], spec: DeploymentSpec, may_fill_masked: bool
) -> str:
    """Returns what is wrong with the shape or with single entries; empty when nothing is."""
    experts = spec.num_logical_experts
    if phy2log.shape != spec.map_shape:
        return f"Expected shape {list(spec.map_shape)}, got {list(phy2log.shape)}."
    is_masked = masked_slots(spec.topology)
    if not may_fill_masked and (phy2log[:, is_masked] != -1).any():
        layer, at = np.argwhere(phy2log[:, is_masked] != -1)[0]
        slot = np.flatnonzero(is_masked)[at]
        return f"Expected -1 in slots of masked ranks, got another in layer {layer}, slot {slot}."
    if (phy2log + is_masked).min() < 0 or phy2log.min() < -1 or phy2log.max() >= experts:
        return (
            f"Expected logical experts from 0 to {experts - 1}, "
            f"got {phy2log.min()} to {phy2log.max()}."
        )
    return ""


def _coverage_problem(phy2log: np.ndarray[Any, Any], spec: DeploymentSpec) -> str:
    """Names an expert that has no slot; empty when there is none."""
    has_slot = experts_held(phy2log, spec.num_logical_experts)
    if has_slot.all():
        return ""
    row, expert = np.argwhere(~has_slot)[0]
    return f"Expected a slot for every logical expert, got none for {expert} in layer {row}."


def experts_held(phy2log: np.ndarray[Any, Any], num_logical_experts: int) -> np.ndarray[Any, Any]:
    """Returns [L, E]: whether an expert has a slot; -1 holds none."""
    # A column more takes what -1 stands for, which is the last one.
    has_slot = np.zeros((len(phy2log), num_logical_experts + 1), dtype=bool)
    has_slot[np.arange(len(phy2log))[:, None], phy2log] = True
    return has_slot[:, :-1]


def masked_slots(topology: TopologySpec) -> np.ndarray[Any, Any]:
    """Returns [P]: whether a slot belongs to a masked rank."""
    rank = np.arange(topology.num_slots) // topology.slots_per_rank
    return np.isin(rank, topology.masked_ranks)


def without_masked(phy2log: np.ndarray[Any, Any], topology: TopologySpec) -> np.ndarray[Any, Any]:
    """Returns the map with -1 in the slots of masked ranks."""
    return np.where(masked_slots(topology), np.int32(-1), phy2log)


def check_rules(
    phy2log: np.ndarray[Any, Any],
    in_force: np.ndarray[Any, Any],
    spec: DeploymentSpec,
    at: str,
) -> None:
    """Refuses a placement that the engine does not take.

    Args:
        phy2log: [L, P], a placement.
        in_force: [L, P], what the ranks serve with.
        spec: of the deployment.
        at: the field to name.

    Raises:
        InvalidArgumentError: it breaks a rule, which is spelt out.
    """
    rules = spec.engine_rules
    ranks = phy2log.reshape(len(phy2log), spec.topology.num_ranks, -1)
    problem = (
        _duplicate_problem(ranks, rules)
        or _replica_problem(phy2log, spec.num_logical_experts, rules)
        or _shuffle_problem(ranks, in_force.reshape(ranks.shape), rules)
    )
    if problem:
        raise InvalidArgumentError(problem, field=at, reason="ENGINE_RULE")


def _duplicate_problem(ranks: np.ndarray[Any, Any], rules: PlacementRules) -> str:
    """Names a rank with two replicas of one expert, where the engine forbids it."""
    if not rules.forbids_duplicates:
        return ""
    ordered = np.sort(ranks, axis=2)
    is_twice = (ordered[:, :, 1:] == ordered[:, :, :-1]) & (ordered[:, :, 1:] >= 0)
    if not is_twice.any():
        return ""
    layer, rank, slot = np.argwhere(is_twice)[0]
    return (
        f"Expected one replica of an expert on a rank, got two of {ordered[layer, rank, slot]} "
        f"on rank {rank} in layer {layer}."
    )


def _replica_problem(
    phy2log: np.ndarray[Any, Any], num_experts: int, rules: PlacementRules
) -> str:
    """Names an expert with more replicas than the engine takes."""
    if rules.max_replicas == 0:
        return ""
    layer, slot = np.nonzero(phy2log >= 0)
    cells = layer * num_experts + phy2log[layer, slot]
    replicas = np.bincount(cells, minlength=len(phy2log) * num_experts)
    most = int(replicas.argmax())
    if replicas[most] <= rules.max_replicas:
        return ""
    return (
        f"Expected at most {rules.max_replicas} replicas of an expert, got {replicas[most]} of "
        f"{most % num_experts} in layer {most // num_experts}."
    )


def _shuffle_problem(
    ranks: np.ndarray[Any, Any], before: np.ndarray[Any, Any], rules: PlacementRules
) -> str:
    """Names an expert that stays on its rank and changes its slot, where the engine forbids it."""
    if not rules.forbids_moves_inside_rank:
        return ""
    layers, in_layer, slots = np.nonzero((ranks != before) & (ranks >= 0))
    # Rank and expert in one number, ascending: to compare every slot of a rank with every other
    # one would take gigabytes where ranks have many.
    width = 2 + max(int(ranks.max()), int(before.max()))
    home = width * np.arange(before.shape[0] * before.shape[1]).reshape(before.shape[:2])
    was_there = (home[:, :, None] + np.sort(before, axis=2) + 1).reshape(-1)
    is_new = home[layers, in_layer] + ranks[layers, in_layer, slots] + 1
    at = np.minimum(np.searchsorted(was_there, is_new), was_there.size - 1)
    shuffled = np.flatnonzero(was_there[at] == is_new)
    if not len(shuffled):
        return ""
    layer, rank, slot = layers[shuffled[0]], in_layer[shuffled[0]], slots[shuffled[0]]
    return (
        f"Expected experts to keep their slot on a rank, got {ranks[layer, rank, slot]} in "
        f"another one on rank {rank} in layer {layer}."
    )
