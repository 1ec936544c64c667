"""A durable store that fails in every way a real one can: the memory store, and its past."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from expertplane_server.core.errors import NotFoundError
from expertplane_server.store import memory
from expertplane_server.store.base import StoreError
from expertplane_server.store.memory import MemoryStore

from .scenario import NAME


if TYPE_CHECKING:
    from expertplane_server.core.plan import Plan
    from expertplane_server.core.spec import Deployment

    from .world import World


NUM_PLANS = 16
"""Plans that a planner reads back when it starts."""

_READS = ("recover", "answered", "plans", "plan", "decision")


class Disk:
    """What survives every crash. Opening it starts a new epoch and fences the owner before.

    Attributes:
        num_writes: transactions that have changed anything, so far.
        is_broken: every call fails until it is mended.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = MemoryStore()
        self._store.create_deployment(NAME, world.scenario.spec, request_id="", now_s=0.0)
        self._backups = [copied(self._store)]
        self.num_writes = 0
        self.is_broken = False

    @property
    def epoch(self) -> int:
        """The term of the present owner."""
        return self._store.epoch

    @property
    def deployment(self) -> Deployment:
        """The deployment as it is stored."""
        return self._store.deployments()[0]

    @property
    def parked(self) -> set[tuple[str, str]]:
        """What incarnations have refused for good, by digest."""
        parked = self._store.recover(NAME, num_plans=1).parked
        return {(each.incarnation, each.digest) for each in parked}

    def plan(self, version: int) -> Plan | None:
        """Return a durable plan, or None where there is none of this version."""
        try:
            return self._store.plan(NAME, version)
        except NotFoundError:
            return None

    def stored(self) -> list[Plan]:
        """Return all durable plans, newest first."""
        return self._store.plans(NAME, below=1 << 62, limit=1000)

    def open(self) -> int:
        """Begin a new epoch, and return it.

        Raises:
            StoreError: the store is broken.
        """
        if self.is_broken:
            raise StoreError("The disk is away.")
        self._store._epoch += 1
        return self._store.epoch

    def back_up(self) -> None:
        """Keep the present state for a bad day."""
        self._backups.append(copied(self._store))

    def restore(self) -> None:
        """Lose everything since some backup; the first one is empty."""
        backup = self._world.loop.rng.choice(self._backups)
        self._store = copied(backup)
        self.num_writes += 1
        self._world.watch.store_restored()

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Carry a transaction out, or not, or without telling.

        Raises:
            StoreError: it failed, and nobody knows what has been done.
            ServiceError: the store has turned it down.
        """
        fate = self._fate()
        if fate == "failed":
            self._world.loop.note("store", "fails", method)
            raise StoreError("The disk did not answer.")
        epoch = self._store.epoch
        answer = getattr(self._store, method)(*arguments, **options)
        if method not in _READS:
            self.num_writes += 1
            self._world.watch.written(method, arguments, options, answer, epoch)
        if fate == "unknown":
            self._world.loop.note("store", "does not answer", method)
            raise StoreError("The disk did not answer in time.")
        return answer

    def _fate(self) -> str:
        world = self._world
        if self.is_broken:
            return "failed"
        if world.is_calm or world.loop.rng.random() >= world.scenario.store_fault:
            return "done"
        return world.loop.rng.choice(("failed", "unknown"))


def copied(thing: Any) -> Any:
    """Copy containers, and what holds them inside the store; what is frozen is shared."""
    if isinstance(thing, dict):
        return {key: copied(value) for key, value in thing.items()}
    if isinstance(thing, list):
        return list(thing)
    if type(thing).__module__ != memory.__name__:
        return thing
    twin = copy.copy(thing)
    for name in getattr(thing, "__slots__", None) or vars(thing):
        setattr(twin, name, copied(getattr(thing, name)))
    return twin
