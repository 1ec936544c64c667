"""The deployments that this process serves, each with its driver."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from expertplane_server.core import effects as fx, limits
from expertplane_server.core.errors import ExhaustedError, NotFoundError
from expertplane_server.core.group import Group
from expertplane_server.runtime.driver import Driver
from expertplane_server.runtime.persistence import PLANS_RECOVERED
from expertplane_server.store.refusals import no_such_deployment


if TYPE_CHECKING:
    from collections.abc import Coroutine

    from expertplane_server.core.plan import Plan
    from expertplane_server.core.spec import DeploymentSpec
    from expertplane_server.runtime.services import Services

logger = logging.getLogger(__name__)

T = TypeVar("T")
_ANY_VERSION = 2**63 - 1


class Directory:
    """Finds, makes and removes drivers. Used from the event loop alone.

    Args:
        services: what every driver shares.
        epoch: the store's epoch.
        heartbeat_interval_s: how often participants hear from the planner.
        report_interval_s: how often they report load while the planner keeps up.
    """

    def __init__(
        self,
        services: Services,
        *,
        epoch: int,
        heartbeat_interval_s: float,
        report_interval_s: float = 1.0,
    ) -> None:
        self.services = services
        self.epoch = epoch
        self._heartbeat_interval_s = heartbeat_interval_s
        self._report_interval_s = report_interval_s
        self._drivers: dict[str, Driver] = {}
        # Store and drivers change together: one creation or removal at a time.
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()
        self._warming: set[asyncio.Task[None]] = set()
        services.metrics.epoch.set(epoch)

    async def load(self) -> None:
        """Starts a driver for every stored deployment."""
        for deployment in await self.services.store.run("deployments", lambda s: s.deployments()):
            await self._open(deployment.name)

    async def warmed(self) -> None:
        """Waits until the solver has compiled what the deployments so far need."""
        await asyncio.gather(*self._warming)

    def get(self, name: str) -> Driver:
        """Returns the driver of a deployment.

        Raises:
            NotFoundError: there is no such deployment.
        """
        driver = self._drivers.get(name)
        if driver is None:
            raise no_such_deployment(name)
        return driver

    def find(self, name: str) -> Driver | None:
        """Returns the driver of a deployment, or None."""
        return self._drivers.get(name)

    def after(self, name: str) -> list[Driver]:
        """Returns the drivers of all deployments with a greater name, by name."""
        return [self._drivers[each] for each in sorted(self._drivers) if each > name]

    async def create(self, name: str, spec: DeploymentSpec, *, request_id: str) -> Driver:
        """Adds a deployment, durably, and starts its driver.

        Raises:
            AlreadyExistsError: the name is taken.
            ConflictError: the request id was used for something else.
            ExhaustedError: there are too many deployments.
        """
        return await self._finish(self._create(name, spec, request_id))

    async def delete(self, name: str, *, etag: str, request_id: str) -> None:
        """Removes a deployment; its participants are told that it is unknown now.

        Raises:
            NotFoundError: there is no such deployment.
            ConflictError: the etag is stale, or the request id was used for something else.
        """
        await self._finish(self._delete(name, etag, request_id))

    async def _finish(self, change: Coroutine[Any, Any, T]) -> T:
        """Runs a change to its end, also when the caller goes away: half of one would be worse."""

        async def alone() -> T:
            async with self._changing:
                return await change

        task = asyncio.create_task(alone())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def _create(self, name: str, spec: DeploymentSpec, request_id: str) -> Driver:
        """Adds a deployment, durably, and starts its driver."""
        if name not in self._drivers and len(self._drivers) >= limits.MAX_DEPLOYMENTS:
            raise ExhaustedError(
                f"Expected at most {limits.MAX_DEPLOYMENTS} deployments.",
                retry_after_s=60.0,
                reason="TOO_MANY_DEPLOYMENTS",
            )
        now_s = self.services.clock.now().wall_s
        _, is_new = await self.services.store.run(
            "create_deployment",
            lambda s: s.create_deployment(name, spec, request_id=request_id, now_s=now_s),
        )
        driver = self._drivers.get(name)
        if driver is not None:
            return driver
        logger.info("%s: %s", name, "created" if is_new else "found, by a repeated request")
        return await self._open(name)

    async def _delete(self, name: str, etag: str, request_id: str) -> None:
        """Removes a deployment, durably, and stops its driver."""
        now_s = self.services.clock.now().wall_s
        is_gone = await self.services.store.run(
            "delete_deployment",
            lambda s: s.delete_deployment(name, etag=etag, request_id=request_id, now_s=now_s),
        )
        driver = self._drivers.pop(name, None) if is_gone else None
        if driver is None:
            return
        await driver.stop()
        driver.send_all(fx.Welcome(verdict=fx.Verdict.DEPLOYMENT_UNKNOWN))
        driver.close_all()
        self.services.hub.forget(name)
        self.services.metrics.forget(name)
        logger.info("%s: deleted", name)

    async def stored_plan(self, name: str, version: int) -> Plan:
        """Returns a plan of any version.

        Raises:
            NotFoundError: there is no such deployment or version.
        """
        self.get(name)
        return await self.services.store.run("plan", lambda s: s.plan(name, version))

    async def stored_plans(self, name: str, *, below: int, limit: int) -> list[Plan]:
        """Returns up to `limit` plans with versions under `below` (0 = any), newest first.

        They come without their transfers, which are most of what is stored of them.
        """
        self.get(name)
        ceiling = below or _ANY_VERSION
        return await self.services.store.run(
            "plans",
            lambda s: s.plans(name, below=ceiling, limit=limit, has_transfers=False),
        )

    async def latest_plan(self, name: str) -> Plan:
        """Returns the plan of the highest version, in whatever state.

        Raises:
            NotFoundError: there is no such deployment, or no plan yet.
        """
        self.get(name)
        plans = await self.services.store.run(
            "plans", lambda s: s.plans(name, below=_ANY_VERSION, limit=1)
        )
        if not plans:
            raise no_plan_yet(name)
        return plans[0]

    def drain(self, reconnect_window_s: float) -> None:
        """Asks every participant and watcher to go elsewhere."""
        self.services.hub.close()
        for driver in self._drivers.values():
            driver.send_all(fx.Drain(reconnect_window_s))
            for outbox in driver.close_all():
                outbox.close()

    async def save_forecasts(self) -> None:
        """Writes the forecasts to the store that are not there already, one after another."""
        for driver in list(self._drivers.values()):
            try:
                await driver.save_forecast()
            except Exception:  # one forecast must not take the others down with it
                logger.exception("%s: forecast not saved", driver.group.deployment.name)

    async def stop(self) -> None:
        """Stops every driver."""
        for task in self._warming:
            task.cancel()
        for driver in self._drivers.values():
            await driver.stop()

    async def _open(self, name: str) -> Driver:
        """Starts the driver of a stored deployment."""
        recovered = await self.services.store.run(
            "recover", lambda s: s.recover(name, num_plans=PLANS_RECOVERED)
        )
        group = Group(
            recovered,
            epoch=self.epoch,
            heartbeat_interval_s=self._heartbeat_interval_s,
            report_interval_s=self._report_interval_s,
        )
        driver = Driver(group, self.services, on_epoch=self._raise_epoch)
        self._drivers[name] = driver
        driver.start()
        # Aside: whoever creates a deployment does not wait for compilers.
        warming = asyncio.create_task(self.services.solver.warm(recovered.deployment.spec))
        self._warming.add(warming)
        warming.add_done_callback(self._warming.discard)
        return driver

    def _raise_epoch(self, epoch: int) -> None:
        """Tells every deployment that the store's term has moved on."""
        self.epoch = epoch
        self.services.metrics.epoch.set(epoch)
        for driver in self._drivers.values():
            driver.raise_epoch(epoch)


def no_plan_yet(name: str) -> NotFoundError:
    """Returns the refusal to show a plan of a deployment that has none."""
    return NotFoundError(f"Expected a plan of {name}, got none yet.", reason="NO_PLAN_YET")
