"""What speaks against a publication, beyond what it would gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane_server.core.chain import buffered_slots, cut
from expertplane_server.core.plan import Reason


if TYPE_CHECKING:
    import numpy as np

    from expertplane_server.core.state import State

Refusal = tuple[Reason, str]


def paused(state: State) -> Refusal | None:
    """Says that an operator has paused the deployment, if one has."""
    if not state.deployment.is_paused:
        return None
    comment = state.deployment.pause_comment
    told = f": {comment}" if comment else ""
    return Reason.SKIPPED_PAUSED, f"An operator has paused the deployment{told}."


def held_down(state: State, now_s: float) -> Refusal | None:
    """Says that automatic publication rests, if it does."""
    left_s = state.held_until_s - now_s
    if left_s <= 0.0:
        return None
    message = (
        f"After a roll-back or an operator's plan, publication rests for {left_s:.0f} s more."
    )
    return Reason.SKIPPED_HOLD_DOWN, message


def staging_obstacle(
    state: State, phy2log: np.ndarray[Any, Any] | None, digest: str
) -> Refusal | None:
    """Returns why the members cannot stage a plan together, or None.

    Args:
        state: where the deployment stands.
        phy2log: [L, P], the placement; None when it is yet to be solved.
        digest: of the placement; empty when it is yet to be solved.
    """
    return _members_missing(state) or _refused(state, digest) or _buffers_too_small(state, phy2log)


def _members_missing(state: State) -> Refusal | None:
    """Names a rank that nobody answers for."""
    topology, owned = state.spec.topology, state.members.ranks
    missing = [rank for rank in topology.active_ranks if rank not in owned]
    if not missing:
        return None
    message = (
        f"Expected members for all {topology.num_active_ranks} ranks, got none for "
        f"{len(missing)} of them, rank {missing[0]} among them."
    )
    return Reason.SKIPPED_MEMBERS_MISSING, message


def _refused(state: State, digest: str) -> Refusal | None:
    """Names a member that has refused the placement for good."""
    for member in state.members:
        if digest in member.refused:
            who = member.hello.participant
            message = f"Expected a placement that all members take; {who} has refused it."
            return Reason.SKIPPED_PLAN_REFUSED, message
    return None


def _buffers_too_small(state: State, phy2log: np.ndarray[Any, Any] | None) -> Refusal | None:
    """Says that a single layer of the plan is too much for the spare buffers."""
    slots = buffered_slots(state.members, state.spec)
    if slots is None:
        return None
    is_too_small = slots == 0
    if phy2log is not None:
        is_too_small = cut(state.in_force, phy2log, state.spec, slots) is None
    if not is_too_small:
        return None
    message = (
        "Expected spare buffers for what a rank fetches in one layer, "
        f"got room for {slots} experts."
    )
    return Reason.SKIPPED_BUFFERS_TOO_SMALL, message


def max_moved_slots(state: State) -> int | None:
    """Returns the slots that a layer may move so that it surely fits the members' buffers.

    None where any layer does: a rank never fetches more experts than it has slots.
    """
    if not state.is_coordinated:
        return None
    slots = buffered_slots(state.members, state.spec)
    return None if slots is None or slots >= state.spec.topology.slots_per_rank else slots
