"""The simulator finds what it is there to find: bugs put in on purpose, each by its invariant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from expertplane_server.core import desk, effects as fx, events as ev
from expertplane_server.core.group import Group
from expertplane_server.core.samples import Sampler

from . import planner_model
from .participant_model import Process
from .planner_model import Planner
from .runs import run
from .scenario import NAME
from .store_model import Disk, copied
from .world import World


if TYPE_CHECKING:
    from .network import Stream

MAX_SEEDS = 300
"""Worlds that may pass before a bug shows."""


class HastyPlanner(Planner):
    """Takes one member's word for the word of all."""

    def _handle(self, event: ev.Event) -> None:
        super()._handle(event)
        if isinstance(event, ev.Ack) and event.phase is ev.AckPhase.STAGED:
            for member in list(self.group.members):
                super()._handle(replace(event, stream=member.hello.stream))


class ForgetfulDisk(Disk):
    """Knows after a crash only what was committed."""

    def open(self) -> int:
        epoch = super().open()
        kept = self._store._kept[NAME]
        kept.deployment = replace(kept.deployment, head=kept.deployment.committed)
        kept.plans = {
            version: plan
            for version, plan in kept.plans.items()
            if version <= kept.deployment.committed
        }
        return epoch


class LyingDisk(Disk):
    """Says that a plan is kept, and sometimes has not kept it."""

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        before = copied(self._store)
        answer = super().call(method, *arguments, **options)
        if method == "publish" and self._world.loop.rng.random() < 0.3:
            self._store = before
        return answer


class AmnesiacDisk(Disk):
    """Does not tell a new planner what participants have refused."""

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        answer = super().call(method, *arguments, **options)
        return replace(answer, parked=()) if method == "recover" else answer


class UnfencedDisk(Disk):
    """Lets former owners write."""

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        if "epoch" not in options or method == "raise_counters":
            return super().call(method, *arguments, **options)
        owner, self._store._epoch = self._store._epoch, options["epoch"]
        try:
            answer = getattr(self._store, method)(*arguments, **options)
        finally:
            self._store._epoch = owner
        self._world.watch.written(method, arguments, options, answer, owner)
        return answer


class CredulousProcess(Process):
    """Does what it is told on whatever stream, by whatever planner."""

    def receive(self, stream: Stream, epoch: int, message: fx.Message) -> None:
        now = self.stream
        if now is not None and stream.is_open is False and stream.process is self:
            self.stream = stream
        super().receive(stream, epoch, message)
        self.stream = now

    def _accepts(self, epoch: int) -> bool:
        return True


class DeafPlanner(Planner):
    """Never hears that a participant could not do what it was told."""

    def _handle(self, event: ev.Event) -> None:
        if not isinstance(event, ev.Nack):
            super()._handle(event)


class TrustingPlanner(Planner):
    """Welcomes participants that have seen more than the store has."""

    def _raise_counters(self, effect: fx.RaiseCounters) -> None:
        return


class SloppyGroup(Group):
    """Counts what it refuses."""

    def handle(self, event: ev.Event, now: ev.Instant) -> list[fx.Effect]:
        effects = super().handle(event, now)
        if any(isinstance(getattr(effect, "message", None), fx.Refused) for effect in effects):
            self.num_dropped_samples += 1
        return effects


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A bug and the invariant that it breaks.

    Attributes:
        models: what a world is made of in place of the right models.
        patches: what is replaced in the core: object, name, replacement.
    """

    name: str
    invariant: str
    models: tuple[tuple[str, type], ...] = ()
    patches: tuple[tuple[Any, str, Any], ...] = ()


BUGS = (
    Bug(name="version reused", invariant="I1", models=(("disk_class", ForgetfulDisk),)),
    Bug(name="not raised", invariant="I1", models=(("planner_class", TrustingPlanner),)),
    Bug(name="sent before durable", invariant="I2", models=(("disk_class", LyingDisk),)),
    Bug(name="committed too early", invariant="I3", models=(("planner_class", HastyPlanner),)),
    Bug(name="store without fence", invariant="I4", models=(("disk_class", UnfencedDisk),)),
    Bug(name="epoch ignored", invariant="I4", models=(("process_class", CredulousProcess),)),
    Bug(name="refusals unheard", invariant="I5", models=(("planner_class", DeafPlanner),)),
    Bug(name="parked plan sent again", invariant="I6", models=(("disk_class", AmnesiacDisk),)),
    Bug(
        name="sample counted twice",
        invariant="I7",
        patches=((Sampler, "_is_closed", lambda *_: False),),
    ),
    Bug(
        name="placement unchecked",
        invariant="I8",
        patches=((desk, "check_placement", lambda *_: None),),
    ),
    Bug(
        name="refusal counted",
        invariant="I9",
        patches=((planner_model, "Group", SloppyGroup),),
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some world breaks just the invariant that the bug violates."""
    for owner, name, replacement in bug.patches:
        monkeypatch.setattr(owner, name, replacement)
    world_class = type("BuggyWorld", (World,), dict(bug.models))

    found = (run(seed, world_class).invariant for seed in range(MAX_SEEDS))

    assert bug.invariant in found
