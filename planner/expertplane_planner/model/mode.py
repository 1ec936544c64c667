"""Whether experts stay on the node of their group or may go anywhere."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from expertplane_planner.errors import InvalidInputError

from .masking import compact, has_even_nodes


if TYPE_CHECKING:
    from .topology import Topology


class Mode(enum.StrEnum):
    """How a plan treats nodes and expert groups."""

    AUTO = "auto"
    """Hierarchical where there are several nodes and the expert groups divide evenly over them,
    global otherwise."""

    HIERARCHICAL = "hierarchical"
    """Whole expert groups go to nodes, and every replica stays on the node of its group."""

    GLOBAL = "global"
    """Nodes and expert groups are ignored: any replica may go to any rank."""

    SOFT_HIERARCHICAL = "soft-hierarchical"
    """Like hierarchical, but a bounded number of replicas per layer may be foreign: on another
    node than the home of their expert's group. Every expert keeps a replica at home."""

    @property
    def is_by_node(self) -> bool:
        """Whether expert groups have a node that they belong to."""
        return self in (Mode.HIERARCHICAL, Mode.SOFT_HIERARCHICAL)


def resolve_mode(
    mode: Mode, topology: Topology, num_logical_experts: int, num_expert_groups: int
) -> Mode:
    """Return the mode that a solve will run in, never `Mode.AUTO`.

    Hierarchical mode on a single node is allowed. It then bounds nothing, but looks at experts
    group by group, hottest group first, so that ties may fall differently from global mode; with
    one expert group the two are the same.

    Nodes are those that keep active ranks; they must keep equally many for experts to be tied to.

    Args:
        mode: What the caller asked for.
        topology: Where the experts go.
        num_logical_experts: Logical experts per layer.
        num_expert_groups: Routing groups of consecutive logical experts, 1 if there are none.

    Raises:
        InvalidInputError: No such mode, fewer than one expert group, or a hierarchical mode asked
            for where expert groups do not divide evenly over nodes, logical experts over expert
            groups, or active ranks over nodes.
    """
    if mode not in tuple(Mode):
        raise InvalidInputError(
            "mode", f"Expected mode to be one of {', '.join(Mode)}, got '{mode}'."
        )
    # A mode's name, as from a command line, equals the member but is not the member.
    mode = Mode(mode)
    if num_expert_groups < 1:
        raise InvalidInputError(
            "num_expert_groups",
            f"Expected num_expert_groups to be positive, got {num_expert_groups}.",
        )
    if mode.is_by_node and not has_even_nodes(topology):
        raise InvalidInputError(
            "topology.masked_ranks",
            f"Expected nodes to keep equally many active ranks in {mode} mode, "
            f"got masked ranks {list(topology.masked_ranks)} of {topology.num_ranks} "
            f"on {topology.num_nodes} nodes.",
        )
    # Slots divide evenly over nodes by the birth of a topology.
    num_nodes = compact(topology).num_nodes
    groups_fit_nodes = num_expert_groups % num_nodes == 0
    experts_fit_groups = num_logical_experts % num_expert_groups == 0
    if mode is Mode.AUTO:
        fits = num_nodes > 1 and groups_fit_nodes and experts_fit_groups
        return Mode.HIERARCHICAL if fits else Mode.GLOBAL
    if mode.is_by_node and not groups_fit_nodes:
        raise InvalidInputError(
            "num_expert_groups",
            f"Expected num_expert_groups to be a multiple of num_nodes in {mode} mode, "
            f"got {num_expert_groups} and {num_nodes}.",
        )
    if mode.is_by_node and not experts_fit_groups:
        raise InvalidInputError(
            "num_expert_groups",
            f"Expected num_logical_experts to be a multiple of num_expert_groups in {mode} "
            f"mode, got {num_logical_experts} and {num_expert_groups}.",
        )
    return mode
