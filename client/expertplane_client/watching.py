"""Where a watch of plans stands: what to ask next, what to make of the answers. Does no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertplane.v1 import plan_service_pb2 as plans_pb2

from .errors import CallCancelledError, CallError, UnavailableError
from .names import check_deployment
from .plan import Plan


if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from .backoff import Backoff


METHOD = "/expertplane.v1.PlanService/WatchPlans"

_STATES = {
    plans_pb2.WATCH_STATE_DEPLOYMENT_UNKNOWN: "The planner knows no deployment {} yet.",
    plans_pb2.WATCH_STATE_WAITING: "{} has no such plan yet.",
}

RESUMABLE = (UnavailableError, CallCancelledError)
"""Errors after which a watch goes on: the planner is away, or gave the call up as it left."""


class WatchCursor:
    """Follows one deployment over as many streams as it takes.

    Args:
        deployment: "namespace/name"; need not exist yet.
        from_version: The lowest version worth having; 0 for whatever is committed.
        backoff: Waits between streams.
        rng: Where the jitter comes from.
        on_wait: Told, in a sentence for people, what the watch waits for whenever that changes.

    Raises:
        InputError: the name is out of its pattern.
    """

    def __init__(
        self,
        deployment: str,
        from_version: int,
        backoff: Backoff,
        rng: random.Random,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self._deployment = check_deployment(deployment)
        self._next_version = from_version
        self._highest_epoch = 0
        self._attempt = 0
        self._backoff = backoff
        self._rng = rng
        self._on_wait = on_wait
        self._waits_for = ""

    def request(self) -> plans_pb2.WatchPlansRequest:
        """Returns what opens the next stream."""
        return plans_pb2.WatchPlansRequest(
            deployment=self._deployment, from_version=self._next_version, omit_derived_maps=True
        )

    def on_response(self, response: plans_pb2.WatchPlansResponse) -> Plan | None:
        """Returns the plan of an answer when it is news.

        Raises:
            ProtocolError: the plan breaks the contract.
        """
        self._attempt = 0
        if response.epoch < self._highest_epoch:
            return None
        self._highest_epoch = response.epoch
        if response.WhichOneof("event") != "plan":
            self._say(_STATES.get(response.state, "").format(self._deployment))
            return None
        self._waits_for = ""
        plan = Plan.from_message(response.plan)
        if plan.version < self._next_version:
            return None
        self._next_version = plan.version + 1
        return plan

    def on_failure(self, error: CallError) -> None:
        """Takes note of a stream that has failed.

        Raises:
            CallError: the watch cannot go on.
        """
        if not isinstance(error, RESUMABLE):
            raise error
        self._say(error.message)

    def _say(self, waits_for: str) -> None:
        if self._on_wait is not None and waits_for not in ("", self._waits_for):
            self._on_wait(waits_for)
        self._waits_for = waits_for

    def delay_s(self) -> float:
        """Returns how long to wait before the next stream, in seconds."""
        delay_s = self._backoff.delay_s(self._attempt, self._rng)
        self._attempt += 1
        return delay_s
