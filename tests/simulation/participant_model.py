"""A participant as the protocol wants it, after the real one's session, and its engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from expertplane.wire import digest_phy2log
from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.plan import PlanRef

from . import mischief
from .load_model import STEPS_PER_SAMPLE
from .scenario import BYTES_PER_EXPERT


if TYPE_CHECKING:
    from expertplane_server.core.errors import ServiceError
    from expertplane_server.core.plan import Plan

    from .network import Stream
    from .world import World


PULSE_S = 1.0
MAX_UNANSWERED = 6
_MAX_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Saved:
    """What a participant keeps on disk."""

    plan: Plan | None
    highest_version: int
    highest_epoch: int


@dataclass(slots=True, eq=False)
class Site:
    """Where one participant lives, whichever of its processes is alive.

    Attributes:
        saved: what lies on its disk; None for an empty one.
        num_starts: processes so far.
    """

    name: str
    ranks: tuple[int, ...]
    saved: Saved | None = None
    num_starts: int = 0
    process: Process | None = None


class Process:
    """One incarnation of a participant.

    Attributes:
        applied: what its ranks serve with.
        applied_epoch: the planner's term in which they switched to it.
        refused: digests of the plans that its engine has refused for good.
        is_welcome: its present stream has been welcomed.
        acked_staged: plans that it has told the planner to have staged, ever.
    """

    def __init__(self, world: World, site: Site, incarnation: str) -> None:
        self.site = site
        self.incarnation = incarnation
        self.is_alive = True
        self.stream: Stream | None = None
        self.refused: set[str] = set()
        self.acked_staged: set[PlanRef] = set()
        self._world = world
        self._run_id = world.load.run_id
        initial = world.scenario.initial
        self.applied = PlanRef(digest="" if initial is None else digest_phy2log(initial))
        # What the engine has taken once it takes again.
        self._fine = {self.applied.digest}
        self.applied_epoch = 0
        self._plan: Plan | None = None
        self._staged: Plan | None = None
        self._staging: Plan | None = None
        self._adopting: Plan | None = None
        self._switching: Plan | None = None
        self.highest_version = self.highest_epoch = 0
        self._heard_s = self._beat_s = world.loop.now_s
        self._is_elected = False
        self.is_welcome = False
        self._reports: dict[int, ev.LoadReport] = {}
        self._sequence = 0
        self._next_sample = world.load.latest(world.loop.now_s)
        if site.saved is not None:
            self._restore(site.saved)
        world.loop.note(incarnation, "starts", site.ranks, self.applied)
        world.loop.after(world.loop.rng.uniform(0.0, PULSE_S), self._pulse)

    def _restore(self, saved: Saved) -> None:
        self.highest_version, self.highest_epoch = saved.highest_version, saved.highest_epoch
        if saved.plan is not None:
            self._plan = saved.plan
            self._fine.add(saved.plan.digest)
            self.applied = _ref(saved.plan)
            self.applied_epoch = saved.highest_epoch

    def kill(self) -> None:
        """Die without a word."""
        self.is_alive = False
        self._world.loop.note(self.incarnation, "dies")
        if self.stream is not None:
            self._world.network.lose(self.stream)

    def leave(self) -> None:
        """Stop in good order."""
        self.is_alive = False
        self._world.loop.note(self.incarnation, "leaves")
        if self.stream is not None:
            self._world.network.hang_up(self.stream, is_goodbye=True)

    # Its connection.

    def stream_ended(self, stream: Stream, error: ServiceError | None = None) -> None:
        """Hear that a connection is over."""
        if self.is_alive and self.stream is stream:
            self._world.loop.note(self.incarnation, "is cut off", stream.number, error)
            self.stream, self.is_welcome = None, False
            if error is not None and error.reason == "SUPERSEDED":
                self._world.superseded(self)

    def _connect(self) -> None:
        stream = self._world.network.connect(self)
        if stream is None:
            return
        self.stream = stream
        self.is_welcome = self._is_elected = False
        self._heard_s = self._beat_s = self._world.loop.now_s
        self._up(self.hello(stream.number))

    def hello(self, stream: int) -> ev.Hello:
        """Return the first message of a stream."""
        return ev.Hello(
            stream=stream,
            participant=self.site.name,
            ranks=self.site.ranks,
            incarnation=self.incarnation,
            engine_run_id=self._run_id,
            applied=self.applied,
            staged=None if self._staged is None else _ref(self._staged),
            highest_version=self.highest_version,
            highest_epoch=self.highest_epoch,
            max_staged_bytes=self._world.scenario.spare_slots * BYTES_PER_EXPERT,
            initial_phy2log=self._world.scenario.initial,
        )

    def _up(self, event: ev.Event) -> None:
        if self.stream is not None:
            self._world.network.up(self.stream, event)

    def _pulse(self) -> None:
        """Do what is due; again in a while."""
        if not self.is_alive:
            return
        world = self._world
        now_s, interval_s = world.loop.now_s, world.heartbeat_s
        if self.stream is not None and now_s - self._heard_s > 3 * interval_s:
            world.loop.note(self.incarnation, "misses the planner")
            world.network.hang_up(self.stream, is_goodbye=False)
            self.stream, self.is_welcome = None, False
        if self.stream is None:
            self._connect()
        elif self.is_welcome:
            if now_s - self._beat_s >= interval_s:
                self._beat_s = now_s
                self._up(ev.Heartbeat(stream=self.stream.number, applied=self.applied))
            self._report()
            if not world.is_calm and world.loop.rng.random() < 0.02:
                self._up(mischief.message(world, self, self.stream.number))
        world.loop.after(PULSE_S * world.loop.rng.uniform(0.9, 1.1), self._pulse)

    def _report(self) -> None:
        """Measure what has come since the last report, and tell it."""
        world, scenario = self._world, self._world.scenario
        end = world.load.latest(world.loop.now_s)
        first = max(self._next_sample, end - _MAX_SAMPLES)
        self._next_sample = end
        is_for_all = scenario.scope is ev.LoadScope.DEPLOYMENT
        if first >= end or world.is_calm or (is_for_all and not self._is_elected):
            return
        assert self.stream is not None
        ranks = range(scenario.spec.topology.num_ranks) if is_for_all else self.site.ranks
        self._sequence += 1
        report = ev.LoadReport(
            stream=self.stream.number,
            sequence=self._sequence,
            plan_version=self.applied.version,
            first_step=first * STEPS_PER_SAMPLE,
            steps_per_sample=STEPS_PER_SAMPLE,
            kind=scenario.kind,
            scope=scenario.scope,
            counts=world.load.counts(first, end, tuple(ranks), self.applied),
        )
        self._reports[self._sequence] = report
        if len(self._reports) > MAX_UNANSWERED:
            del self._reports[min(self._reports)]
        self._up(report)
        if world.loop.rng.random() < 0.05:
            self._up(report)

    # What the planner says.

    def receive(self, stream: Stream, epoch: int, message: fx.Message) -> None:
        """Take a message of the planner."""
        if not self.is_alive or self.stream is not stream:
            return
        self._heard_s = self._world.loop.now_s
        if not self._accepts(epoch):
            return
        if not isinstance(message, fx.PlannerHeartbeat):
            self._world.loop.note(self.incarnation, "<", message)
        self._world.watch.acts(self, epoch, message)
        self.highest_epoch = max(self.highest_epoch, epoch)
        match message:
            case fx.Welcome():
                self._on_welcome(message)
            case fx.Stage(plan):
                self._stage(plan)
            case fx.Commit():
                self._on_commit(message)
            case fx.Abort(version):
                self._drop(version)
            case fx.PlannerHeartbeat(head=head):
                self._saw(head)
            case fx.ReportAck(sequence) | fx.Refused(sequence=sequence):
                self._reports.pop(sequence, None)

    def _accepts(self, epoch: int) -> bool:
        return epoch >= self.highest_epoch

    def _on_welcome(self, welcome: fx.Welcome) -> None:
        is_first = not self.is_welcome
        self.is_welcome = True
        self._is_elected = welcome.is_elected_reporter
        if is_first and self.stream is not None:
            for report in self._reports.values():
                self._up(replace(report, stream=self.stream.number))
        if welcome.plan is not None and self._is_news(welcome.plan):
            self._adopt(welcome.plan)

    def _on_commit(self, commit: fx.Commit) -> None:
        plan = commit.plan
        self._saw(plan.version)
        if _ref(plan) == self.applied:
            self._tell(ev.AckPhase.APPLIED, plan)
        elif commit.is_staged:
            if any(
                held is not None and _ref(held) == _ref(plan)
                for held in (self._staged, self._staging, self._adopting)
            ):
                self._adopt(plan)
            else:
                self._refuse(plan, "NOT_STAGED", is_transient=True)
        elif self._is_news(plan):
            self._adopt(plan)

    def _drop(self, version: int) -> None:
        """Let go of what was staged of a version, or is being staged."""
        self._saw(version)
        if self._staged is not None and self._staged.version == version:
            self._staged = None
        if self._staging is not None and self._staging.version == version:
            self._staging = None

    def _is_news(self, plan: Plan) -> bool:
        """Tell whether a plan may be taken; refuse it otherwise."""
        is_news = (
            plan.version > self.applied.version
            or self.highest_epoch > self.applied_epoch
            or _ref(plan) == self.applied
        )
        if not is_news:
            self._refuse(plan, "VERSION_REGRESSION", is_transient=False)
            return False
        self._saw(plan.version)
        return True

    # The engine.

    def _stage(self, plan: Plan) -> None:
        if not self._is_news(plan):
            return
        has_it = self._staged is not None and _ref(self._staged) == _ref(plan)
        if has_it or _ref(plan) == self.applied:
            self._tell(ev.AckPhase.STAGED, plan)
        elif self._staging is None or _ref(self._staging) != _ref(plan):
            self._staged = None
            self._staging = plan
            self._world.loop.after(self._span_s(), self._staging_done, plan)

    def _staging_done(self, plan: Plan) -> None:
        if not self.is_alive or self._staging is not plan:
            return
        self._staging = None
        if self._objects(plan):
            return
        self._staged = plan
        self._tell(ev.AckPhase.STAGED, plan)

    def _adopt(self, plan: Plan) -> None:
        if _ref(plan) == self.applied:
            self._tell(ev.AckPhase.APPLIED, plan)
        elif self._adopting is None or _ref(self._adopting) != _ref(plan):
            self._adopting = plan
            # The buffers are for what the ranks switch to.
            for other in (self._staged, self._staging):
                if other is not None and _ref(other) != _ref(plan):
                    self._drop(other.version)
            self._switch()

    def _switch(self) -> None:
        """Switch to what is wanted last; a switch under way cannot be called off."""
        if self._switching is None and self._adopting is not None:
            self._switching = self._adopting
            self._world.loop.after(self._span_s(), self._switched, self._switching)

    def _switched(self, plan: Plan) -> None:
        if not self.is_alive:
            return
        self._switching = None
        if self._adopting is plan:
            self._adopting = None
        if not self._objects(plan):
            self._serve_with(plan)
        self._switch()

    def _serve_with(self, plan: Plan) -> None:
        self._plan, self.applied = plan, _ref(plan)
        self.applied_epoch = self.highest_epoch
        self._saw(plan.version)
        if self._staged is not None and _ref(self._staged) == self.applied:
            self._staged = None
        if self._staging is not None and _ref(self._staging) == self.applied:
            self._staging = None
        # What is measured across the switch belongs to neither plan.
        self._next_sample = self._world.load.latest(self._world.loop.now_s) + 1
        self.site.saved = Saved(plan, self.highest_version, self.highest_epoch)
        self._world.loop.note(self.incarnation, "serves with", self.applied)
        self._tell(ev.AckPhase.APPLIED, plan)

    def _objects(self, plan: Plan) -> bool:
        """Have the engine refuse a plan now and then: for good, or until it is asked again."""
        world, rng = self._world, self._world.loop.rng
        if plan.digest in self.refused:
            self._refuse(plan, "UNFIT", is_transient=False)
            return True
        if world.is_calm:
            return False
        if plan.digest not in self._fine and rng.random() < world.scenario.refusal:
            self._refuse(plan, "UNFIT", is_transient=False)
            return True
        if rng.random() < 0.1:
            self._refuse(plan, "BUSY", is_transient=True)
            return True
        self._fine.add(plan.digest)
        return False

    def _span_s(self) -> float:
        rng = self._world.loop.rng
        is_slow = not self._world.is_calm and rng.random() < 0.1
        return rng.uniform(1.0, 8.0) if is_slow else rng.uniform(0.05, 0.4)

    def _tell(self, phase: ev.AckPhase, plan: Plan) -> None:
        if self.stream is None:
            return
        if phase is ev.AckPhase.STAGED:
            self.acked_staged.add(_ref(plan))
        ack = ev.Ack(stream=self.stream.number, ref=_ref(plan), phase=phase, step=1)
        self._up(ack)
        if self._world.loop.rng.random() < 0.05:
            self._up(ack)

    def _refuse(self, plan: Plan, reason: str, *, is_transient: bool) -> None:
        if reason == "UNFIT":
            self.refused.add(plan.digest)
        if self.stream is not None:
            self._up(
                ev.Nack(
                    stream=self.stream.number,
                    version=plan.version,
                    message="simulated",
                    is_transient=is_transient,
                    reason=reason,
                )
            )

    def _saw(self, version: int) -> None:
        self.highest_version = max(self.highest_version, version)


def _ref(plan: Plan) -> PlanRef:
    return PlanRef(version=plan.version, digest=plan.digest)
