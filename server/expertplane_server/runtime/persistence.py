"""Carries out what the core wants of the store, and tells it what became of that.

What the core has to know is answered by an event, success or not. A refusal by the store changed
nothing; of any other failure nobody knows what it did, and the core will ask. What is best effort
is logged when it fails.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.errors import ServiceError, UnavailableError
from expertplane_server.store.refusals import is_repeated


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from expertplane_server.core.group import Group
    from expertplane_server.core.plan import Decision, Plan, Request
    from expertplane_server.core.recovered import Recovered
    from expertplane_server.core.spec import Deployment
    from expertplane_server.runtime.services import Services
    from expertplane_server.store import Store

logger = logging.getLogger(__name__)

T = TypeVar("T")

PLANS_RECOVERED = 16
"""Plans that the core starts with: what physical counts and a roll-back may refer to."""


class Persistence:
    """The store as one deployment's driver uses it.

    Args:
        group: the core; read for its name and term.
        services: store, clock, metrics.
    """

    def __init__(self, group: Group, services: Services) -> None:
        self._group = group
        self._name = group.deployment.name
        self._services = services
        self._answered: dict[type, Callable[[Any], Awaitable[ev.Event]]] = {
            fx.StorePlan: self._store_plan,
            fx.CommitPlan: self._commit_plan,
            fx.AbortPlan: self._abort_plan,
            fx.StorePause: self._store_pause,
            fx.StoreSpec: self._store_spec,
        }
        self._noted: dict[type, Callable[[Any], Awaitable[None]]] = {
            fx.StoreApplied: self._note_applied,
            fx.StoreParked: self._note_parked,
            fx.StoreSuperseded: self._note_superseded,
            fx.Record: self._note_decision,
        }

    async def carry_out(self, effect: fx.Effect) -> ev.Event | None:
        """Carries out a store effect.

        Returns:
            The answer that the core waits for; None where it waits for none.
        """
        if isinstance(effect, fx.ReadBack):
            return ev.ReadBack(await self._recover())
        if type(effect) in self._noted:
            await self._note(effect)
            return None
        if type(effect) not in self._answered:
            raise AssertionError(f"no way to carry out {type(effect).__name__}")
        try:
            return await self._answered[type(effect)](effect)
        except Exception as error:  # whatever it is, the core must hear of it
            told = self.refusal_of(error)
            return ev.StoreFailed(error=told, is_refusal=not isinstance(told, UnavailableError))

    async def raise_counters(self, effect: fx.RaiseCounters) -> ev.CountersRaised:
        """Makes versions and epochs jump past what a participant has seen.

        Raises:
            ServiceError: they could not be raised.
        """
        head, epoch = await self._run(
            "raise_counters",
            lambda store: store.raise_counters(
                self._name, version=effect.version, epoch=effect.epoch
            ),
        )
        logger.warning("%s: counters raised to version %d, epoch %d", self._name, head, epoch)
        return ev.CountersRaised(head=head, epoch=epoch)

    async def first_answer(
        self, action: orders.Action, request: Request
    ) -> Plan | Decision | Deployment | None:
        """Returns the answer to a call that was carried out before; None to a new one.

        Args:
            action: what is asked for.
            request: whose id may have been used before.

        Raises:
            ConflictError: the request id was used for another call.
            NotFoundError: the answer is not kept any more.
            ServiceError: the store cannot be read.
        """
        first = await self._run("answered", lambda store: store.answered(request.id))
        if not is_repeated(request, first):
            return None
        assert first is not None
        answer = first.answer
        match action:
            case orders.Publish() | orders.RollBack():
                return await self._run("plan", lambda store: store.plan(self._name, answer))
            case orders.Rebalance():
                return await self._run(
                    "decision", lambda store: store.decision(self._name, answer)
                )
            case _:
                return self._group.deployment

    def refusal_of(self, error: Exception) -> ServiceError:
        """Returns what others are told of an error; one that is no refusal is a defect."""
        if isinstance(error, ServiceError):
            return error
        self._services.metrics.core_errors.inc()
        logger.error("%s: defect", self._name, exc_info=error)
        return UnavailableError(f"{type(error).__name__}: {error}", reason="DEFECT")

    async def _run(self, name: str, operation: Callable[[Store], T]) -> T:
        """Returns what an operation makes of the store."""
        self._services.crash_points.before(name)
        result = await self._services.store.run(name, operation)
        self._services.crash_points.after(name)
        return result

    def _now_s(self) -> float:
        """Returns the wall-clock time, in seconds."""
        return self._services.clock.now().wall_s

    async def _recover(self) -> Recovered | None:
        """Reads what the store really holds; None when it cannot be read."""
        try:
            return await self._run(
                "recover", lambda store: store.recover(self._name, num_plans=PLANS_RECOVERED)
            )
        except Exception as error:
            told = self.refusal_of(error).message
            logger.warning("%s: cannot be read back: %s", self._name, told)
            return None

    # What the core waits for.

    async def _store_plan(self, effect: fx.StorePlan) -> ev.Event:
        epoch, now_s = self._group.epoch, self._now_s()
        plan = await self._run(
            "publish",
            lambda store: store.publish(
                effect.draft,
                state=effect.state,
                decision=effect.decision,
                expected_head=effect.expected_head,
                epoch=epoch,
                request=effect.request,
                now_s=now_s,
            ),
        )
        return ev.Stored(plan=plan)

    async def _commit_plan(self, effect: fx.CommitPlan) -> ev.Event:
        version, epoch = effect.version, self._group.epoch
        await self._run("commit", lambda store: store.commit(self._name, version, epoch=epoch))
        return ev.PlanCommitted(version=version)

    async def _abort_plan(self, effect: fx.AbortPlan) -> ev.Event:
        version, epoch, now_s = effect.version, self._group.epoch, self._now_s()
        await self._run(
            "abort",
            lambda store: store.abort(
                self._name, version, decision=effect.decision, epoch=epoch, now_s=now_s
            ),
        )
        return ev.PlanAborted(version=version)

    async def _store_pause(self, effect: fx.StorePause) -> ev.Event:
        epoch, now_s = self._group.epoch, self._now_s()
        deployment = await self._run(
            "set_paused",
            lambda store: store.set_paused(
                self._name,
                is_paused=effect.is_paused,
                comment=effect.comment,
                epoch=epoch,
                request=effect.request,
                now_s=now_s,
            ),
        )
        return ev.DeploymentStored(deployment=deployment)

    async def _store_spec(self, effect: fx.StoreSpec) -> ev.Event:
        epoch, now_s = self._group.epoch, self._now_s()
        deployment = await self._run(
            "update_deployment",
            lambda store: store.update_deployment(
                self._name,
                effect.spec,
                etag=effect.etag,
                is_new_generation=effect.is_new_generation,
                epoch=epoch,
                request=effect.request,
                now_s=now_s,
            ),
        )
        return ev.DeploymentStored(deployment=deployment)

    # Best effort.

    async def _note(self, effect: fx.Effect) -> None:
        """Carries out what nobody waits for; a failure is logged."""
        try:
            await self._noted[type(effect)](effect)
        except Exception as error:
            told = self.refusal_of(error).message
            logger.warning("%s: %s not stored: %s", self._name, _described(effect), told)

    async def _note_applied(self, effect: fx.StoreApplied) -> None:
        epoch = self._group.epoch
        await self._run(
            "mark_applied",
            lambda store: store.mark_applied(self._name, effect.version, epoch=epoch),
        )

    async def _note_parked(self, effect: fx.StoreParked) -> None:
        epoch = self._group.epoch
        await self._run("park", lambda store: store.park(self._name, effect.parked, epoch=epoch))

    async def _note_superseded(self, effect: fx.StoreSuperseded) -> None:
        epoch = self._group.epoch
        await self._run(
            "supersede",
            lambda store: store.supersede(self._name, effect.incarnation, epoch=epoch),
        )

    async def _note_decision(self, effect: fx.Record) -> None:
        if effect.is_stored:
            return
        epoch, now_s = self._group.epoch, self._now_s()
        await self._run(
            "record",
            lambda store: store.record(
                self._name, effect.decision, epoch=epoch, request=effect.request, now_s=now_s
            ),
        )


def _described(effect: fx.Effect) -> str:
    """Names an effect for people."""
    match effect:
        case fx.StoreApplied(version):
            return f"that v{version} is applied"
        case fx.Record(decision):
            return f"decision {decision.sequence}"
        case fx.StoreParked(parked):
            return f"the refusal of {parked.participant}"
        case _:
            return type(effect).__name__
