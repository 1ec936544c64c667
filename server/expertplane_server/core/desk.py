"""Operators' orders: checked against the present state, carried out, answered once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.errors import (
    ConflictError,
    FailedPreconditionError,
    InvalidArgumentError,
    ServiceError,
    UnavailableError,
)
from expertplane_server.core.handmade import OPERATOR, START, describe
from expertplane_server.core.offers import Asked, Offer
from expertplane_server.core.placements import check_placement, check_rules, without_masked
from expertplane_server.core.plan import Reason
from expertplane_server.core.spec import RolloutMode


if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from expertplane_server.core.cycle import PlanningCycle
    from expertplane_server.core.plan import Solution
    from expertplane_server.core.publication import Publication
    from expertplane_server.core.spec import Deployment
    from expertplane_server.core.state import State

_IN_DOUBT = "The store has yet to tell what became of the last write; ask again."


@dataclass(slots=True)
class _Pending:
    """A change of the deployment that the store was asked for.

    Attributes:
        is_done: tells, of what the store holds, whether the change has been made.
    """

    order: int
    is_done: Callable[[Deployment], bool]
    error: ServiceError | None = None


class OrderDesk:
    """Takes orders. A refusal changes nothing."""

    def __init__(self, state: State, publication: Publication, cycle: PlanningCycle) -> None:
        self._state = state
        self._publication = publication
        self._cycle = cycle
        self._pending: _Pending | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the store was asked to change the deployment and has not answered."""
        return self._pending is not None

    def take(self, event: ev.Order, now: ev.Instant) -> list[fx.Effect]:
        """Carries an order out, or answers why not."""
        try:
            self._check_head(event.expected_head)
            if self._publication.is_in_doubt or self.is_waiting:
                raise UnavailableError(_IN_DOUBT, reason="STORE_IN_DOUBT")
            return self._carry_out(event, now)
        except ServiceError as error:
            return [fx.Answer(event.order, error)]

    def _carry_out(self, event: ev.Order, now: ev.Instant) -> list[fx.Effect]:
        match event.action:
            case orders.Publish(phy2log, _, comment):
                return self._publish(event, phy2log, comment, now)
            case orders.RollBack():
                return self._roll_back(event, event.action, now)
            case orders.Rebalance():
                asked = Asked(order=event.order, request=event.request, is_for_decision=True)
                return self._cycle.rebalance(asked, now)
            case orders.Pause(comment):
                return self._pause(event, is_paused=True, comment=comment)
            case orders.Resume():
                return self._pause(event, is_paused=False, comment="")
            case orders.Update():
                return self._update(event, event.action)

    def _check_head(self, expected: int | None) -> None:
        """Refuses what was asked with another head in mind."""
        head = self._state.deployment.head
        if expected not in (None, head):
            raise ConflictError(
                f"Expected the current head {head}, got {expected}.",
                field="expected_head",
                reason="STALE_HEAD",
            )

    # Content.

    def _publish(
        self, event: ev.Order, phy2log: np.ndarray[Any, Any], comment: str, now: ev.Instant
    ) -> list[fx.Effect]:
        """Publishes the operator's own placement."""
        state = self._state
        check_placement(phy2log, state.spec, "phy2log")
        check_rules(phy2log, state.in_force, state.spec, "phy2log")
        solution = describe(phy2log, state.in_force, state.spec, state.recent, policy=OPERATOR)
        message = f"An operator's own placement{f': {comment}' if comment else ''}."
        offer = Offer(
            solution=solution,
            reason=Reason.PUBLISHED_BY_OPERATOR,
            message=message,
            num_samples=len(state.recent),
            comment=comment,
        )
        return self._offer(event, offer, now)

    def _roll_back(
        self, event: ev.Order, action: orders.RollBack, now: ev.Instant
    ) -> list[fx.Effect]:
        """Publishes earlier content under a new version."""
        state, plan = self._state, action.plan
        version = plan.version if plan is not None else 0
        start = without_masked(state.intake.initial, state.spec.topology)
        phy2log = plan.phy2log if plan is not None else start
        origin: Solution | None = plan.draft.solution if plan is not None else None
        try:
            check_placement(phy2log, state.spec, "to_version")
            check_rules(phy2log, state.in_force, state.spec, "to_version")
        except InvalidArgumentError as error:
            # The request is in order: it is the ranks, or the rules, that have changed since.
            raise FailedPreconditionError(
                f"Version {version} no longer fits the deployment. {error.message}",
                field="to_version",
                reason="VERSION_UNFIT",
            ) from None
        solution = describe(
            phy2log, state.in_force, state.spec, state.recent, origin=origin, policy=START
        )
        offer = Offer(
            solution=solution,
            reason=Reason.ROLLED_BACK,
            message=f"An operator rolled back to the content of version {version}.",
            num_samples=len(state.recent),
            comment=f"Content of version {version}.",
        )
        return self._offer(event, offer, now)

    def _offer(self, event: ev.Order, offer: Offer, now: ev.Instant) -> list[fx.Effect]:
        """Publishes a placement unless something speaks against it."""
        if self._state.spec.rollout_mode is RolloutMode.SHADOW:
            raise FailedPreconditionError(
                "Expected a roll-out mode that publishes, got shadow.", reason="SHADOW_MODE"
            )
        refusal = self._publication.obstacle(
            offer.solution.phy2log, offer.solution.digest, is_order=True
        )
        if refusal is not None:
            reason, message = refusal
            raise FailedPreconditionError(message, reason=reason.removeprefix("SKIPPED_"))
        return self._publication.publish(
            offer, now, Asked(order=event.order, request=event.request)
        )

    # The deployment itself.

    def _pause(self, event: ev.Order, *, is_paused: bool, comment: str) -> list[fx.Effect]:
        """Stops automatic publication, or lets it go on."""

        def is_done(deployment: Deployment) -> bool:
            return (deployment.is_paused, deployment.pause_comment) == (is_paused, comment)

        self._pending = _Pending(event.order, is_done)
        return [fx.StorePause(is_paused=is_paused, comment=comment, request=event.request)]

    def _update(self, event: ev.Order, action: orders.Update) -> list[fx.Effect]:
        """Replaces the spec; other ranks, layers or experts begin a new generation."""
        deployment = self._state.deployment
        if action.etag != deployment.etag:
            raise ConflictError(
                f"Expected the current etag {deployment.etag!r}, got {action.etag!r}.",
                field="etag",
                reason="STALE_ETAG",
            )
        if action.spec == deployment.spec:
            return [fx.Answer(event.order, deployment)]
        is_new_generation = not action.spec.has_same_ranks(deployment.spec)

        def is_done(found: Deployment) -> bool:
            return found.spec == action.spec

        self._pending = _Pending(event.order, is_done)
        return [
            fx.StoreSpec(
                spec=action.spec,
                etag=action.etag,
                is_new_generation=is_new_generation,
                request=event.request,
            )
        ]

    def on_deployment_stored(self) -> list[fx.Effect]:
        """Answers the order that has changed the deployment."""
        pending, self._pending = self._pending, None
        assert pending is not None, "the store answered a question that was not asked"
        return [fx.Answer(pending.order, self._state.deployment)]

    def on_store_failed(self, event: ev.StoreFailed) -> list[fx.Effect]:
        """Answers a refusal; waits for the truth where the outcome is not known."""
        pending = self._pending
        assert pending is not None, "the store answered a question that was not asked"
        if not event.is_refusal:
            pending.error = event.error
            return self._publication.on_store_failed(event.error)
        self._pending = None
        return [fx.Answer(pending.order, event.error)]

    def on_read_back(self, found: Deployment) -> list[fx.Effect]:
        """Answers the order whose outcome was not known."""
        pending = self._pending
        if pending is None or pending.error is None:
            return []
        self._pending = None
        if pending.is_done(found):
            return [fx.Answer(pending.order, self._state.deployment)]
        return [fx.Answer(pending.order, pending.error)]
