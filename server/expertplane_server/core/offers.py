"""A placement that is to be published, who asked for it, and the parts that it comes in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from expertplane_server.core.chain import buffered_slots, cut
from expertplane_server.core.handmade import describe


if TYPE_CHECKING:
    from expertplane_server.core.plan import Reason, Request, Solution
    from expertplane_server.core.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The order that a publication answers, if it was not the planner's own idea.

    Attributes:
        order: its number.
        request: what to remember with it.
        is_for_decision: it is answered with the decision; else with the plan.
    """

    order: int
    request: Request | None
    is_for_decision: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A placement, and what the decision will say of it."""

    solution: Solution
    reason: Reason
    message: str
    num_samples: int = 0
    comment: str = ""


def in_parts(offer: Offer, state: State) -> list[Offer]:
    """Returns the offers that lead to a placement, each within the members' spare buffers."""
    if not state.is_coordinated:
        return [offer]
    slots = buffered_slots(state.members, state.spec)
    maps = cut(state.in_force, offer.solution.phy2log, state.spec, slots)
    assert maps is not None, "the caller has checked the buffers"
    if len(maps) == 1:
        return [offer]
    parts, before = [], state.in_force
    for number, phy2log in enumerate(maps, start=1):
        solution = describe(phy2log, before, state.spec, state.recent, origin=offer.solution)
        told = f"Part {number} of {len(maps)}, for the buffers of the members."
        parts.append(
            replace(
                offer,
                solution=solution,
                message=f"{told} {offer.message}",
                # Each window is decided on once.
                num_samples=offer.num_samples if number == 1 else 0,
                comment=f"{told} {offer.comment}".strip(),
            )
        )
        before = phy2log
    return parts
