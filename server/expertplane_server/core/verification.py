"""After a switch: would the plan before have done better on the load that followed?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertplane_server.core.plan import Reason
from expertplane_server.core.scoring import summed_maximum


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from expertplane_server.core.plan import Plan, Solution
    from expertplane_server.core.spec import TopologySpec


NUM_WINDOWS = 3
"""Windows that a plan is watched for; later on, traffic is no more what it was made for."""


class Verification:
    """Scores a plan and its predecessor on the same samples, so that load shifts cancel out.

    Attributes:
        plan: the plan that is watched.
        previous: [L, P], the placement before it.
        origin: the solution of that placement; None for the start placement.
        is_applied: all members have switched to the plan; windows count from then on.
        is_reported: somebody has been told that it does badly.
    """

    def __init__(
        self, plan: Plan, previous: np.ndarray[Any, Any], origin: Solution | None
    ) -> None:
        self.plan = plan
        self.previous = previous
        self.origin = origin
        self.is_applied = False
        self.is_reported = False
        self._new = self._old = 0.0
        self._num_windows = 0

    @property
    def is_over(self) -> bool:
        """Whether the plan has been watched long enough."""
        return self._num_windows >= NUM_WINDOWS

    @property
    def loss(self) -> float:
        """Summed maximum rank load over all windows so far, over that of the predecessor, less 1.

        Negative where the plan does better; 0 before the first window.
        """
        return self._new / self._old - 1.0 if self._old > 0.0 else 0.0

    def add(self, samples: Sequence[np.ndarray[Any, Any]], topology: TopologySpec) -> None:
        """Takes a window, K times [L, E] tokens, that came after all members had switched."""
        if self.is_applied:
            self._new += summed_maximum(self.plan.phy2log, samples, topology)
            self._old += summed_maximum(self.previous, samples, topology)
            self._num_windows += 1


def is_watched(plan: Plan) -> bool:
    """Tells whether a plan may be taken back for what it does.

    An operator's word stands, and what replaces a placement that could not stay has no predecessor
    to go back to.
    """
    draft = plan.draft
    return draft.reason is Reason.PUBLISHED and draft.solution.necessity is None
