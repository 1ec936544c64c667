"""Conversations over a store: what the core wants of it is done at once, as the driver does it.

Now and then a write goes wrong. An effect is written down before the lines of what its answer
brings about.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from expertplane.wire import digest_phy2log
from expertplane_server.core import effects as fx, events as ev, orders
from expertplane_server.core.errors import ConflictError, UnavailableError
from expertplane_server.core.group import Group
from expertplane_server.core.parameters import RolloutParameters
from expertplane_server.core.spec import DeploymentSpec, RolloutMode
from expertplane_server.store import MemoryStore

from .. import builders
from .script import SILENT, Conversation, line


if TYPE_CHECKING:
    from expertplane_server.core.plan import Decision, Plan, PlanRef, Request


class Mishap(enum.Enum):
    """What may become of a write, or of reading back."""

    REFUSED = "refused"
    """The store turns it down."""
    LOST = "lost"
    """It was not done, and nobody knows."""
    DONE = "done"
    """It was done, and nobody knows."""


class StoredConversation(Conversation):
    """A group over a store of its own, and the clock it lives by.

    Attributes:
        mishaps: by type of effect, what will become of the next ones; afterwards all is well.
        asked: orders so far; they are numbered from 1 on.
        answered: by order, how often it was answered.
        effects: all that were carried out, in order.
    """

    def __init__(self, wanted: DeploymentSpec | None = None) -> None:
        self.store = MemoryStore()
        self.store.create_deployment(
            builders.NAME, wanted or builders.spec(), request_id="", now_s=0.0
        )
        self.mishaps: defaultdict[type, list[Mishap]] = defaultdict(list)
        self.answered: Counter[int] = Counter()
        self.asked = 0
        self.effects: list[fx.Effect] = []
        self._step = 1000
        self._started_at_s = 1000.0
        super().__init__(self._load())

    def _load(self) -> Group:
        recovered = self.store.recover(builders.NAME, num_plans=16)
        return Group(recovered, epoch=self.store.epoch, heartbeat_interval_s=builders.HEARTBEAT_S)

    def restart(self, *, after_s: float = 0.0) -> list[str]:
        """Begin anew on the store, in the next term; return the lines of the beginning.

        The monotonic clock begins anew as well; the wall clock has gone on.
        """
        self._started_at_s += self.now_s + after_s
        self.now_s = 0.0
        self.store.raise_counters(builders.NAME, version=0, epoch=self.store.epoch)
        self.group = self._load()
        lines: list[str] = []
        self._carry_out(self.group.begin(self._now()), lines)
        return lines

    def _now(self) -> ev.Instant:
        return ev.Instant(monotonic_s=self.now_s, wall_s=self._started_at_s + self.now_s)

    def tell(self, *events: ev.Event) -> list[str]:
        """Hand events to the group, and return the lines of all that the last one leads to."""
        lines: list[str] = []
        for event in events:
            lines = []
            self._carry_out(self.group.handle(event, self._now()), lines)
        return lines

    def _carry_out(self, effects: list[fx.Effect], lines: list[str]) -> None:
        for effect in effects:
            self.effects.append(effect)
            self.saw(effect)
            if not isinstance(effect, SILENT):
                lines.append(line(effect))
            answer = self._answer(effect)
            if answer is not None:
                self._carry_out(self.group.handle(answer, self._now()), lines)

    def saw(self, effect: fx.Effect) -> None:
        """Take note of an effect before it is carried out."""
        if isinstance(effect, fx.Answer):
            self.answered[effect.order] += 1

    def _answer(self, effect: fx.Effect) -> ev.Event | None:
        """Carry an effect out, and return the store's answer where there is one."""
        queue = self.mishaps[type(effect)]
        mishap = queue.pop(0) if queue else None
        if isinstance(effect, fx.ReadBack):
            found = None if mishap else self.store.recover(builders.NAME, num_plans=16)
            return ev.ReadBack(found)
        if mishap is Mishap.REFUSED:
            return ev.StoreFailed(error=ConflictError("fenced"), is_refusal=True)
        answer = self._write(effect) if mishap is not Mishap.LOST else None
        if mishap is not None:
            return ev.StoreFailed(error=UnavailableError("disk full"))
        return answer

    def _write(self, effect: fx.Effect) -> ev.Event | None:
        name, epoch = builders.NAME, self.group.epoch
        common: dict[str, Any] = {"epoch": epoch, "now_s": self._now().wall_s}
        match effect:
            case fx.StorePlan(draft=draft):
                plan = self.store.publish(
                    draft,
                    state=effect.state,
                    decision=effect.decision,
                    expected_head=effect.expected_head,
                    request=effect.request,
                    **common,
                )
                return ev.Stored(plan=plan)
            case fx.CommitPlan(version):
                self.store.commit(name, version, epoch=epoch)
                return ev.PlanCommitted(version=version)
            case fx.AbortPlan(version, decision):
                self.store.abort(name, version, decision=decision, **common)
                return ev.PlanAborted(version=version)
            case fx.StorePause(is_paused=is_paused, comment=comment, request=request):
                paused = self.store.set_paused(
                    name, is_paused=is_paused, comment=comment, request=request, **common
                )
                return ev.DeploymentStored(deployment=paused)
            case fx.StoreSpec(spec=spec, etag=etag, is_new_generation=is_new, request=request):
                changed = self.store.update_deployment(
                    name, spec, etag=etag, is_new_generation=is_new, request=request, **common
                )
                return ev.DeploymentStored(deployment=changed)
            case fx.RaiseCounters(_, version, raised):
                head, raised = self.store.raise_counters(name, version=version, epoch=raised)
                return ev.CountersRaised(head=head, epoch=raised)
        self._note(effect, common)
        return None

    def _note(self, effect: fx.Effect, common: dict[str, Any]) -> None:
        """Carry out what nobody waits for."""
        name, epoch = builders.NAME, self.group.epoch
        match effect:
            case fx.StoreApplied(version):
                self.store.mark_applied(name, version, epoch=epoch)
            case fx.StoreParked(parked):
                self.store.park(name, parked, epoch=epoch)
            case fx.StoreSuperseded(incarnation):
                self.store.supersede(name, incarnation, epoch=epoch)
            case fx.Record(decision, is_stored, request) if not is_stored:
                self.store.record(name, decision, request=request, **common)

    # What happens in most conversations.

    def join(self, **changes: Any) -> StoredConversation:
        """Let a come on stream 1 with rank 0 and b on stream 2 with rank 1; both hear a beat."""
        self.tell(builders.hello(1, "a", (0,), **changes), builders.hello(2, "b", (1,), **changes))
        self.tell(ev.Tick())
        return self

    def load(self, *samples: tuple[float, ...]) -> list[str]:
        """Let every member report the next steps; return what follows on the last report."""
        self._step += 100
        lines: list[str] = []
        for member in list(self.group.members):
            stream = member.hello.stream
            lines = self.tell(builders.report(*samples, stream=stream, first_step=self._step))
        return lines

    def solved(self, *layers: tuple[int, ...], **changes: Any) -> list[str]:
        """Let the solver answer the latest solve; return what follows."""
        solution = builders.solution(*layers, **changes)
        return self.tell(ev.Solved(solve=self.group._cycle._num_solves, solution=solution))

    def propose(self, *layers: tuple[int, ...], **changes: Any) -> list[str]:
        """Lead the group through a window to a candidate; return what follows."""
        self.load()
        return self.solved(*layers, **changes)

    def staged(self, stream: int, version: int = 1) -> list[str]:
        """Let a member say that it has staged a version."""
        return self.tell(ev.Ack(stream=stream, ref=self.ref(version), phase=ev.AckPhase.STAGED))

    def applied(self, stream: int, version: int = 1) -> list[str]:
        """Let a member say that it serves with a version."""
        return self.tell(ev.Ack(stream=stream, ref=self.ref(version), phase=ev.AckPhase.APPLIED))

    def roll_out(self, *layers: tuple[int, ...], **changes: Any) -> int:
        """Lead the group to a plan that all serve with; return its version."""
        self.propose(*layers, **changes)
        return self.finish()

    def finish(self) -> int:
        """Let all members stage what is being staged, and apply it; return the version."""
        version = self.group.deployment.head
        streams = [member.hello.stream for member in self.group.members]
        if self.group.staging_version:
            for stream in streams:
                self.staged(stream, version)
        for stream in streams:
            self.applied(stream, version)
        return version

    def ref(self, version: int) -> PlanRef:
        """Return what a participant says that has a version."""
        return builders.ref(self.plan(version))

    def plan(self, version: int) -> Plan:
        """Return a plan as the store has it."""
        return self.store.plan(builders.NAME, version)

    def order(
        self,
        action: orders.Action,
        *,
        expected_head: int | None = None,
        request: Request | None = None,
    ) -> list[str]:
        """Give the next order; return what follows."""
        self.asked += 1
        return self.tell(
            ev.Order(order=self.asked, action=action, request=request, expected_head=expected_head)
        )


def coordinated(**changes: Any) -> DeploymentSpec:
    """Return a spec whose plans all members stage before any may switch to them."""
    return builders.spec(rollout_mode=RolloutMode.COORDINATED, **changes)


def rollout(**changes: Any) -> RolloutParameters:
    """Return how plans reach the ranks: in a minute, or not at all."""
    return RolloutParameters(**{"stage_deadline_s": 60.0, **changes})


def publish(*layers: tuple[int, ...], comment: str = "") -> orders.Publish:
    """Return the order to publish a placement."""
    phy2log = np.array(layers, dtype=np.int32)
    return orders.Publish(phy2log, digest_phy2log(phy2log), comment)


def pair(wanted: DeploymentSpec | None = None) -> StoredConversation:
    """Return a conversation in which a serves rank 0 on stream 1, and b rank 1 on stream 2."""
    return StoredConversation(wanted).join()


def latest(talk: StoredConversation) -> Decision:
    """Return the latest decision, which the store has as well."""
    decision = talk.group.journal.latest
    assert decision is not None
    assert talk.store.decision(builders.NAME, decision.sequence) == decision
    return decision


def coordinated_pair(**changes: Any) -> StoredConversation:
    """Return a conversation in which a serves rank 0 on stream 1, and b rank 1 on stream 2."""
    return StoredConversation(coordinated(rollout=rollout(), **changes)).join()


def staging(*, by: tuple[int, ...] = ()) -> StoredConversation:
    """Return one in which both are asked to stage version 1, and these streams have."""
    talk = coordinated_pair()
    talk.propose()
    for stream in by:
        talk.staged(stream)
    return talk


def after_commit() -> StoredConversation:
    """Return one in which both have staged version 1, and nobody has applied it yet."""
    return staging(by=(1, 2))
