"""A placement that is to be published, who asked for it, and the parts that it comes in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from expertplane_server.core.chain import buffered_slots, cut, with_layers
from expertplane_server.core.handmade import describe


if TYPE_CHECKING:
    import numpy as np

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Layers of an offer that go together, within the members' spare buffers.

    Attributes:
        offer: the whole.
        layers: row numbers.
        number: of this part, from 1 on.
        num_parts: of the offer.
    """

    offer: Offer
    layers: np.ndarray[Any, Any]
    number: int
    num_parts: int

    def made(self, state: State) -> Offer:
        """Returns the offer of this part alone, the parts before it being in force.

        Made when its turn comes: to describe a large placement holds the event loop up, and a
        hundred parts at once would do so for as long as participants take to be lost.
        """
        if self.num_parts == 1:
            return self.offer
        offer = self.offer
        phy2log = with_layers(state.in_force, offer.solution.phy2log, self.layers)
        solution = describe(
            phy2log, state.in_force, state.spec, state.recent, origin=offer.solution
        )
        told = f"Part {self.number} of {self.num_parts}, for the buffers of the members."
        return replace(
            offer,
            solution=solution,
            message=f"{told} {offer.message}",
            # Each window is decided on once.
            num_samples=offer.num_samples if self.number == 1 else 0,
            comment=f"{told} {offer.comment}".strip(),
        )


def in_parts(offer: Offer, state: State) -> list[Part]:
    """Returns the parts that lead to a placement: one, unless the members' buffers are small."""
    slots = buffered_slots(state.members, state.spec) if state.is_coordinated else None
    parts = cut(state.in_force, offer.solution.phy2log, state.spec, slots)
    assert parts is not None, "the caller has checked the buffers"
    return [
        Part(offer=offer, layers=layers, number=number, num_parts=len(parts))
        for number, layers in enumerate(parts, start=1)
    ]
