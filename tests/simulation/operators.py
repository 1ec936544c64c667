"""Operators: they ask for everything that may be asked for, rightly and wrongly, and repeat it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.wire import digest_phy2log
from expertplane_server.core import events as ev, orders
from expertplane_server.core.errors import ServiceError
from expertplane_server.core.plan import Plan, Request

from .loop import ViolationError
from .scenario import nudged, random_placement, redrawn


if TYPE_CHECKING:
    from .planner_model import Planner
    from .world import World


@dataclass(slots=True)
class _Asked:
    """An order that waits for its answer."""

    planner: Planner
    event: ev.Order


class Operators:
    """Everybody who may give orders.

    Attributes:
        latest_answer: what the last answer was.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: dict[int, _Asked] = {}
        self._num_orders = 0
        self._num_requests = 0
        # By request id: the plan version that it was answered with first.
        self._answers: dict[str, int] = {}
        self.latest_answer: Any = None

    @property
    def open_orders(self) -> list[int]:
        """The orders that wait for their answers."""
        return list(self._open)

    def pulse(self) -> None:
        """Ask for something, now and again."""
        world = self._world
        if world.is_calm:
            return
        if world.planner is not None and world.planner.is_serving:
            self._ask(self._draw_call())
        usual_s = world.scenario.order_interval_s
        world.loop.after(world.loop.rng.uniform(0.3, 1.7) * usual_s, self.pulse)

    def publish(self, placement: np.ndarray[Any, Any]) -> int:
        """Ask for a placement to be published, and return the number of the order."""
        action = orders.Publish(placement, digest_phy2log(placement))
        return self._ask((action, "publish", None))

    def is_open(self, order: int) -> bool:
        """Tell whether an order waits for its answer."""
        return order in self._open

    def answered(self, planner: Planner, order: int, answer: Any) -> None:
        """Take the answer to an order; there is one for each."""
        asked = self._open.pop(order, None)
        if asked is None or asked.planner is not planner:
            raise ViolationError("orders", f"Expected one answer to order {order}, got another.")
        self.latest_answer = answer
        if isinstance(answer, Plan):
            self._world.watch.shows(answer)
        request = asked.event.request
        if isinstance(answer, Plan) and request is not None:
            first = self._answers.setdefault(request.id, answer.version)
            if first != answer.version:
                raise ViolationError(
                    "orders",
                    f"Expected version {first} for a repeated request, got {answer.version}.",
                )
        if request is not None and self._world.loop.rng.random() < 0.1:
            self._repeat(asked.event)

    def planner_died(self, planner: Planner) -> None:
        """Give up on what a dead planner was asked; ask the next one for some of it again."""
        lost = [asked for asked in self._open.values() if asked.planner is planner]
        for asked in lost:
            del self._open[asked.event.order]
            if asked.event.request is not None and self._world.loop.rng.random() < 0.7:
                self._world.loop.after(3.0, self._repeat, asked.event)

    def store_restored(self) -> None:
        """Forget what requests were answered with: the store has forgotten it, too."""
        self._answers.clear()

    def _repeat(self, event: ev.Order) -> None:
        world = self._world
        planner = world.planner
        if planner is not None and planner.is_serving and not world.is_calm:
            assert event.request is not None
            self._ask((event.action, event.request.call, event.request), event.expected_head)

    def _ask(
        self, call: tuple[orders.Action, str, Request | None], expected_head: int | None = None
    ) -> int:
        planner = self._world.planner
        assert planner is not None
        action, _, request = call
        self._num_orders += 1
        event = ev.Order(
            order=self._num_orders, action=action, request=request, expected_head=expected_head
        )
        self._open[event.order] = _Asked(planner, event)
        planner.submit(event)
        return event.order

    def _draw_call(self) -> tuple[orders.Action, str, Request | None]:
        rng = self._world.loop.rng
        turn = rng.random()
        action: orders.Action
        if turn < 0.4:
            action, call = self._draw_publish(), "publish"
        elif turn < 0.55:
            plans = self._world.disk.stored()
            action, call = orders.RollBack(rng.choice([None, *plans])), "rollback"
        elif turn < 0.75:
            action, call = orders.Rebalance(), "rebalance"
        elif turn < 0.82:
            action, call = orders.Pause("tired"), "pause"
        elif turn < 0.9:
            action, call = orders.Resume(), "resume"
        else:
            deployment = self._world.disk.deployment
            etag = deployment.etag if rng.random() < 0.8 else "stale"
            action, call = orders.Update(redrawn(rng, deployment.spec), etag), "update"
        request = None
        if rng.random() < 0.7:
            self._num_requests += 1
            request = Request(f"request-{self._num_requests}", call)
        return action, call, request

    def _draw_publish(self) -> orders.Publish:
        world, rng = self._world, self._world.loop.rng
        spec = world.disk.deployment.spec
        placement = random_placement(rng, spec)
        turn = rng.random()
        plans = world.disk.stored()
        if plans and turn < 0.5:
            placement = nudged(rng, spec, plans[0].phy2log, rng.randint(1, 3))
        elif turn < 0.6:
            placement[0, :] = placement[0, 0]
        elif turn < 0.65:
            placement[-1, -1] = spec.num_logical_experts
        elif turn < 0.7:
            placement = np.ascontiguousarray(placement[:, :-1])
        elif turn < 0.75:
            placement[:, : spec.topology.slots_per_rank] = -1
        return orders.Publish(placement, digest_phy2log(placement))


def is_refusal(answer: Any) -> bool:
    """Tell whether an order was refused."""
    return isinstance(answer, ServiceError)
