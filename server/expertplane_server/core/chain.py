"""A plan in parts, where the members' spare buffers are too small for the whole.

Layers are placed independently of each other, so a map that has some rows of the new plan and the
others of the old one is a placement like any other: a plan is cut between layers, never inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane_server.core.placements import experts_held, masked_slots
from expertplane_server.core.scoring import fetched_slots


if TYPE_CHECKING:
    from expertplane_server.core.members import Membership
    from expertplane_server.core.spec import DeploymentSpec


def buffered_slots(members: Membership, spec: DeploymentSpec) -> int | None:
    """Returns how many experts fit into the spare buffers of every rank; None without a limit.

    Where the size of an expert is not known, no limit can be told; a member that has no room
    refuses.
    """
    size = spec.migration.bytes_per_expert
    limits = [member.hello.max_staged_bytes for member in members]
    bounded = [limit for limit in limits if limit > 0]
    return min(bounded) // size if bounded and size else None


def cut(
    in_force: np.ndarray[Any, Any],
    target: np.ndarray[Any, Any],
    spec: DeploymentSpec,
    max_slots: int | None,
) -> list[np.ndarray[Any, Any]] | None:
    """Returns the layers that change together on the way from one placement to another.

    Args:
        in_force: [L, P], what the ranks serve with.
        target: [L, P], what they are to serve with in the end.
        spec: of the deployment.
        max_slots: experts that a rank may fetch at a time; None for any number.

    Returns:
        Row numbers for each part, at least one part, each within the buffers; None where a single
        layer is too much. Layers that are no placements any more, experts lost or slots empty,
        come first, all at once.
    """
    if max_slots is None:
        return [np.arange(len(target))]
    topology = spec.topology
    is_empty = (in_force < 0) & ~masked_slots(topology)
    # Into an empty slot weights go at once: a buffer is for what waits until others may go.
    fetched = fetched_slots(in_force, target, topology.num_ranks)
    num_empty = is_empty.reshape(len(in_force), topology.num_ranks, -1).sum(axis=2)
    fetched = np.maximum(fetched - num_empty, 0)
    is_changed = (in_force != target).any(axis=1)
    is_held = experts_held(in_force, spec.num_logical_experts).all(axis=1)
    is_whole = is_held & ~is_empty.any(axis=1)
    part = np.flatnonzero(~is_whole).tolist()
    load = fetched[part].sum(axis=0)
    changed = np.flatnonzero(is_changed & is_whole).tolist()
    if max(load.max(initial=0), fetched[changed].max(initial=0)) > max_slots:
        return None
    parts: list[np.ndarray[Any, Any]] = []
    for layer in changed:
        if (load + fetched[layer]).max() > max_slots:
            parts.append(np.array(part))
            part, load = [], np.zeros_like(load)
        part.append(layer)
        load = load + fetched[layer]
    return [*parts, np.array(part, dtype=np.intp)]


def with_layers(
    in_force: np.ndarray[Any, Any], target: np.ndarray[Any, Any], layers: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Returns [L, P], a placement with some layers of another."""
    phy2log = in_force.copy()
    phy2log[layers] = target[layers]
    return phy2log
