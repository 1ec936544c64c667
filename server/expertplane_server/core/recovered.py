"""What a store holds of one deployment: all that the core needs to go on after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from expertplane_server.core.plan import Decision, ParkedPlan, Plan
    from expertplane_server.core.spec import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A deployment as one transaction read it.

    Attributes:
        deployment: with its counters.
        plans: the latest ones, newest first; the committed one is among them, however old.
        decisions: the latest ones, oldest first.
        parked: placements that participants have refused for good.
        superseded: incarnations that are refused for good, oldest first.
    """

    deployment: Deployment
    plans: tuple[Plan, ...] = ()
    decisions: tuple[Decision, ...] = ()
    parked: tuple[ParkedPlan, ...] = ()
    superseded: tuple[str, ...] = ()
